"""What the native wire reads, what it refuses, and how it says so."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from deploykit.errors import MessageError
from deploykit.messages import RefUpdated, Unknown
from deploykit.wire import decode, encode
from tests.support.wire import NATIVE, NEW, WHEN, data, event, read, refusal


def test_a_client_may_leave_out_what_has_a_default() -> None:
    message = read(event())
    assert isinstance(message, RefUpdated)
    assert (message.pusher, message.commits, message.commit_count, message.correlation_id) == ("", (), 0, "")


@pytest.mark.parametrize(
    "kind",
    [
        "application/cloudevents+json; charset=UTF-8",
        "Application/CloudEvents+JSON",
        'application/cloudevents+json;charset="utf-8"',
    ],
)
def test_the_content_type_may_be_written_in_other_ways(kind: str) -> None:
    assert read(event(), {"content-type": kind}).id == "1"


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "application/cloudevents-batch+json",
        "application/cloudevents+json; charset=utf-16",
        "application/x-yaml",
        "application/python-pickle",
        "text/html",
        "x",
    ],
)
def test_another_content_type_is_refused(kind: str) -> None:
    with pytest.raises(MessageError, match="content type"):
        read(event(), {"content-type": kind})


def test_a_native_body_that_calls_itself_text_is_refused() -> None:
    with pytest.raises(MessageError, match="content-type"):
        read(event(), {"content-type": "text/plain"})


@pytest.mark.parametrize(
    ("said", "moment"),
    [
        ("2026-11-23T07:50:04Z", datetime(2026, 11, 23, 7, 50, 4, tzinfo=UTC)),
        ("2026-11-23t07:50:04z", datetime(2026, 11, 23, 7, 50, 4, tzinfo=UTC)),
        ("2026-11-23T07:50:04.123456789+01:00", datetime(2026, 11, 23, 6, 50, 4, 123456, tzinfo=UTC)),
        ("2026-11-23T07:50:04.5-00:30", datetime(2026, 11, 23, 8, 20, 4, 500000, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2017-01-01t00:59:60.75+01:00", datetime(2017, 1, 1, tzinfo=UTC)),
    ],
)
def test_times_of_other_clients_are_read(said: str, moment: datetime) -> None:
    assert read(event(time=said)).time == moment


@pytest.mark.parametrize(
    "said",
    ["2026-11-23", "2026-11-23T07:50:04", "20261123T075004Z", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+23:00",
     "2026-11-23T07:50:04+0100", "2026-W01-1T00:00:00Z", "now", 0, "2026-11-23T07:50:04Z\n",
     "\uff12026-11-23T07:50:04Z", "2016-12-31T22:59:60Z", "2016-12-30T23:59:60Z", "9999-12-31T23:59:60Z",
     "2026-11-23T07:50:61Z", "2026-11-23T24:00:00Z", "2026-11-23T07:50:04+24:00", "2026-11-23T07:50:04+01:60"],
)  # fmt: skip
def test_what_is_no_time_is_refused(said: object) -> None:
    assert refusal(event(time=said)).problems == ("time: expected a time with an offset (RFC 3339)",)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ([], "body is not a JSON object"),
        (event(specversion="0.3"), "specversion: expected 1.0"),
        (event(specversion=None), "specversion: expected 1.0"),
        (event(data=[1]), "data: expected a JSON object"),
        (event(data="x"), "data: expected a JSON object"),
        (event(data=None), "data: expected a JSON object"),
        (event(data_base64="e30="), "data: expected a JSON object"),
        (event(datacontenttype="text/xml"), "data: expected a JSON object"),
        (event(id=None), "id: expected 1 to 255 printable characters"),
        (event(id=7), "id: expected 1 to 255 printable characters"),
        (event(source=""), "source: expected a URI reference"),
        (event(correlationid=5), "correlationid: expected"),
        (event(Extension="x"), "Extension: expected a CloudEvents attribute"),
        (event(ext={}), "ext: expected a CloudEvents attribute"),
        (event(subject=""), "subject: expected a CloudEvents attribute"),
        (event(subject=5), "subject: expected a CloudEvents attribute"),
        (event(dataschema=True), "dataschema: expected a CloudEvents attribute"),
        (data(ref="main"), "data.ref: expected a full ref name"),
        (data(repo=5), "data.repo: expected a repository name"),
        (data(pusher=5), "data.pusher: expected a text"),
        (data(pusher=None), "data.pusher: expected a text"),
        (data(forced=0), "data.forced: expected true or false"),
        (data(commit_count=1.0), "data.commit_count: expected an integer"),
        (data(commit_count="1"), "data.commit_count: expected an integer"),
        (data(commits={}), "data.commits: expected a list of at most 1000"),
        (data(commits=[[]]), "data.commits[0]: expected an object"),
        (data(commits=[{"id": NEW, "author": "", "time": ""}]), "data.commits[0].message: is missing"),
        (data(commits=[{"id": NEW, "author": 1, "time": "", "message": ""}]), "data.commits[0].author: expected a te"),
        (data(commits=[{}] * 1001), "data.commits: expected a list of at most 1000"),
        (data(newer=[0] * 1001), "extra: unknown fields are over the limits"),
    ],
)  # fmt: skip
def test_a_wrong_event_is_refused_with_the_place_and_what_was_expected(said: object, problem: str) -> None:
    assert problem in str(refusal(said))


def test_all_mistakes_are_told_at_once() -> None:
    said = data(repo="../x", ref="x", commits=[{"id": "x"}]) | {"id": ""}
    assert refusal(said).problems == (
        "id: expected 1 to 255 printable characters",
        "data.repo: expected a repository name",
        "data.ref: expected a full ref name, refs/heads/NAME or refs/tags/NAME",
        "data.commits[0].id: expected 40 or 64 lower-case hex digits",
        "data.commits[0].author: is missing",
        "data.commits[0].time: is missing",
        "data.commits[0].message: is missing",
    )
    assert "and 6 more mistakes" in str(refusal(said))


def test_an_error_never_shows_what_was_in_the_message() -> None:
    for said in (data(repo="c4nary/.."), data(pusher=["c4nary"]), event(id="c4nary\n"), event(type="c4nary", id="")):
        assert "c4nary" not in repr(refusal(said))
    assert "c4nary" not in repr(refusal(b'{"c4nary": c4nary}'))


def test_a_password_on_the_native_wire_is_refused_and_not_kept_as_an_unknown_field() -> None:
    said = event(type="deploykit.access.grant-requested.v1", data={"site": "s", "user": "jane", "password": "c4nary"})
    error = refusal(said)
    assert "password: never on this wire" in str(error)
    assert "c4nary" not in repr(error)


def test_unknown_fields_are_kept_and_not_shown() -> None:
    message = read(
        data(newer={"token": "c4nary"}, commits=[{"id": NEW, "author": "", "time": "", "message": "", "gpg": 1}])
    )
    assert message.extra == {"newer": {"token": "c4nary"}}
    assert isinstance(message, RefUpdated)
    assert message.commits[0].extra == {"gpg": 1}
    assert "c4nary" not in repr(message)


def test_an_unknown_field_may_be_named_like_an_attribute_of_the_envelope() -> None:
    said = data(id="inner", source="inner", time="inner", extra="inner", extensions="inner", correlation_id="inner")
    message = read(said)
    assert (message.id, message.source) == ("1", "git/host")
    assert message.extra["id"] == message.extra["extra"] == "inner"
    assert json.loads(encode(message).body)["data"]["source"] == "inner"


def test_null_attributes_are_absent_ones() -> None:
    assert read({**event(), "traceparent": None, "correlationid": None}).extensions == {}


def test_an_attribute_we_do_not_know_may_be_an_empty_text() -> None:
    message = read(event(tracestate=""))
    assert message.extensions == {"tracestate": ""}
    assert json.loads(encode(message).body)["tracestate"] == ""


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("limited", [True, False])
def test_an_integer_is_kept_exact_and_bounded_whatever_pythons_own_limit_is(sign: str, limited: bool) -> None:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(4300 if limited else 0)
    try:
        longest = int(f"{sign}{'9' * 300}")
        for said in (data(newer=longest), event(type="x", data=longest)):
            message = read(said)
            assert read(json.loads(encode(message).body)) == message
        for digits in (301, 5000, 1_000_000):
            body = json.dumps(data(newer="@")).replace('"@"', f"{sign}1{'0' * (digits - 1)}").encode()
            assert "a number is too large" in str(refusal(body))
        with pytest.raises(MessageError, match="extra: expected JSON values within the limits"):
            encode(attrs.evolve(read(event()), extra={"newer": longest * 10}))
    finally:
        sys.set_int_max_str_digits(before)


def test_an_event_of_another_type_is_unknown_and_whole() -> None:
    said = event(type="com.example.thing", data=[1, {"a": None}], dataschema="urn:x", subject="s", trace="1")
    message = read(said)
    assert isinstance(message, Unknown)
    assert (message.type, message.data) == ("com.example.thing", [1, {"a": None}])
    assert message.extensions == {"dataschema": "urn:x", "subject": "s", "trace": "1"}
    assert read(json.loads(encode(message).body)) == message


def test_a_newer_version_of_a_type_is_unknown() -> None:
    assert isinstance(read(event(type="deploykit.source.ref-updated.v2")), Unknown)


def test_binary_data_of_an_unknown_type_survives() -> None:
    message = read(event(type="x", data=None, data_base64="AAH/", datacontenttype="image/png"))
    assert isinstance(message, Unknown)
    assert (message.data, message.content_type) == (b"\x00\x01\xff", "image/png")
    assert json.loads(encode(message).body)["data_base64"] == "AAH/"


def test_an_unknown_event_without_a_time_has_the_time_it_came() -> None:
    message = decode(NATIVE, json.dumps(event(type="x", time=None)).encode(), received=WHEN)
    assert message is not None
    assert message.time == WHEN


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"type": ""}, "type: expected"),
        ({"type": 5}, "type: expected"),
        ({"type": None}, "type: expected"),
        ({"type": "x", "id": None}, "id: expected"),
        ({"type": "x", "data_base64": "e30="}, "data: given twice"),
        ({"type": "x", "data": None, "data_base64": "*"}, "data_base64: expected base64"),
        ({"type": "x", "data": None, "data_base64": 7}, "data_base64: expected base64"),
        ({"type": "x", "datacontenttype": 7}, "datacontenttype: expected"),
    ],
)
def test_what_is_no_cloudevent_is_refused(changes: dict[str, Any], problem: str) -> None:
    assert any(p.startswith(problem) for p in refusal(event(**changes)).problems)
