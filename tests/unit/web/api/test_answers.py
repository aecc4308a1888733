"""Every answer of the API fulfils the schema that OpenAPI has of it; every error is a problem; nothing is a 500."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from deploykit.errors import MirrorCorrupt, MirrorError, ProjectionError
from deploykit.web.api import diffs
from deploykit.web.api.actionreads import ACTION_READS
from deploykit.web.api.openapi import document
from deploykit.web.api.operations import OPERATIONS
from deploykit.web.api.writes import WRITES
from deploykit.web.live.events import EventRing
from deploykit.web.viewer import EVERYBODY, RoleGrant, Viewer
from tests.support.answerschemas import problem_validator, validator
from tests.support.asgi import Asked, Asker
from tests.support.consoleserver import api_alone
from tests.support.fixedactions import FixedActions
from tests.support.fixedqueries import FixedQueries
from tests.support.smallworld import small_world

HOSTILE = "<script>canary</script>\x1b[31m\r\n\x00\ud800\u202e'\"; DROP TABLE site; --"
#: A path of each operation that answers, and does not need a mirror.
PATHS = {
    "index": "/",
    "health": "/health",
    "problems": "/problems?limit=5",
    "changes": "/changes",
    "sites": "/sites",
    "site": "/sites/shop",
    "site_nodes": "/sites/shop/nodes",
    "operation": "/sites/shop/history/web1:7",
    "nodes": "/nodes?limit=1",
    "node": "/nodes/web1",
    "node_mirrors": "/nodes/web1/mirrors",
    "repositories": "/repositories",
    "refs": "/refs/group/widget",
    "pushes": "/pushes?repo=group/widget",
    "builds": "/builds",
    "deploys": "/deploys?site=shop",
    "deploy": "/deploys/r-1",
    "log": "/deploys/r-1/nodes/web1/log",
    "history": "/history?node=web1",
    "audit": "/audit",
    "notices": "/notices",
}
ANN = Viewer(name="ann", grants=(RoleGrant(sites="shop*", role="look"),))


class Api:
    """The API of a small world, asked in this process."""

    def __init__(self, queries: FixedQueries | None = None, viewer: Viewer = EVERYBODY) -> None:
        self.ring = EventRing(1000)
        self._asker = Asker(app=api_alone(queries or small_world(), self.ring, viewer, actions=FixedActions().console))

    def get(self, path: str, method: str = "GET", **headers: str) -> Asked:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._asker.ask(method, f"/api/v1{path}", named)


@pytest.fixture(scope="module")
def api() -> Api:
    return Api()


def problem_of(answer: Asked) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    problem_validator().validate(found)
    assert found["status"] == answer.status
    return found


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("text", ["v1", HOSTILE], ids=["plain", "hostile"])
def test_an_answer_is_as_openapi_describes_it(name: str, text: str) -> None:
    answer = Api(small_world(text)).get(PATHS[name])
    assert answer.status == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.body.isascii(), "no text can break out of JSON"
    validator(name).validate(answer.json())


def test_every_operation_is_tried_here_or_needs_a_mirror() -> None:
    assert {operation.name for operation in OPERATIONS} == {
        *(*PATHS, "site_diff", "history_diff"),
        *(operation.name for operation in ACTION_READS),  # see test_writing
    }


def test_an_empty_world_answers_too() -> None:
    empty = Api(FixedQueries())
    for name in ("problems", "changes", "sites", "nodes", "repositories", "pushes", "deploys", "history", "audit"):
        answer = empty.get(PATHS[name].partition("?")[0])
        validator(name).validate(answer.json())
        assert (answer.json()["items"], answer.json()["next"]) == ([], None)


def test_following_next_gives_every_item_once() -> None:
    world = small_world()
    many = tuple(attrs.evolve(world.node_list[0], node=f"web{number}") for number in range(23))
    many_api = Api(attrs.evolve(world, node_list=many))
    seen: list[str] = []
    following = "/nodes?limit=5&q=web"
    while following:
        answer = many_api.get(following).json()
        seen += [item["node"] for item in answer["items"]]
        following = (answer["next"] or "").removeprefix("/api/v1")
    assert seen == [node.node for node in many]


def test_what_did_not_change_is_not_sent_again(api: Api) -> None:
    first = api.get("/sites")
    again = api.get("/sites", If_None_Match=f'"other", W/{first.headers["etag"]}')
    assert (again.status, again.body) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert api.get("/sites", If_None_Match='"other"').status == 200
    assert api.get("/nodes").headers["etag"] != first.headers["etag"]


def test_an_answer_has_the_number_from_which_to_follow_events() -> None:
    one = Api()
    assert one.get("/sites").headers["x-last-event-id"] == "999"
    one.ring.add("health", small_world().notice_list[0].time)
    assert one.get("/sites").headers["x-last-event-id"] == "1000"


def test_no_page_of_another_origin_may_read(api: Api) -> None:
    answer = api.get("/sites", Origin="https://evil.example")
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert api.get("/sites", "OPTIONS", Origin="https://evil.example").status == 405


def test_a_log_is_read_by_range_and_as_text() -> None:
    lines = Api(small_world("one"))
    log = PATHS["log"]
    assert lines.get(f"{log}?first=1&limit=1").json()["lines"] == ["two"]
    assert lines.get(f"{log}?first=-1").json()["lines"] == ["three"]
    text = lines.get(log, Accept="text/plain")
    assert text.headers["content-type"].startswith("text/plain")
    assert text.text == "one\ntwo\nthree\n"
    hostile = Api(small_world(HOSTILE)).get(log, Accept="text/plain")
    assert hostile.status == 200
    assert all(line.isprintable() for line in hostile.text.split("\n")), "it is shown in a terminal"


@pytest.mark.parametrize("kind", [MirrorError, MirrorCorrupt])
def test_a_mirror_that_cannot_be_read_is_no_bug_and_shows_no_path(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: type[MirrorError]
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise kind("cannot use /var/lib/secret: Permission denied", "see /var/lib/secret")

    monkeypatch.setattr(diffs, "compare", fails)
    answer = api.get("/sites/shop/diff?from=v1&to=v2")
    assert (answer.status, problem_of(answer)["detail"]) == (
        503,
        "the mirror of group/widget cannot be read; the console's log says why",
    )
    assert "/var/lib/secret" in caplog.text


def test_comparisons_that_wait_leave_threads_for_other_requests(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffs, "_turns", threading.BoundedSemaphore(1))
    monkeypatch.setattr(diffs, "_queue", full := threading.BoundedSemaphore(1))
    assert full.acquire(blocking=False)
    assert api.get("/sites/shop/diff?from=v1&to=v2").status == 503
    full.release()
    assert api.get("/sites/shop/diff?from=v1&to=v2").status == 404, "its place is free again"
    assert api.get("/sites/shop/diff?from=v1&to=v2").status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
@pytest.mark.parametrize("path", ["/sites", "/events", "/openapi.json"])
def test_other_methods_are_refused(api: Api, method: str, path: str) -> None:
    answer = api.get(path, method)
    assert problem_of(answer)["title"] == "Method Not Allowed"
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_head_has_the_headers_of_get(api: Api) -> None:
    head, answer = api.get("/sites", "HEAD"), api.get("/sites")
    assert head.headers["etag"] == answer.headers["etag"]
    assert head.headers["content-length"] == answer.headers["content-length"]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/sites/gone", "'gone'"),
        ("/sites/gone/nodes", "'gone'"),
        ("/nodes/gone/mirrors", "'gone'"),
        ("/deploys/gone", "'gone'"),
        ("/deploys/r-1/nodes/gone/log", "'gone'"),
        ("/refs/gone/repo", "'gone/repo'"),
        ("/sites/shop/history/web1:8", "'web1:8'"),
        ("/history/diff?site=gone&from=web1:7", "'gone'"),
        ("/history/diff?site=shop&from=gone:1", "'gone:1'"),
        ("/sites/vault/diff?to=v1", "nothing is live on 'vault'"),
        ("/sites/shop/diff?from=v1&to=v2", "this machine has no mirror of group/widget"),
        ("/nothing", "no such path"),
        ("/sites/", "no such path"),
        ("/sites/a/b/c", "no such path"),
        ("/../../etc/passwd", ""),
        ("/sites/..%2f..%2fetc%2fpasswd", "no such path"),
    ],
)
def test_what_is_not_there_is_a_404_that_names_it(api: Api, path: str, says: str) -> None:
    answer = api.get(path)
    if says:
        assert says in problem_of(answer)["detail"]
    assert answer.status == 404


@pytest.mark.parametrize(
    ("path", "parameter", "says"),
    [
        ("/nodes?limit=0", "limit", "expected 1 to 500"),
        ("/nodes?limit=501", "limit", "expected 1 to 500"),
        ("/nodes?limit=²", "limit", "not a whole number"),
        ("/nodes?limit=" + "9" * 5000, "limit", "too long"),
        ("/nodes?site=x", "site", "unknown; there are after, limit, q"),
        ("/sites?x", "x", "unknown; there are none"),
        ("/nodes?q=a&q=b", "q", "given twice"),
        ("/nodes?q=%00", "q", "control character"),
        ("/nodes?q=%ff%0a", "q", "control character"),
        ("/deploys/r-1/nodes/web1/log?first=-1e9", "first", "not a whole number"),
        ("/sites/shop/diff", "to", "needed"),
        ("/history/diff?site=shop", "from", "needed"),
        ("/sites/%00", "site", "control character"),
        ("/sites/" + "x" * 501, "site", "too long"),
    ],
)
def test_a_wrong_parameter_is_a_422_that_names_it(api: Api, path: str, parameter: str, says: str) -> None:
    answer = api.get(path)
    assert answer.status == 422
    found = problem_of(answer)
    assert found["errors"][0]["parameter"] == parameter
    assert says in found["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("", 200),
        ("*/*", 200),
        ("text/html, application/*;q=0.5", 200),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", 200),
        ("text/html", 406),
        ("application/json;q=0, */*", 406),
        ("application/json; q=0.000", 406),
        ("\x01,;;q", 406),
    ],
)
def test_only_what_there_is_can_be_asked_for(api: Api, accept: str, status: int) -> None:
    answer = api.get("/sites", Accept=accept)
    assert answer.status == status
    if status == 406:
        assert "application/json" in problem_of(answer)["detail"]
    assert api.get("/events", Accept="application/json").status == 406


def test_a_viewer_sees_only_their_sites() -> None:
    seen = Api(viewer=ANN)
    assert [site["site"] for site in seen.get("/sites").json()["items"]] == ["shop"]
    for path in ("/sites/vault", "/deploys/r-2"):
        assert problem_of(seen.get(path))["detail"] == problem_of(Api(FixedQueries()).get(path))["detail"]
    assert problem_of(seen.get("/notices"))["status"] == 403


def test_who_is_not_logged_in_is_asked_to() -> None:
    answer = Api(viewer=Viewer()).get("/sites")
    assert (answer.status, problem_of(answer)["detail"]) == (401, "log in first")


def test_nobody_without_rights_sees_anything() -> None:
    for path in PATHS.values():
        answer = Api(viewer=Viewer(name="eve")).get(path)
        assert (answer.status, problem_of(answer)["detail"]) == (403, "'eve' may look at nothing here")


def test_a_broken_database_is_a_503_and_a_bug_a_500_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    for error, status in (
        (ProjectionError("canary-password is wrong"), 503),
        (ValueError("canary-password is wrong"), 500),
    ):
        answer = Api(attrs.evolve(small_world(), error=error)).get("/sites")
        assert (answer.status, problem_of(answer)["status"]) == (status, status)
        assert "canary" not in answer.text
        assert "canary" in caplog.text
        assert ("retry-after" in answer.headers) == (status == 503)


def every_parameter() -> Iterator[tuple[str, str]]:
    for operation in OPERATIONS:
        path = PATHS.get(operation.name, "").partition("?")[0] or operation.path.replace("{site}", "shop")
        for parameter in operation.query:
            yield path, parameter.name


_texts = st.text(max_size=40) | st.sampled_from(["", "-1", "0", "1e9", "NaN", "%00", "../..", "'", HOSTILE, "9" * 30])


_SHARED = Api()


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(set(every_parameter()))), _texts)
def test_no_value_of_a_parameter_is_a_500(place: tuple[str, str], value: str) -> None:
    path, name = place
    query = urlencode({name: value.encode("utf-8", "surrogatepass")})
    answer = _SHARED.get(f"{path}?{query}")
    assert answer.status in (200, 404, 422), (query, answer.text)
    if answer.status != 200:
        problem_of(answer)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(OPERATIONS), _texts)
def test_no_part_of_a_path_is_a_500(operation: Any, text: str) -> None:
    part = quote(text.encode("utf-8", "surrogatepass"), safe="")
    path = operation.path.replace(":path", "")
    for name in ("site", "node", "deploy", "operation", "repo"):
        path = path.replace("{" + name + "}", part)
    answer = _SHARED.get(path)
    assert answer.status in (200, 307, 404, 422), (path, answer.text)


def test_openapi_is_sound_and_served(api: Api) -> None:
    made = document()
    assert api.get("/openapi.json").json() == json.loads(json.dumps(made))
    every = [(path, each) for path, methods in made["paths"].items() for each in methods.values()]
    names = [each["operationId"] for _, each in every]
    assert len(set(names)) == len(names) == len(OPERATIONS) + len(WRITES) + 1
    for path, operation in every:
        parameters = [(each["in"], each["name"]) for each in operation["parameters"]]
        assert len(set(parameters)) == len(parameters)
        assert {name for where, name in parameters if where == "path"} == {
            part[1:-1] for part in path.split("/") if part.startswith("{")
        }
    for schema in made["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    text = json.dumps(made)
    refs = {part.partition('"')[0] for part in text.split('"$ref": "')[1:]}
    for ref in refs:
        place: Any = made
        for key in ref.removeprefix("#/").split("/"):
            place = place[key]
