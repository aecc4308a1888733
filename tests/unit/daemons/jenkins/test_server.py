"""The table of Jenkins' answers, row by row: what each means, whether asking again helps, and what to change."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.daemons.jenkins.ports import BuildAnswer
from deploykit.daemons.jenkins.server import MAX_FORM, Attempt, form_of, queue_item_of, read_reply
from deploykit.httpclient.reply import HttpReply, NoReply

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BASE = "https://ci.example.org/jenkins/"
ITEM = f"{BASE}queue/item/12/"
JOB = f"{BASE}job/shop/job/tests/"


def attempt(**more: Any) -> Attempt:
    return Attempt(
        **{
            "server": "ci",
            "base": BASE,
            "job": "shop/tests",
            "parts": ("shop", "tests"),
            "user": "deploykit",
            "login": "token",
            **more,
        }
    )


def reply(status: int, text: str = "", **headers: str) -> HttpReply:
    pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return HttpReply(status=status, headers=pairs, body=f"<p>{text}</p>".encode())


def answer_to(what: HttpReply | NoReply, known: tuple[int, ...] = (), **more: Any) -> BuildAnswer:
    outcome = read_reply(what, attempt(**more), now=NOW, known=known)
    assert isinstance(outcome, BuildAnswer)
    assert "shop/tests" not in outcome.detail  # job and server stand beside it, wherever it is shown
    return outcome


SWITCHED: dict[str, Any] = {"endpoint": "build", "switched": True}
CRUMB = "No valid crumb was included in the request"
PERMISSION = "deploykit is missing the Job/Build permission"

#: The answer -> how it was asked -> kind, retry, what the text and the remedy must hold.
ROWS: list[tuple[str, HttpReply | NoReply, dict[str, Any], str, bool, str, str]] = [
    ("201 new", reply(201, Location=ITEM), {}, "queued", False, "queued as item 12", ""),
    ("201 without Location", reply(201), {}, "queued", False, "cannot be followed", ""),
    ("201 other Location", reply(201, Location="https://evil/x"), {}, "queued", False, "cannot be followed", ""),
    (
        "201 without parameters",
        reply(201, Location=ITEM),
        SWITCHED,
        "queued",
        False,
        "the job has no parameters, so deploykit's were dropped",
        "add the parameters to the job",
    ),
    ("303 joined", reply(303, Location=ITEM), {}, "joined", False, "joined to item 12", ""),
    ("302 scan", reply(302, Location=JOB), SWITCHED, "scanned", False, "multibranch", ""),
    ("302 scan, relative", reply(302, Location="."), SWITCHED, "scanned", False, "multibranch", ""),
    ("302 vetoed", reply(302, Location=JOB), {}, "refused", False, "queued nothing", "prepares for shutdown"),
    (
        "302 login page",
        reply(302, Location="/jenkins/login?from=x"),
        {"user": "", "login": ""},
        "refused",
        False,
        "login page",
        "set user and token_file in [jenkins.servers.ci]",
    ),
    (
        "302 single sign-on",
        reply(302, Location="https://sso.example.org/oauth2/authorize"),
        {},
        "refused",
        False,
        "login page at https://sso.example.org",
        "must let API tokens through",
    ),
    (
        "301 to https",
        reply(301, Location="https://ci.example.org/jenkins/job/x"),
        {"base": "http://ci.example.org/jenkins/"},
        "refused",
        False,
        "redirects to https",
        'set url = "https://ci.example.org/jenkins/"',
    ),
    (
        "307 to another host",
        reply(307, Location="https://evil.example/x"),
        {},
        "refused",
        False,
        "another host, https://evil.example; that is not followed",
        "set url",
    ),
    ("308 elsewhere", reply(308, Location="/ci/"), {}, "refused", False, "redirects to /ci/", "set url"),
    ("303 elsewhere", reply(303, Location="/ci/"), {}, "refused", False, "redirects to /ci/", "set url"),
    ("302 to no URL", reply(302, Location="http://[x"), {}, "refused", False, "redirects to no URL", "proxy"),
    (
        "400 both",
        reply(400, "Nothing is submitted"),
        SWITCHED,
        "refused",
        False,
        'neither build nor buildWithParameters: "Nothing is submitted"',
        "compare the parameters",
    ),
    ("401 nobody", reply(401), {"user": "", "login": ""}, "refused", False, "wants a login", "set user and token_file"),
    ("401 token", reply(401), {}, "refused", False, "refuses user deploykit or the API token", "is not the password"),
    ("401 password", reply(401), {"login": "password"}, "refused", False, "or the password", "password_file"),
    (
        "403 crumb, nobody",
        reply(403, CRUMB),
        {"user": "", "login": "", "renewed": True},
        "refused",
        False,
        "No valid crumb",
        "an API token needs no crumb",
    ),
    ("403 crumb, token", reply(403, CRUMB), {}, "refused", False, "No valid crumb", "takes the Authorization header"),
    (
        "403 crumb, password again",
        reply(403, CRUMB),
        {"login": "password", "renewed": True},
        "refused",
        False,
        "No valid crumb",
        "set token_file instead of password_file",
    ),
    (
        "403 permission",
        reply(403, PERMISSION, X_Required_Permission="hudson.model.Item.Build"),
        {},
        "refused",
        False,
        "deploykit has no permission",
        "give deploykit Job/Build on shop/tests",
    ),
    (
        "403 only DISCOVER",
        reply(403, "x", X_Required_Permission="hudson.model.Item.Read"),
        {},
        "refused",
        False,
        "no permission",
        "give deploykit Job/Read on shop/tests",
    ),
    (
        "403 permission, nobody",
        reply(403, PERMISSION),
        {"user": "", "login": ""},
        "refused",
        False,
        "anonymous has no permission",
        "set user and token_file",
    ),
    (
        "403 wrong job token",
        reply(403, "Invalid token provided."),
        {"job_token": True},
        "refused",
        False,
        "the job's own token",
        "Trigger builds remotely",
    ),
    ("403 bare", reply(403), {}, "refused", False, "forbidden for deploykit", "the proxy before Jenkins"),
    (
        "404",
        reply(404),
        SWITCHED,
        "missing",
        False,
        "no such job, or deploykit may not see it",
        f"compare the name with {JOB}",
    ),
    ("405", reply(405, Allow="GET"), {}, "refused", False, "takes no POST here (it allows GET)", "turns POST into GET"),
    ("409", reply(409), {}, "refused", False, "the job is disabled", "enable it in Jenkins"),
    ("413", reply(413), {}, "refused", False, "too large", "send less"),
    ("408", reply(408), {}, "busy", True, "takes no requests now", "look at Jenkins"),
    ("429", reply(429, Retry_After="7"), {}, "busy", True, "takes no requests now", "look at Jenkins"),
    ("503", reply(503, "Please wait"), {}, "busy", True, "Please wait", "look at Jenkins"),
    ("500", reply(500, "Oops"), {}, "unanswered", True, "a build may have been queued", "look at Jenkins' log"),
    ("502", reply(502), {}, "unanswered", True, "a build may have been queued", "and its proxy's"),
    ("504", reply(504), {}, "unanswered", True, "a build may have been queued", "and its proxy's"),
    ("501", reply(501), {}, "refused", False, "does not understand", "check that url"),
    ("101", reply(101), {}, "unanswered", True, "101", "look at Jenkins' log"),
    ("200", reply(200, "Welcome"), {}, "refused", False, "not an answer of Jenkins", "without a login page"),
    ("418", reply(418), {}, "refused", False, "not an answer of Jenkins", "check that url"),
    ("refused", NoReply(sent=False, why="x refused", remedy="y"), {}, "unreachable", True, "x refused", "y"),
    ("timeout", NoReply(sent=True, why="x silent", remedy="y"), {}, "unanswered", True, "x silent", "y"),
]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_each_row_of_the_table(row: tuple[str, HttpReply | NoReply, dict[str, Any], str, bool, str, str]) -> None:
    _, what, how, kind, retry, text, remedy = row
    answer = answer_to(what, **how)
    assert (answer.kind, answer.retry) == (kind, retry)
    assert text in answer.detail
    assert remedy in answer.remedy
    assert bool(answer.remedy) == bool(remedy)  # who need do nothing is not told to


def test_no_two_rows_are_told_in_the_same_words() -> None:
    texts = [answer_to(what, **how) for _, what, how, *_ in ROWS]
    different = {(answer.kind, answer.detail, answer.remedy) for answer in texts}
    assert len(different) >= len(ROWS) - 3  # two kinds of Location that name no item, or the job


def test_an_item_that_is_known_was_joined_although_jenkins_says_201() -> None:
    answer = answer_to(reply(201, Location=ITEM), known=(12,))
    assert (answer.kind, answer.queue_item) == ("joined", 12)
    assert answer_to(reply(201, Location=ITEM), known=(13,)).kind == "queued"


@pytest.mark.parametrize("host", ["https://evil.example", "http://169.254.169.254", "", "//evil.example"])
def test_of_a_location_only_the_number_counts(host: str) -> None:
    answer = answer_to(reply(201, Location=f"{host}/anything/queue/item/77/"))
    assert answer.queue_item == 77
    assert answer.url == f"{BASE}queue/item/77/"


@pytest.mark.parametrize(
    ("location", "number"),
    [
        ("https://ci/queue/item/1/", 1),
        ("/queue/item/1", 1),
        ("queue/item/1/api/json", None),
        ("/queue/item/-1/", None),
        ("/queue/item/1/../2/", None),
        ("/queue/item/1x/", None),
        ("/queue/item/0/", None),
        (f"/queue/item/{2**53 - 1}/", 2**53 - 1),
        (f"/queue/item/{2**53}/", None),  # no event can carry it
        ("/queue/item/" + "9" * 19, None),
        ("/queue/item/٣/", None),
        ("/x?y=/queue/item/3/", None),
        ("http://[", None),
        ("", None),
    ],
)
def test_what_a_queue_item_looks_like(location: str, number: int | None) -> None:
    assert queue_item_of(location) == number


@pytest.mark.parametrize(
    ("endpoint", "what", "then"),
    [
        ("buildWithParameters", reply(400, "shop is not parameterized"), "build"),
        ("buildWithParameters", reply(404), "build"),
        ("buildWithParameters", reply(500, "This build is not parameterized!"), "build"),
        ("build", reply(400, "Nothing is submitted"), "buildWithParameters"),
    ],
)
def test_whether_a_job_has_parameters_is_found_in_one_more_request(endpoint: str, what: HttpReply, then: str) -> None:
    first = attempt(endpoint=endpoint)
    second = read_reply(what, first, now=NOW)
    assert isinstance(second, Attempt)
    assert (second.endpoint, second.switched) == (then, True)
    assert isinstance(read_reply(what, second, now=NOW), BuildAnswer)  # and in no third


@pytest.mark.parametrize("login", ["", "password"])
def test_a_refused_crumb_is_fetched_once_more(login: str) -> None:
    first = attempt(login=login)
    second = read_reply(reply(403, CRUMB), first, now=NOW)
    assert second == attrs.evolve(first, renewed=True)
    assert isinstance(second, Attempt)
    assert isinstance(read_reply(reply(403, CRUMB), second, now=NOW), BuildAnswer)


def test_the_pause_that_a_server_asks_for_is_handed_on() -> None:
    assert answer_to(reply(429, Retry_After="7")).retry_after == 7
    assert answer_to(reply(503)).retry_after is None


def test_a_name_from_the_address_line_is_recognised() -> None:
    assert "without the job/" in answer_to(reply(404), parts=("job", "shop"), **SWITCHED).remedy


def test_what_a_server_writes_stays_one_bounded_line() -> None:
    answer = answer_to(reply(503, "a\r\nb\x1b[31m" + "x" * 100_000))
    assert answer.detail.isprintable()
    assert len(answer.detail) <= 500


def form(parameters: dict[str, str], *, token: str = "", delay: float | None = None, **more: Any) -> dict[str, str]:
    body = form_of(attempt(**more), parameters, token=token, delay=delay)
    assert isinstance(body, bytes)
    return dict(parse_qsl(body.decode(), keep_blank_values=True))


def test_a_form_holds_parameters_token_and_delay_whatever_is_in_them() -> None:
    parameters = {"REF": "refs/heads/a&b=c d+é%", "EMPTY": ""}
    assert form(parameters, token="t&x", delay=5) == {**parameters, "token": "t&x", "delay": "5sec"}


def test_a_job_without_parameters_is_sent_none() -> None:
    assert form({"REF": "x"}, token="t", endpoint="build") == {"token": "t"}


@pytest.mark.parametrize("name", ["token", "delay", "json", "", "a\nb"])
def test_a_parameter_with_a_name_that_jenkins_reads_itself_is_refused(name: str) -> None:
    refused = form_of(attempt(), {name: "x"}, token="", delay=None)
    assert isinstance(refused, BuildAnswer)
    assert (refused.kind, refused.retry) == ("refused", False)
    assert "rename it" in refused.remedy


def test_a_form_that_jenkins_would_not_read_is_refused() -> None:
    refused = form_of(attempt(), {"X": "x" * MAX_FORM}, token="", delay=None)
    assert isinstance(refused, BuildAnswer)
    assert "bytes long" in refused.detail


LOCATIONS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["http://[", "http://a:99999/", "//", "http://", "https://ci.example.org:x/", "/queue/item/5/"]),
)


@given(st.integers(0, 999), LOCATIONS, st.binary(max_size=100), st.text(max_size=20), st.booleans(), st.booleans())
def test_whatever_a_server_answers_has_a_meaning(
    status: int, location: str, body: bytes, after: str, switched: bool, renewed: bool
) -> None:
    headers = (("Location", location), ("Retry-After", after), ("X-Required-Permission", after), ("Allow", after))
    asked = attempt(switched=switched, renewed=renewed, login="password")
    outcome = read_reply(HttpReply(status=status, headers=headers, body=body), asked, now=NOW)
    if isinstance(outcome, Attempt):
        assert (outcome.switched, outcome.renewed) > (switched, renewed)  # so it ends
        return
    assert outcome.detail.isprintable()
    assert outcome.accepted or outcome.remedy
    assert outcome.retry == (outcome.kind in ("busy", "unanswered"))
