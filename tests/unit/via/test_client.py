"""The API asked by a command: what goes where, what is sent again, and what an answer may not make us do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploykit.errors import ActionRefused, ConsoleUnreachable, PolicyRefused, SettingsError, UsageError
from deploykit.httpclient.exchange import HttpServer
from deploykit.httpclient.reply import HttpReply, HttpRequest, NoReply
from deploykit.settings.via import ViaSettings, console_url_problem
from deploykit.via.answers import FollowedDetail, read_answer
from deploykit.via.client import ConsoleClient

URL = "https://deploy.example.org"
AWAY = NoReply(sent=True, why="did not answer", remedy="look at it")


def answer(status: int = 200, value: object = None, **headers: str) -> HttpReply:
    kind = "application/json" if status < 400 else "application/problem+json"
    named = {"content-type": kind} | {name.replace("_", "-"): text for name, text in headers.items()}
    return HttpReply(status=status, headers=tuple(named.items()), body=json.dumps(value).encode())


class Console:
    """Answers from a list, the last one for ever."""

    def __init__(self, *replies: HttpReply | NoReply) -> None:
        self.replies = list(replies)
        self.requests: list[HttpRequest] = []
        self.slept: list[float] = []

    def __call__(self, _server: HttpServer, request: HttpRequest, _seconds: float) -> HttpReply | NoReply:
        self.requests.append(request)
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    def client(self, **settings: object) -> ConsoleClient:
        return ConsoleClient(ViaSettings(url=URL, **settings), send=self, sleep=self.slept.append)  # type: ignore[arg-type]  # few settings


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://deploy.example.org", ""),
        ("https://deploy.example.org:8443/", ""),
        ("http://localhost:8470", ""),
        ("http://127.0.0.1:8470", ""),
        ("http://[::1]:8470", ""),
        ("http://deploy.example.org", "plain http"),
        ("http://127.0.0.1.evil.example", "plain http"),
        ("https://ann:secret@deploy.example.org", "password"),
        ("https://deploy.example.org/console", "path"),
        ("https://deploy.example.org?x=1", "path"),
        ("ftp://deploy.example.org", "https"),
        ("deploy.example.org", "https"),
        ("https://", "https"),
        ("https://[::1", "https"),
        ("https://deploy.example.org:99999", "https"),
        ("https://dep\nloy.example.org", "no URL has"),
        ("https://deploy.example.org\\@evil.example", "no URL has"),
        ("", "https"),
    ],
)
def test_a_token_goes_over_tls_or_stays_on_this_machine(url: str, problem: str) -> None:
    found = console_url_problem(url)
    assert (problem in found) if problem else not found
    if problem:
        with pytest.raises(UsageError):
            ConsoleClient(ViaSettings(url=url))


def test_the_token_is_in_a_header_and_nowhere_else(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("dk_canary\n")
    file.chmod(0o600)
    console = Console(answer(value={}))
    client = console.client(token_file=file)
    client.get("/sites")
    request = console.requests[0]
    assert dict(request.headers)["Authorization"] == "Bearer dk_canary"
    assert "canary" not in request.target
    assert "canary" not in repr(client) + repr(request)


def test_a_token_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("dk_canary")
    file.chmod(0o644)
    with pytest.raises(SettingsError, match="0644") as caught:
        Console(answer()).client(token_file=file)
    assert "canary" not in str(caught.value)
    file.chmod(0o600)
    file.write_text("dk one")
    with pytest.raises(SettingsError):
        Console(answer()).client(token_file=file)


def test_what_got_no_answer_is_sent_again_under_the_same_key() -> None:
    console = Console(AWAY, answer(503, {}, retry_after="3"), answer(202, {"state": "done"}))
    console.client().do("POST", "/sites/shop/deploys", {"ref": "v1"})
    keys = {dict(request.headers)["Idempotency-Key"] for request in console.requests}
    assert (len(console.requests), len(keys)) == (3, 1)
    assert console.slept == [0.5, 3.0]


def test_two_requests_have_two_keys() -> None:
    console = Console(answer(202, {}))
    client = console.client()
    for _ in range(2):
        client.do("POST", "/sites/shop/deploys", {})
    assert len({dict(request.headers)["Idempotency-Key"] for request in console.requests}) == 2


def test_a_console_that_never_answers_is_given_up() -> None:
    console = Console(AWAY)
    with pytest.raises(ConsoleUnreachable, match="did not answer"):
        console.client().get("/sites")
    assert len(console.requests) == 3


def test_while_the_first_attempt_is_at_work_it_is_waited_for() -> None:
    console = Console(AWAY, answer(409, {"detail": "at work"}, retry_after="2"), answer(202, {"state": "started"}))
    assert console.client().do("POST", "/x", {}).value == {"state": "started"}


def test_a_refusal_is_not_asked_again() -> None:
    console = Console(answer(409, {"detail": "rollout r-1 runs"}))
    with pytest.raises(ActionRefused, match="rollout r-1 runs"):
        console.client().do("POST", "/x", {})
    assert len(console.requests) == 1


@pytest.mark.parametrize(("status", "error", "code"), [
    (401, PolicyRefused, 3),
    (403, PolicyRefused, 3),
    (404, ActionRefused, 1),
    (422, UsageError, 2),
    (500, ActionRefused, 1),
])  # fmt: skip
def test_an_error_has_the_exit_code_of_its_kind(status: int, error: type[Exception], code: int) -> None:
    fields = [{"parameter": "ref", "detail": "no such ref"}, {"parameter": "chosen.nodes", "detail": "no such node"}]
    console = Console(answer(status, {"detail": "it is wrong", "errors": fields}))
    with pytest.raises(error, match="it is wrong") as caught:
        console.client().get("/x")
    assert caught.value.exit_code == code  # type: ignore[attr-defined]  # each is one of ours
    if isinstance(caught.value, UsageError):
        assert caught.value.problems == ("ref: no such ref", "chosen.nodes: no such node")


def test_without_a_login_the_way_to_a_token_is_named(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("dk_old")
    file.chmod(0o600)
    for settings, remedy in (({}, "make one at"), ({"token_file": file}, "make another at")):
        console = Console(answer(401, {"detail": "This token does not count"}))
        with pytest.raises(PolicyRefused, match=f"{remedy} .*/account, and name its file: --via-token FILE"):
            console.client(**settings).get("/x")


def test_no_redirect_is_followed() -> None:
    console = Console(answer(302, None, location="https://evil.example/\x1b[31m"))
    with pytest.raises(ActionRefused, match="sends us on") as caught:
        console.client().get("/x")
    assert "\x1b" not in str(caught.value)
    assert len(console.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        HttpReply(status=200, headers=(("content-type", "text/html"),), body=b"<h1>Hello</h1>"),
        HttpReply(status=200, headers=(("content-type", "application/json"),), body=b"{" * 9),
        HttpReply(status=200, headers=(("content-type", "application/json"),), body=b'{"a":1', whole=False),
        HttpReply(status=403, headers=(("content-type", "application/problem+json"),), body=b"[]"),
        HttpReply(status=403, headers=(("content-type", "application/problem+json"),), body=b"no json"),
        HttpReply(status=422, headers=(("content-type", "application/problem+json"),), body=b'{"errors":[1,{},null]}'),
        HttpReply(status=500, headers=(), body=b""),
    ],
)
def test_whatever_a_server_answers_is_an_error_in_our_words(reply: HttpReply) -> None:
    with pytest.raises((ActionRefused, PolicyRefused, UsageError)):
        Console(reply).client().get("/x")


@pytest.mark.parametrize("value", [
    None,
    [],
    {},
    {"summary": {}},
    {"summary": 1, "nodes": 2},
    {"summary": {"rollout": 1, "site": "s"}, "nodes": {"items": []}},
])  # fmt: skip
def test_an_answer_of_another_shape_is_refused(value: object) -> None:
    with pytest.raises(ActionRefused, match="answers no FollowedDetail"):
        read_answer(FollowedDetail, value)


def test_what_a_newer_console_adds_is_passed_over() -> None:
    value = {
        "summary": {"rollout": "r", "site": "s", "new": 1},
        "nodes": {"items": [{"node": "a", "x": []}], "next": None},
    }
    assert read_answer(FollowedDetail, value).nodes.items[0].node == "a"
