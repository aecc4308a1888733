"""Jenkins' JSON: an order is found by its correlation id and nothing else, and hostile JSON is nothing."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.daemons.jenkins.lookup import (
    build_in_job,
    correlation_of,
    describe,
    item_in_queue,
    parse_object,
    queue_state,
    reaches_back,
    shown_url,
)
from deploykit.httpclient.reply import HttpReply, NoReply

PARTS = ("shop", "tests")
TASK = {"url": "http://other.name/ci/job/shop/job/tests/"}


def actions(**parameters: object) -> list[dict[str, Any]]:
    return [{}, {"parameters": [{"name": name, "value": value} for name, value in parameters.items()]}]


def ours(**more: Any) -> dict[str, Any]:
    return {"id": 4, "task": TASK, "actions": actions(DEPLOYKIT_CORRELATION_ID="c1"), **more}


def reply(data: object, status: int = 200) -> HttpReply:
    return HttpReply(status=status, body=json.dumps(data).encode())


@pytest.mark.parametrize(
    ("item", "number"),
    [
        (ours(), 4),
        (ours(actions=actions(OTHER="c1")), None),
        (ours(actions=actions(DEPLOYKIT_CORRELATION_ID="c2")), None),
        (ours(actions=actions(DEPLOYKIT_CORRELATION_ID=["c1"])), None),
        (ours(task={"url": "http://ci/job/shop/job/other/"}), None),
        (ours(task={"url": "http://ci/job/other-shop/job/tests/"}), None),
        (ours(task={"url": "http://ci/job/team/job/shop/job/tests/"}), None),
        (ours(task={"url": "http://["}), None),
        (ours(id="4"), None),
        (ours(id=True), None),
        (ours(id=-1), None),
        (ours(actions={"parameters": 1}), None),
    ],
)
def test_an_item_is_found_by_its_correlation_id_and_its_job(item: dict[str, Any], number: int | None) -> None:
    assert item_in_queue({"items": [{}, "x", item]}, "c1", PARTS) == number


@pytest.mark.parametrize(
    "name",
    ["a (b)", "c++", "x=1,y=2", "it's!", "a@b&c$d*", "a~b", "ü"],
)
def test_a_name_is_the_same_whichever_of_its_characters_jenkins_quotes(name: str) -> None:
    for path in (quote(name, safe="!$&'()*+,-.=@_~"), quote(name, safe="")):  # as `Util.rawEncode` does, and as we do
        item = ours(task={"url": f"http://ci/job/shop/job/{path}/"})
        assert item_in_queue({"items": [item]}, "c1", ("shop", name)) == 4


def test_a_number_that_no_event_can_carry_is_none() -> None:
    builds = [{"number": 2**53, "url": "http://ci/8/", "actions": ours()["actions"]}]
    assert build_in_job({"builds": builds}, "c1") is None


def test_a_build_is_found_by_its_correlation_id() -> None:
    builds = [{"number": 9, "actions": []}, {"number": 8, "url": "http://ci/8/", "actions": ours()["actions"]}]
    assert build_in_job({"builds": builds}, "c1") == (8, "http://ci/8/")
    assert build_in_job({"builds": builds}, "c2") is None


@pytest.mark.parametrize(
    ("builds", "reaches"),
    [
        ([], True),
        ([{"number": 2, "timestamp": 9e6}, {"number": 1, "timestamp": 9e6}], True),
        ([{"number": 9, "timestamp": 9e6}, {"number": 8, "timestamp": 930_000}], True),
        ([{"number": 9, "timestamp": 9e6}, {"number": 8, "timestamp": 990_000}], False),  # clocks may differ so much
        ([{"number": 9}, {"number": 8}], False),
    ],
)
def test_whether_all_builds_since_then_are_shown(builds: list[dict[str, Any]], reaches: bool) -> None:
    assert reaches_back({"builds": builds}, 1000.0) is reaches


def test_another_build_of_the_same_event_is_not_taken_for_it() -> None:
    """All refs of a push have one correlation id, and so do all projects of a revision."""
    first, second = (
        {"id": n, "number": n, "actions": actions(DEPLOYKIT_CORRELATION_ID="c1", DEPLOYKIT_REF=ref, KIND="x")}
        for n, ref in ((1, "refs/tags/v1 "), (2, "refs/heads/main"))
    )
    order = {"DEPLOYKIT_CORRELATION_ID": "c1", "DEPLOYKIT_REF": "refs/heads/main", "KIND": "y"}
    assert item_in_queue({"items": [first, second]}, "c1", PARTS, order) == 2
    assert item_in_queue({"items": [first]}, "c1", PARTS, order) is None
    assert build_in_job({"builds": [first, second]}, "c1", order) == (2, "")
    assert build_in_job({"builds": [first]}, "c1", {**order, "DEPLOYKIT_REF": "refs/tags/v1"}) == (1, "")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (reply(ours(why="In the quiet period.\n")), "waiting"),
        (reply(ours(executable=None)), "waiting"),
        (reply(ours(executable={"number": 7, "url": "http://ci/7/"})), "started"),
        (reply(ours(cancelled=True)), "cancelled"),
        (reply(ours(actions=[])), "waiting"),  # its job has no parameters
        (reply(ours(task={"url": "http://ci/job/other/"})), "gone"),
        (reply(ours(actions=actions(DEPLOYKIT_CORRELATION_ID="c2"), executable={"number": 7})), "gone"),
        (reply({}, 404), "gone"),
        (reply({}, 401), "hidden"),
        (reply({}, 403), "hidden"),
        (reply({}, 500), "unreachable"),
        (reply({}, 302), "unreachable"),
        (reply([]), "unreachable"),
        (HttpReply(status=200, body=b"{", whole=True), "unreachable"),
        (HttpReply(status=200, body=b"{}", whole=False), "unreachable"),
        (NoReply(sent=False, why="refused", remedy=""), "unreachable"),
    ],
)
def test_each_state_of_a_queue_item(answer: HttpReply | NoReply, kind: str) -> None:
    assert queue_state(answer, "c1", PARTS).kind == kind


def test_what_an_item_waits_for_and_where_it_runs_is_shown() -> None:
    assert queue_state(reply(ours(why="Waiting\n for x")), "c1", PARTS).why == "Waiting for x"
    started = queue_state(reply(ours(executable={"number": 7, "url": "http://ci/7/"})), "c1", PARTS)
    assert (started.number, started.url) == (7, "http://ci/7/")


@pytest.mark.parametrize("url", ["javascript:alert(1)", "http://a b", 'http://a"', "ftp://x", None, 7, "http://a\n"])
def test_a_url_that_is_none_is_not_shown(url: object) -> None:
    assert shown_url(url) == ""


def test_a_job_is_described() -> None:
    data = {
        "_class": "hudson.model.FreeStyleProject",
        "buildable": True,
        "property": [{}, {"parameterDefinitions": [{"name": "A"}, {"name": "B"}]}],
        "actions": [{"parameterDefinitions": [{"name": "A"}]}],
    }
    found = describe(data)
    assert (found.kind, found.buildable, found.parameters) == ("FreeStyleProject", True, ("A", "B"))
    assert describe({**data, "disabled": True}).buildable is False
    assert describe({}).buildable is None


@pytest.mark.parametrize("body", [b"", b"[]", b"nul", b"[" * 100_000, b"\xff", b'"x"', b"NaN"])
def test_what_is_no_object_is_none(body: bytes) -> None:
    assert parse_object(HttpReply(status=200, body=body)) is None


NAMES = (
    "items id task url actions parameters name value builds number executable why cancelled property "
    "parameterDefinitions _class buildable"
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES.split()), inner, max_size=6),
    max_leaves=30,
)


@given(st.dictionaries(st.sampled_from(["items", "actions", "builds", "task", "executable", "property"]), JSON))
def test_no_shape_of_json_is_an_error(data: dict[str, Any]) -> None:
    item_in_queue(data, "c1", PARTS)
    build_in_job(data, "c1")
    correlation_of(data)
    describe(data)
    queue_state(reply(data), "c1", PARTS)
