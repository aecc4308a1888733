"""The half of the API that does something: each call reaches its action once, or is refused as a problem."""

from __future__ import annotations

import base64
import json
import threading
from typing import Any
from urllib.parse import quote

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.errors import ActionRefused, LedgerError
from deploykit.web.actions.asked import ControlAsked, DeployAsked, GrantAsked, LockAsked, NodesAsked, RollbackAsked
from deploykit.web.api.openapi import document
from deploykit.web.api.problems import RequestRefused
from deploykit.web.api.repeats import AnswersInMemory
from deploykit.web.api.turns import OF_ONE, ActionTurns
from deploykit.web.api.writes import WRITES
from deploykit.web.viewer import EVERYBODY, RoleGrant, Viewer
from tests.support.answerschemas import problem_validator, validator
from tests.support.asgi import Asked, Asker
from tests.support.consoleserver import api_alone
from tests.support.fixedactions import PASSWORD, FixedActions
from tests.support.fixedqueries import FixedQueries

ANN = Viewer(name="ann", grants=(RoleGrant(sites="shop*", role="live"),))
DEPLOY = {"ref": "v2.4.1", "chosen": {"nodes": ["web-1", "web-2"]}, "reason": "carts"}
#: Of each operation: a path, a body, and the method of the actions that it must reach.
CALLS: dict[str, tuple[str, Any, str]] = {
    "plan": ("/sites/shop/plans", DEPLOY, "plan"),
    "begin_deploy": ("/sites/shop/deploys", DEPLOY, "begin"),
    "begin_rollback": ("/sites/shop/rollbacks", {"chosen": {"everybody": True}}, "begin"),
    "control": ("/deploys/r-1/control", {"kind": "abort", "rollback": True}, "control"),
    "retry": ("/deploys/r-1/retry", {}, "retry"),
    "sign": ("/deploys/r-1/signatures", {"signature": "U1NIU0lH" * 3}, "sign"),
    "withdraw": ("/deploys/r-1/withdraw", None, "withdraw"),
    "lock": ("/sites/shop/lock", {"reason": "audit", "until": "3d"}, "lock"),
    "unlock": ("/sites/shop/lock?reason=over", None, "unlock"),
    "grant_access": ("/access", {"site": "shop", "user": "carol"}, "grant"),
    "extend_access": ("/access/extend", {"site": "shop", "user": "carol", "until": "3d"}, "extend"),
    "revoke_access": ("/access?site=shop&user=carol", None, "revoke"),
    "relay": ("/relay", {"body": base64.b64encode(b"{}").decode(), "signature": "U1NIU0lH"}, "relay"),
}
METHODS = {operation.name: operation.method for operation in WRITES}


class Api:
    """The API on fixed actions, asked in this process."""

    def __init__(self, viewer: Viewer = EVERYBODY, *, shows_only: bool = False) -> None:
        self.actions = FixedActions()
        self.answers = AnswersInMemory()
        console = None if shows_only else self.actions.console
        app = api_alone(FixedQueries(), viewer=viewer, actions=console, answers=self.answers)
        self.asker = Asker(app=app)

    def call(self, name: str, **headers: str) -> Asked:
        path, body, _ = CALLS[name]
        return self.send(METHODS[name], path, body, **headers)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Asked:
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {"content-type": "application/json"} if raw else {}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.asker.ask(method, f"/api/v1{path}", named, [raw])

    def propose(self) -> str:
        """Have a rollout proposed, and return its id."""
        self.actions.needs["shop"] = 2
        return str(self.call("begin_deploy").json()["rollout"])


def problem_of(answer: Asked) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    found: dict[str, Any] = answer.json()
    problem_validator().validate(found)
    assert found["status"] == answer.status
    return found


def test_every_operation_is_tried_here() -> None:
    assert {operation.name for operation in WRITES} == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_reaches_its_action_once_and_answers_as_described(name: str) -> None:
    api = Api()
    api.propose()
    rollout = next(iter(api.actions.waiting))
    path, body, method = CALLS[name]
    before = len(api.actions.calls(method))
    answer = api.send(METHODS[name], path.replace("r-1", rollout), body)
    operation = next(each for each in WRITES if each.name == name)
    assert answer.status == operation.status, answer.text
    assert answer.headers["cache-control"] == "no-store"
    validator(name).validate(answer.json())
    assert len(api.actions.calls(method)) == before + 1
    if name != "relay":  # the fixed actions do not say of which site it was
        assert ("location" in answer.headers) == (operation.location is not None)


def test_what_the_body_says_is_what_the_action_gets() -> None:
    api = Api()
    api.call("begin_deploy")
    chosen = NodesAsked(nodes=("web-1", "web-2"))
    assert api.actions.calls("begin") == [(DeployAsked(site="shop", ref="v2.4.1", chosen=chosen, reason="carts"),)]
    api.send("POST", "/sites/shop/plans", {"kind": "rollback", "chosen": {"everybody": True}})
    assert api.actions.calls("plan") == [(RollbackAsked(site="shop", chosen=NodesAsked(everybody=True)),)]
    for name in ("control", "lock", "extend_access", "relay"):
        api.call(name)
    assert api.actions.calls("control") == [("r-1", ControlAsked(kind="abort", rollback=True))]
    assert api.actions.calls("lock") == [(LockAsked(site="shop", reason="audit", until="3d"),)]
    assert api.actions.calls("extend") == [(GrantAsked(site="shop", user="carol", until="3d"),)]
    assert api.actions.calls("relay") == [(b"{}", "U1NIU0lH")], "body and signature go on unchanged"


def test_location_leads_to_what_came_of_it() -> None:
    api = Api()
    started = api.call("begin_deploy")
    assert started.headers["location"] == f"/api/v1/deploys/{started.json()['rollout']}"
    api.actions.running.clear()
    rollout = api.propose()
    proposed = api.send("GET", f"/deploys/{rollout}/proposal")
    assert proposed.status == 200
    validator("proposal").validate(proposed.json())
    assert api.send("GET", "/proposals?site=shop").json()["items"][0]["rollout"] == rollout
    assert api.call("lock").headers["location"] == "/api/v1/sites/shop"
    assert api.call("grant_access").headers["location"] == "/api/v1/access?site=shop"


@pytest.mark.parametrize("name", ["proposals", "plan_retry", "access", "presence", "lock_state"])
def test_what_is_read_of_actions_is_as_described(name: str) -> None:
    paths = {
        "proposals": "/proposals",
        "plan_retry": "/deploys/r-1/retry",
        "access": "/access",
        "lock_state": "/sites/shop/lock",
    }
    api = Api()
    api.propose()
    answer = api.send("GET", paths.get(name, "/sites/shop/presence?what=deploy"))
    assert answer.status == 200, answer.text
    validator(name).validate(answer.json())


def test_a_refused_action_is_a_problem_that_names_its_fields() -> None:
    api = Api()
    answer = api.send("POST", "/sites/shop/deploys", {"chosen": {"everybody": True}})
    assert answer.status == 422
    assert problem_of(answer)["errors"] == [{"parameter": "ref", "detail": "choose a tag or branch"}]
    for status in (403, 404, 409):
        api.actions.refusals["lock"] = ActionRefused("no", "ask ann", status=status)
        assert problem_of(api.call("lock"))["detail"] == "no (ask ann)"


def test_what_a_role_may_not_is_403_and_what_it_does_not_see_404() -> None:
    looks = Api(Viewer(name="bob", grants=(RoleGrant(sites="shop", role="look"),)))
    assert problem_of(looks.call("begin_deploy"))["status"] == 403
    assert problem_of(looks.send("PUT", "/sites/docs/lock", {"reason": "x"}))["status"] == 404
    assert problem_of(looks.send("GET", "/sites/docs/presence?what=deploy"))["status"] == 404
    assert problem_of(Api(Viewer()).call("lock"))["status"] == 401
    assert problem_of(Api(Viewer(name="eve")).call("lock"))["status"] == 403


def test_a_console_that_only_shows_says_so() -> None:
    api = Api(shows_only=True)
    for answer in (api.call("lock"), api.send("GET", "/proposals")):
        assert "only shows" in problem_of(answer)["detail"]
        assert answer.status == 403


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("POST", "/sites/shop/deploys", b"ref=v1", {"content-type": "application/x-www-form-urlencoded"}, 415),
        ("POST", "/sites/shop/deploys", b"{}", {"content-type": ""}, 415),
        ("POST", "/sites/shop/deploys", b"{", {}, 400),
        ("POST", "/sites/shop/deploys", b"{}", {"accept": "text/html"}, 406),
        ("POST", "/sites/shop/deploys?dry=1", b"{}", {}, 422),
        ("POST", "/sites/sh%00op/deploys", b"{}", {}, 422),
        ("POST", "/sites/shop", b"{}", {}, 405),
        ("DELETE", "/access?site=shop", b"", {}, 422),
        ("POST", "/relay", b'{"body":"***","signature":"x"}', {}, 422),
        ("POST", "/sites/shop/deploys", b"{}", {"idempotency-key": "\xe9"}, 422),
    ],
)
def test_a_wrong_request_is_refused_before_any_action(
    method: str, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    api = Api()
    answer = api.asker.ask(method, f"/api/v1{path}", {"content-type": "application/json", **headers}, [body])
    assert problem_of(answer)["status"] == status
    assert api.actions.asked == api.actions.access.asked == []


# -- Idempotency-Key ---------------------------------------------------------------------------------------------------


def test_a_repeated_key_gets_the_first_answer_and_does_nothing_twice() -> None:
    api = Api()
    first, again = (api.call("begin_deploy", Idempotency_Key="k1") for _ in range(2))
    assert (again.status, again.body, again.headers["location"]) == (202, first.body, first.headers["location"])
    assert again.headers["idempotency-replayed"] == "true"
    assert len(api.actions.calls("begin")) == 1


def test_a_key_with_another_request_is_refused() -> None:
    api = Api()
    api.call("lock", Idempotency_Key="k1")
    other = api.send("PUT", "/sites/shop/lock", {"reason": "another"}, Idempotency_Key="k1")
    assert problem_of(other)["errors"][0]["parameter"] == "Idempotency-Key"
    assert api.call("unlock", Idempotency_Key="k1").status == 422
    assert len(api.actions.calls("lock")) == 1


def test_keys_of_two_people_are_two_keys() -> None:
    answers = AnswersInMemory()
    actions = FixedActions()
    for name in ("ann", "bob"):
        viewer = attrs.evolve(ANN, name=name)
        app = api_alone(FixedQueries(), viewer=viewer, actions=actions.console, answers=answers)
        named = {"content-type": "application/json", "idempotency-key": "k1"}
        Asker(app=app).ask("PUT", "/api/v1/sites/shop/lock", named, [b'{"reason":"x"}'])
    assert len(actions.calls("lock")) == 2


def test_while_the_first_is_at_work_the_second_is_told_so() -> None:
    api = Api()
    api.call("lock", Idempotency_Key="k1")
    (key,) = api.answers._answers
    api.answers.finish(key, 0)
    answer = api.call("lock", Idempotency_Key="k1")
    assert problem_of(answer)["status"] == 409
    assert answer.headers["retry-after"] == "2"


@pytest.mark.parametrize("error", [ActionRefused("no", status=409), LedgerError("away")])
def test_what_was_not_done_may_be_tried_again_with_its_key(error: ActionRefused) -> None:
    api = Api()
    api.actions.refusals["lock"] = error
    assert api.call("lock", Idempotency_Key="k1").status in (409, 503)
    api.actions.refusals.clear()
    assert api.call("lock", Idempotency_Key="k1").status == 202


def test_no_password_is_kept_for_a_repeated_key() -> None:
    api = Api()
    first = api.call("grant_access", Idempotency_Key="k1")
    assert first.json()["password"] == PASSWORD
    assert PASSWORD not in repr([attrs.asdict(each) for each in api.answers._answers.values()])
    again = api.call("grant_access", Idempotency_Key="k1")
    assert again.json()["password"] == ""
    assert again.json()["row"] == first.json()["row"]


def test_an_answer_that_cannot_be_kept_is_given_nevertheless() -> None:
    class Failing(AnswersInMemory):
        def finish(self, key: str, status: int, *, location: str = "", body: str = "") -> None:
            raise LedgerError("the disk is full")

    actions = FixedActions()
    app = api_alone(FixedQueries(), actions=actions.console, answers=Failing())
    named = {"content-type": "application/json", "idempotency-key": "k1"}
    answer = Asker(app=app).ask("PUT", "/api/v1/sites/shop/lock", named, [b'{"reason":"x"}'])
    assert answer.status == 202, "it was done, and whoever asked must learn so"


# -- places ------------------------------------------------------------------------------------------------------------


def test_one_viewer_cannot_take_all_places() -> None:
    turns = ActionTurns(of_one=1, of_all=2)
    with turns.turn("ann"), turns.turn("bob"):
        with pytest.raises(RequestRefused) as mine, turns.turn("ann"):
            pass
        with pytest.raises(RequestRefused) as all_, turns.turn("eve"):
            pass
    assert (mine.value.status, all_.value.status) == (429, 503)
    with turns.turn("ann"):
        pass


def test_a_fifth_request_at_a_time_is_told_to_wait() -> None:
    begun, goes_on = threading.Semaphore(0), threading.Event()

    @attrs.define(slots=False)
    class Slow(FixedActions):
        def unlock(self, viewer: Viewer, site: str, reason: str = "") -> Any:
            begun.release()
            assert goes_on.wait(20)
            return super().unlock(viewer, site, reason)

    asker = Asker(app=api_alone(FixedQueries(), actions=Slow().console))
    threads = [threading.Thread(target=asker.ask, args=("DELETE", "/api/v1/sites/shop/lock")) for _ in range(OF_ONE)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert begun.acquire(timeout=20)
    answer = asker.ask("DELETE", "/api/v1/sites/shop/lock")
    goes_on.set()
    for thread in threads:
        thread.join(20)
    assert problem_of(answer)["status"] == 429


# -- whatever comes ----------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    "ref",
    "chosen",
    "options",
    "reason",
    "plan",
    "kind",
    "rollback",
    "site",
    "user",
    "until",
    "body",
    "signature",
]


@settings(max_examples=150, deadline=None)
@given(
    operation=st.sampled_from(WRITES),
    body=st.one_of(st.binary(max_size=40), st.dictionaries(st.sampled_from(FIELDS), JSON).map(json.dumps)),
    part=st.text(min_size=1, max_size=12).filter(lambda text: not {"/", "\n", "."} & {*text}),
)
def test_no_request_is_a_500(operation: Any, body: bytes | str, part: str) -> None:
    raw = body.encode() if isinstance(body, str) else body
    path = operation.path.replace("{site}", quote(part, errors="replace")).replace(
        "{deploy}", quote(part, errors="replace")
    )
    answer = Api().send(operation.method, path, raw, idempotency_key="k")
    assert answer.status < 500, answer.text
    if answer.status >= 400:
        problem_of(answer)


def test_openapi_names_each_operation_once() -> None:
    names = [each["operationId"] for path in document()["paths"].values() for each in path.values()]
    assert len(names) == len(set(names))
