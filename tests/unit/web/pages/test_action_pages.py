"""Pages on which something is done, as answers: what is asked of the console, and what is never done."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from html import unescape
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import httpx
import pytest
from starlette.applications import Starlette

from deploykit.errors import ActionRefused, ConnectError, LedgerError
from deploykit.web.actions.asked import ControlAsked, DeployAsked, GrantAsked, LockAsked
from deploykit.web.actions.shown import PlannedNode, PlanShown, ProposalShown
from deploykit.web.login.middleware import login_middleware
from deploykit.web.pages import acting
from deploykit.web.pages.deploying import offered_refs
from deploykit.web.pages.deploys import reasons_of
from deploykit.web.projection.activityviews import RefView
from deploykit.web.projection.rolloutviews import RolloutNode
from deploykit.web.signing.desk import SigningDesk
from deploykit.web.signing.offers import SigningOffer
from deploykit.web.viewer import EVERYBODY, RoleGrant, Viewer
from tests.support.actingworld import ADA, PAUSED, WAITING, busy_actions, busy_world
from tests.support.asgi import Asker
from tests.support.consoleworld import CANARY, NOW, ago, hostile_world
from tests.support.fixedaccess import PASSWORD
from tests.support.fixedactions import REFS, FixedActions
from tests.support.fixedqueries import FixedQueries
from tests.support.loginworld import OWN, form, login_world
from tests.support.served import answer_of as get
from tests.support.served import console_app

LOOK = Viewer(name="lou", grants=(RoleGrant(sites="*", role="look"),))
STAGE = Viewer(name="sam", grants=(RoleGrant(sites="*", role="stage"),))
NARROW = Viewer(name="nell", grants=(RoleGrant(sites="docs", role="admin"),))
PLAN = "/sites/shop/deploy?ref=v2.4.1&who=all"
PAGES = (
    "/sites/shop/deploy", PLAN, "/sites/shop/rollback?who=all", "/sites/shop/lock", "/sites/billing/lock",
    "/deploys/r-7f31/retry", f"/deploys/{PAUSED}/control?kind=abort&rollback=yes", "/approvals",
    f"/deploys/{WAITING}/approve", f"/deploys/{WAITING}/withdraw", "/access",
    "/access/revoke?site=billing&user=carol", "/sites/shop/here",
)  # fmt: skip


def app_of(acts: FixedActions | None, viewer: Viewer = ADA, world: FixedQueries | None = None) -> Starlette:
    return console_app(world or busy_world(), viewer=viewer, actions=acts.console if acts else None)


def post(app: Starlette, path: str, fields: Mapping[str, str]) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post(path, data=dict(fields))

    return asyncio.run(send())


def pressed(html: str, path: str) -> dict[str, str]:
    """Return the hidden fields of the form that goes to a path: what a browser would send."""
    form = re.search(rf'<form method="post" action="{re.escape(path)}">(.*?)</form>', html, re.DOTALL)
    assert form is not None, path
    found = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', form[1])
    return {name: unescape(value) for name, value in found}


def heading(answer: httpx.Response) -> str:
    found = re.search(r"<h1>(.*?)</h1>", answer.text, re.DOTALL)
    assert found is not None
    return unescape(re.sub(r"<[^>]*>", "", found[1]))


@pytest.fixture(autouse=True)
def _nothing_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done here is told on no bus: no page waits for that."""
    monkeypatch.setattr(acting, "HEARD_WITHIN", 0.0)


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_there_and_is_kept_nowhere(path: str) -> None:
    answer = get(app_of(busy_actions()), path)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert re.search(r"\bNone\b", answer.text) is None


def test_a_form_alone_asks_nobody() -> None:
    acts = busy_actions()
    answer = get(app_of(acts), "/sites/shop/deploy?ref=v2.4.1")
    assert "Show what would happen" in answer.text
    assert [one.what for one in acts.asked] == ["here"]


def test_a_link_shows_the_plan_and_does_nothing() -> None:
    acts = busy_actions()
    answer = get(app_of(acts), PLAN)
    assert "Put v2.4.1 live on web-1, then 2 others" in answer.text
    assert "did not answer within 10 s" in answer.text
    assert "basket/count.py" in answer.text
    assert "./manage migrate" in answer.text
    assert "deploykit deploy shop --ref v2.4.1 --all" in answer.text
    assert {one.what for one in acts.asked} == {"here", "plan"}


def test_what_is_pressed_is_what_was_shown() -> None:
    acts = busy_actions()
    app = app_of(acts)
    shown = get(app, "/sites/shop/deploy?ref=v2.4.1&who=list&on%3Aweb-1=1&nodes=web-3&first=1&reason=why")
    answer = post(app, "/sites/shop/deploy", pressed(shown.text, "/sites/shop/deploy"))
    assert answer.status_code == 303
    asked, planned = acts.calls("begin")[0][0], acts.calls("plan")[0][0]
    assert isinstance(asked, DeployAsked)
    assert isinstance(planned, DeployAsked)
    assert attrs.evolve(asked, plan="") == planned
    assert asked.plan
    assert asked.chosen.nodes == ("web-1", "web-3")
    where = urlsplit(answer.headers["location"])
    assert re.fullmatch(r"/deploys/r-\d+", where.path)
    waiting = get(app, answer.headers["location"])  # the bus has not told of it yet
    assert waiting.status_code == 200
    assert "It has begun" in waiting.text
    assert 'http-equiv="refresh"' in waiting.text
    assert get(app, where.path).status_code == 404  # without the id nobody believes it


def test_nothing_begins_without_the_digest_of_a_plan() -> None:
    acts = busy_actions()
    answer = post(app_of(acts), "/sites/shop/deploy", {"ref": "v2.4.1", "who": "all"})
    assert answer.status_code == 200
    assert "Put v2.4.1 live" in answer.text
    assert acts.calls("begin") == []


def test_a_plan_that_comes_out_otherwise_is_shown_anew() -> None:
    acts = busy_actions()
    app = app_of(acts)
    fields = pressed(get(app, PLAN).text, "/sites/shop/deploy")
    acts.silent = ("web-3", "web-4")
    answer = post(app, "/sites/shop/deploy", fields)
    assert answer.status_code == 409
    assert "Nothing was done" in answer.text
    assert "then 1 other" in answer.text
    assert acts.running == {}
    assert post(app, "/sites/shop/deploy", pressed(answer.text, "/sites/shop/deploy")).status_code == 303


def test_a_wrong_field_is_shown_again_with_what_was_typed() -> None:
    app = app_of(busy_actions())
    answer = get(app, "/sites/shop/deploy?typed=v9%22x&who=all&reason=soon")
    assert answer.status_code == 422
    assert 'value="v9&#34;x"' in answer.text
    assert 'value="soon"' in answer.text
    field = re.search(r'<input id="f-typed"[^>]*>', answer.text)
    assert field is not None
    assert 'aria-invalid="true"' in field[0]
    assert "f-typed-problem" in field[0]
    assert "The origin has no" in answer.text


def test_nobody_chosen_is_never_everybody() -> None:
    acts = busy_actions()
    for query in ("who=list&ref=v2.4.1", "who=select&ref=v2.4.1", "who=x&ref=v2.4.1"):
        answer = get(app_of(acts), f"/sites/shop/deploy?{query}")
        assert answer.status_code == 422
        assert "No nodes are chosen" in answer.text


def test_fields_that_are_too_long_are_refused_before_anybody_is_asked() -> None:
    acts = busy_actions()
    answer = post(app_of(acts), "/sites/shop/deploy", {"ref": "v1", "who": "all", "reason": "x" * 2000, "plan": "d"})
    assert answer.status_code == 422
    assert "Longer than 1100 characters" in answer.text
    assert acts.calls("plan") == acts.calls("begin") == []


def test_a_lock_stands_where_the_button_would() -> None:
    acts = busy_actions()
    acts.locks["shop"] = ("grace", "month end")
    answer = get(app_of(acts), PLAN)
    assert "locked by grace: month end" in answer.text
    assert "<button" not in re.findall(r'<div class="press".*?</div>', answer.text, re.DOTALL)[0]
    over = get(app_of(acts, EVERYBODY), PLAN + "&override_lock=it+burns")
    assert "Put v2.4.1 live" in over.text
    assert 'name="override_lock"' not in answer.text  # only for those who may


def test_a_rollout_that_is_under_way_stands_where_the_button_would() -> None:
    acts = busy_actions()
    app = app_of(acts)
    fields = pressed(get(app, PLAN).text, "/sites/shop/deploy")
    acts.running["shop"] = "r-other"
    assert post(app, "/sites/shop/deploy", fields).status_code == 409
    assert "wait until it has ended" in get(app, PLAN).text


def test_where_people_must_sign_the_button_asks_for_that() -> None:
    acts = busy_actions()
    app = app_of(acts)
    shown = get(app, "/sites/docs/deploy?ref=v2.4.1&who=all")
    assert "Ask for 2 signatures" in shown.text
    answer = post(app, "/sites/docs/deploy", pressed(shown.text, "/sites/docs/deploy"))
    assert re.match(r"/deploys/r-\d+/approve\?done=", answer.headers["location"])
    assert "It waits for people" in get(app, answer.headers["location"]).text


def test_who_may_only_stage_proposes() -> None:
    acts = busy_actions()
    app = app_of(acts, STAGE)
    shown = get(app, PLAN)
    assert "You may propose a rollout" in shown.text
    assert "Ask for 1 signature" in get(app, PLAN + "&approval=yes").text


def test_a_rollback_says_why_each_node_goes_where() -> None:
    acts = busy_actions()
    app = app_of(acts)
    shown = get(app, "/sites/shop/rollback?who=all")
    assert "Take web-1 back, then 2 others" in shown.text
    assert shown.text.count("its previous release, live until") == 3
    answer = post(app, "/sites/shop/rollback", pressed(shown.text, "/sites/shop/rollback"))
    assert answer.status_code == 303
    assert acts.calls("begin")


def test_another_try_is_shown_before_it_is_made() -> None:
    acts = busy_actions()
    app = app_of(acts)
    shown = get(app, "/deploys/r-7f31/retry")
    assert "Try v2.4.1 again on web-1" in shown.text
    assert post(app, "/deploys/r-7f31/retry", {}).status_code == 200
    assert acts.calls("retry") == []
    assert post(app, "/deploys/r-7f31/retry", {"plan": "old"}).status_code == 409
    assert post(app, "/deploys/r-7f31/retry", pressed(shown.text, "/deploys/r-7f31/retry")).status_code == 303


def test_an_abort_is_asked_once_more_and_says_what_it_does() -> None:
    acts = busy_actions()
    app = app_of(acts)
    page = get(app, f"/deploys/{PAUSED}")
    assert "Abort and go back" in page.text
    shown = get(app, f"/deploys/{PAUSED}/control?kind=abort&rollback=yes")
    assert "Stop, and take 1 node back" in shown.text
    assert "live on 1 of 4 nodes" in shown.text
    assert acts.calls("control") == []
    path = f"/deploys/{PAUSED}/control"
    answer = post(app, path, pressed(shown.text, path))
    assert acts.calls("control") == [(PAUSED, ControlAsked(kind="abort", rollback=True))]
    assert "asked to abort and go back" in get(app, answer.headers["location"]).text


def test_only_an_abort_takes_back() -> None:
    acts = busy_actions()
    post(app_of(acts), f"/deploys/{PAUSED}/control", {"kind": "resume", "rollback": "yes"})
    assert acts.calls("control") == [(PAUSED, ControlAsked(kind="resume"))]
    assert post(app_of(acts), f"/deploys/{PAUSED}/control", {"kind": "explode"}).status_code == 422


def test_who_has_signed_stands_with_what_the_bytes_say() -> None:
    acts = busy_actions()
    app = app_of(acts, STAGE)
    page = get(app, f"/deploys/{WAITING}/approve")
    for words in (
        REFS["v2.4.1"], "1 more person must sign", "ada", f"deploykit approve {WAITING}", "the fair begins tomorrow",
    ):  # fmt: skip
        assert words in page.text
    path = f"/deploys/{WAITING}/approve"
    assert post(app, path, {"signature": " \n"}).status_code == 422
    wrong = post(app, path, {"signature": "x"})
    assert wrong.status_code == 422
    assert "Not a signature." in wrong.text
    answer = post(app, path, {"signature": "c2lnbmF0dXJl\r\nIG9mIHNhbQ=="})
    assert acts.calls("sign")[-1] == (WAITING, "c2lnbmF0dXJlIG9mIHNhbQ==")
    assert urlsplit(answer.headers["location"]).path == f"/deploys/{WAITING}"


def test_who_may_only_look_reads_an_approval_and_cannot_sign() -> None:
    page = get(app_of(busy_actions(), LOOK), f"/deploys/{WAITING}/approve")
    assert page.status_code == 200
    assert '<form method="post"' not in page.text
    assert 'href="/approvals"' not in page.text.partition("<main")[0]


def test_what_waits_is_counted_on_the_first_page_and_on_its_site() -> None:
    app = app_of(busy_actions())
    assert "1 rollout waits" in get(app, "/").text
    assert "1 rollout waits" in get(app, "/sites/docs").text
    assert "waits" not in get(app, "/sites/shop").text
    assert "1 rollout waits" not in get(app_of(busy_actions(), LOOK), "/").text


def test_a_proposal_is_withdrawn_after_a_question() -> None:
    acts = busy_actions()
    app = app_of(acts)
    path = f"/deploys/{WAITING}/withdraw"
    assert "1 signature will be of no use" in get(app, path).text
    answer = post(app, path, {})
    assert acts.waiting == {}
    assert "It is withdrawn" in get(app, answer.headers["location"]).text
    assert get(app, f"/deploys/{WAITING}/approve").status_code == 404


def test_locking_says_which_nodes_hold_the_lock() -> None:
    acts = busy_actions()
    app = app_of(acts)
    empty = post(app, "/sites/shop/lock", {"reason": " ", "span": "4h"})
    assert empty.status_code == 422
    assert "Say why, for the others." in empty.text
    answer = post(app, "/sites/shop/lock", {"reason": "stocktaking", "span": "4h", "until": "", "csrf": "x"})
    assert acts.calls("lock")[-1] == (
        LockAsked(site="shop", reason="stocktaking", until="4h", allow_rollback=False),
    )  # fmt: skip
    shown = get(app, answer.headers["location"])
    assert "web-1, web-2, web-3 hold the lock." in shown.text
    assert "web-4 has not answered" in shown.text
    post(app, "/sites/shop/unlock", {"reason": "done"})
    assert acts.locks == {}


def test_a_lock_of_somebody_else_is_not_lifted_by_the_wrong_person() -> None:
    acts = busy_actions()
    acts.locks["billing"] = ("grace", "month end")
    app = app_of(acts)
    assert "grace has locked it" in re.sub(r"<[^>]*>", "", get(app, "/sites/billing/lock").text)
    answer = post(app, "/sites/billing/unlock", {})
    assert answer.status_code == 403
    assert "the role admin is needed" in answer.text
    assert acts.locks


def test_a_password_is_on_one_answer_alone_and_nothing_is_called_granted() -> None:
    acts = busy_actions()
    app = app_of(acts)
    made = post(app, "/access", {"site": "billing", "user": "dan", "span": "7d", "until": ""})
    assert acts.access.asked[-1].values == (GrantAsked(site="billing", user="dan", until="7d"),)
    where = made.headers["location"]
    assert (made.status_code, PASSWORD in made.text, PASSWORD in where) == (303, False, False)
    assert get(app_of(acts, LOOK), where).status_code == 410, "it is another's"
    answer = get(app, where)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.text.count(PASSWORD) == 1
    rows = answer.text.partition('id="access"')[2]
    assert "asked" in rows
    assert "granted" not in rows
    for path in ("/access", "/audit", "/sites/billing"):
        assert PASSWORD not in get(app, path).text
    again = get(app, where)  # loaded again
    assert (again.status_code, PASSWORD in again.text, "shown once" in again.text) == (410, False, True)
    assert len(acts.calls("grant")) == 1, "no new password is made"


def test_access_is_extended_and_ended() -> None:
    acts = busy_actions()
    app = app_of(acts)
    answer = post(app, "/access/extend", {"site": "billing", "user": "carol", "until": "7d"})
    assert "carol may stay longer" in get(app, answer.headers["location"]).text
    assert "Keep carol out" in get(app, "/access/revoke?site=billing&user=carol").text
    post(app, "/access/revoke", {"site": "billing", "user": "carol"})
    assert acts.access.rows == []
    wrong = post(app, "/access", {"site": "billing", "user": "a:b", "span": ""})
    assert wrong.status_code == 422
    assert 'value="a:b"' in wrong.text


@pytest.mark.parametrize("path", PAGES)
def test_who_may_only_look_finds_no_page_to_do_something(path: str) -> None:
    answer = get(app_of(busy_actions(), LOOK), path)
    assert answer.status_code in (403, 404) or path in ("/approvals", f"/deploys/{WAITING}/approve")
    assert '<form method="post"' not in answer.text


@pytest.mark.parametrize(
    ("path", "status"), [("/sites/shop/deploy", 404), ("/sites/shop/lock", 404), ("/deploys/r-7f31/retry", 404)]
)
def test_who_may_not_look_at_a_site_does_not_learn_that_it_exists(path: str, status: int) -> None:
    answer = get(app_of(busy_actions(), NARROW), path)
    other = get(app_of(busy_actions(), NARROW), path.replace("shop", "nowhere").replace("r-7f31", "r-nowhere"))
    assert answer.status_code == other.status_code == status
    assert heading(answer).replace("shop", "x").replace("r-7f31", "x") == (
        heading(other).replace("nowhere", "x").replace("r-x", "x")
    )


def test_a_console_that_only_shows_has_no_buttons() -> None:
    app = app_of(None, EVERYBODY, busy_world())
    for path in ("/", "/sites/shop", f"/deploys/{PAUSED}", "/refs/shop%2Ffrontend"):
        page = get(app, path).text
        assert "/deploy?" not in page
        assert "/rollback" not in page
        assert '<form method="post"' not in page
        assert "Approvals" not in page
    assert get(app, "/sites/shop/deploy").status_code == 404
    assert "this console only shows" in get(app, "/approvals").text.lower()


def test_buttons_of_a_site_follow_the_role() -> None:
    assert "/sites/shop/deploy" not in get(app_of(busy_actions(), LOOK), "/sites/shop").text
    stage = get(app_of(busy_actions(), STAGE), "/sites/shop").text
    assert "/sites/shop/deploy" in stage
    assert "/sites/shop/lock" not in stage
    assert "/sites/shop/lock" in get(app_of(busy_actions()), "/sites/shop").text


def test_a_link_of_the_form_is_made_short() -> None:
    answer = get(app_of(busy_actions()), "/sites/shop/deploy?ref=v2.4.1&typed=&who=all&first=&x=")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/sites/shop/deploy?ref=v2.4.1&who=all"


def test_refs_of_one_moment_are_offered_by_their_numbers() -> None:
    refs = tuple(RefView(repo="r", ref=f"refs/tags/v1.{at}", commit="c", time=NOW) for at in (2, 10, 9))
    branch = RefView(repo="r", ref="refs/heads/main", commit="c", time=NOW)
    older = RefView(repo="r", ref="refs/tags/v9", commit="c", time=ago(days=1))
    found = offered_refs((older, branch, *refs))
    assert [one.ref.rpartition("/")[2] for one in found] == ["v1.10", "v1.9", "v1.2", "v9", "main"]


def test_why_a_rollout_failed_stands_above_everything_else() -> None:
    page = get(app_of(busy_actions()), "/deploys/r-7f31").text
    assert page.index("step check: exit code 7") < page.index("Try again where it failed")
    nodes = [RolloutNode(node=f"web{at}", state="refused", detail="not granted") for at in range(6)]
    assert reasons_of(nodes) == (("web0, web1, web2, web3 and 2 more", "not granted"),)


def test_a_page_waits_a_moment_until_the_bus_has_told_what_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting, "HEARD_WITHIN", 30.0)
    answers = iter((False, False, True))
    acting.wait_until_heard(lambda: next(answers))
    assert list(answers) == []


def test_a_failure_of_the_machine_is_not_shown_to_a_browser() -> None:
    acts = busy_actions()

    def fails(*given: object) -> None:
        raise LedgerError("cannot write /var/lib/deploykit/ledger.db", "free the disk")

    acts.lock = fails  # type: ignore[method-assign,assignment]  # a fault that only the machine can make
    answer = post(app_of(acts), "/sites/shop/lock", {"reason": "x"})
    assert answer.status_code == 503
    assert "/var/lib" not in answer.text


def test_nodes_that_cannot_be_asked_are_a_reason_on_the_form() -> None:
    acts = busy_actions()

    def away(*given: object) -> None:
        raise ConnectError("no broker reachable: broker.example.org:61613 refuses", "see deploykit doctor")

    acts.plan = away  # type: ignore[method-assign,assignment]  # a fault that only a network can make
    answer = get(app_of(acts), PLAN + "&reason=soon")
    assert answer.status_code == 503
    assert "No broker reachable: broker.example.org:61613 refuses." in answer.text
    assert 'value="soon"' in answer.text


def test_a_refusal_says_why_on_the_page_that_asked() -> None:
    acts = busy_actions()
    app = app_of(acts)
    fields = pressed(get(app, PLAN).text, "/sites/shop/deploy")
    acts.refusals["begin"] = ActionRefused("bob started v2.4.0 a minute ago", "look at it", status=409)
    answer = post(app, "/sites/shop/deploy", fields)
    assert answer.status_code == 409
    assert "Bob started v2.4.0 a minute ago." in answer.text


def test_five_thousand_nodes_make_a_page_that_a_browser_can_show() -> None:
    acts = busy_actions()
    nodes = tuple(PlannedNode(node=f"node-{at:04d}", stage=min(at, 1 + at // 500)) for at in range(5000))
    acts._plan = lambda asked: PlanShown(site="shop", kind="deploy", ref="refs/tags/v2.4.1", nodes=nodes)  # type: ignore[method-assign]  # a size, not a behaviour
    answer = get(app_of(acts), PLAN)
    assert "Put v2.4.1 live on node-0000, then 4\u202f999 others" in answer.text
    assert "4\u202f800 more nodes" in answer.text
    assert len(answer.text) < 200_000


def test_hostile_text_is_only_text() -> None:
    acts = busy_actions()
    acts.locks["shop"] = (CANARY, CANARY)
    acts.waiting[WAITING] = attrs.evolve(
        acts.waiting[WAITING], text=(CANARY,), requested_by=CANARY, reason=CANARY, missing=CANARY, problems=(CANARY,),
        command=CANARY, body=CANARY,
    )  # fmt: skip
    app = app_of(acts, EVERYBODY)
    typed = {"typed": CANARY, "who": "list", "nodes": CANARY, "reason": CANARY, "first": CANARY}
    answers = [
        get(app, f"/deploys/{WAITING}/approve"),
        get(app, "/approvals"),
        get(app, PLAN),
        post(app, "/sites/shop/deploy", typed),
        post(app, "/sites/shop/lock", {"reason": CANARY, "until": CANARY, "span": CANARY}),
        post(app, "/access", {"site": CANARY, "user": CANARY + ":"}),
        get(app_of(acts, EVERYBODY, hostile_world()), "/"),
    ]
    for answer in answers:
        assert "<img" not in answer.text
        assert "<script>window" not in answer.text
        assert "\u202e" not in answer.text
    assert sum("onerror=" in answer.text for answer in answers) >= 5


def test_another_page_can_press_nothing(tmp_path: Path) -> None:
    world = login_world(tmp_path, mode="none")
    acts = busy_actions()
    app = console_app(busy_world(), actions=acts.console, middleware=login_middleware(world.login))
    asker = Asker(app=app)
    page = asker.get("/sites/shop/lock", OWN).text
    token = pressed(page, "/sites/shop/lock")["csrf"]
    fields = {"reason": "stocktaking", "span": "4h"}
    typed = {"content-type": "application/x-www-form-urlencoded"}
    for headers, csrf in (
        ({"sec-fetch-site": "cross-site"}, token),
        ({"sec-fetch-site": "same-site"}, token),
        ({"origin": "https://evil.example"}, token),
        (OWN, ""),
        (OWN, token[:-1]),
    ):
        for path in ("/sites/shop/lock", "/sites/shop/deploy", "/access", f"/deploys/{PAUSED}/control"):
            assert asker.post(path, form(**fields, csrf=csrf), {**typed, **headers}).status == 403, (headers, path)
    assert {one.what for one in acts.asked} == {"here"}
    large = form(**fields, csrf=token, more="x" * 70_000)
    assert asker.post("/sites/shop/lock", large, {**typed, **OWN}).status == 413
    twice = form(**fields, csrf=token) + b"&reason=other"
    assert asker.post("/sites/shop/lock", twice, {**typed, **OWN}).status == 422  # which of them is meant is unknown
    assert asker.post("/sites/shop/lock", form(**fields, csrf=token), {**typed, **OWN}).status == 303
    assert len(acts.calls("lock")) == 2


class OfferingDesk(SigningDesk):
    """A desk at which every viewer has one passkey that signs."""

    def __init__(self) -> None:
        """Open nothing."""

    def offer(self, viewer: Viewer, proposal: ProposalShown, address: str) -> SigningOffer:
        """Return what the page needs."""
        return SigningOffer(mode="here", rollout=proposal.rollout, mandate=proposal.body, keys="a.b", rp_id="localhost")


def test_a_passkey_gets_the_very_bytes_and_the_token_of_the_login(tmp_path: Path) -> None:
    world, acts = login_world(tmp_path, mode="none"), busy_actions()
    app = console_app(busy_world(), actions=acts.console, middleware=login_middleware(world.login))
    app.state.console = attrs.evolve(app.state.console, signing=OfferingDesk())
    page = Asker(app=app).get(f"/deploys/{WAITING}/approve", OWN).text
    assert f'data-mandate="{acts.waiting[WAITING].body}"' in page
    tokens = set(re.findall(r'name="csrf" value="([^"]*)"', page))
    assert len(tokens) == 1
    assert len(tokens.pop()) > 30
    assert page.index("With a passkey") < page.index("From a shell")
