"""What the native wire looks like, what it refuses, and how it says so."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest

import deploykit
from deploykit.errors import MessageError
from deploykit.messages import (
    BY_TYPE,
    AccessGrantRequested,
    Commit,
    DeployRequested,
    Message,
    NodeDescribed,
    Notice,
    RefUpdated,
    Unknown,
    told,
)
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.wire import CONTENT_TYPE, Frame, decode, encode, plain, sendable

NATIVE = {"content-type": CONTENT_TYPE}
OLD, NEW = ObjectId("1" * 40), ObjectId("2" * 40)
WHEN = datetime(2026, 11, 23, 7, 50, 4, 123456, tzinfo=UTC)


def push(**changes: Any) -> RefUpdated:
    commit = Commit(id=NEW, author="Ann <a@example.org>", time="2026-01-01T00:00:00Z", message="Fix: it\n\nso")
    base: dict[str, Any] = {
        "id": "5a9c1e6e",
        "source": "git/host",
        "time": WHEN,
        "repo": RepoName("shop"),
        "ref": RefName("refs/heads/main"),
        "old": OLD,
        "new": NEW,
        "commits": (commit,),
        "commit_count": 1,
    }
    return RefUpdated(**(base | changes))


def event(**changes: Any) -> dict[str, Any]:
    """A good event as another client might write it, with members changed; None leaves one out."""
    made = {
        "specversion": "1.0",
        "id": "1",
        "source": "git/host",
        "type": "deploykit.source.ref-updated.v1",
        "time": "2026-11-23T07:50:04Z",
        "data": {"repo": "shop", "ref": "refs/heads/main", "old": OLD, "new": NEW},
    }
    return {k: v for k, v in (made | changes).items() if v is not None}


def data(**changes: Any) -> dict[str, Any]:
    return event(data=event()["data"] | changes)


def read(said: object, headers: dict[str, str] | None = None) -> Message:
    message = decode(headers or NATIVE, json.dumps(said).encode())
    assert message is not None
    return message


def refusal(said: object) -> MessageError:
    with pytest.raises(MessageError) as caught:
        decode(NATIVE, said if isinstance(said, bytes) else json.dumps(said).encode())
    return caught.value


# -- out ---------------------------------------------------------------------------------------------------------------


def test_a_push_is_written_as_the_contract_says() -> None:
    frame = encode(push(correlation_id="urn:push:1"))
    assert frame.headers == {
        "content-type": "application/cloudevents+json",
        "subject": "[shop] main moved 222222222222 - Fix - it",
        "deploykit-id": "5a9c1e6e",
        "deploykit-type": "deploykit.source.ref-updated.v1",
        "correlation-id": "urn%3Apush%3A1",
    }
    assert json.loads(frame.body) == {
        "specversion": "1.0",
        "id": "5a9c1e6e",
        "source": "git/host",
        "type": "deploykit.source.ref-updated.v1",
        "time": "2026-11-23T07:50:04.123456Z",
        "correlationid": "urn:push:1",
        "datacontenttype": "application/json",
        "data": {
            "repo": "shop",
            "ref": "refs/heads/main",
            "old": OLD,
            "new": NEW,
            "forced": False,
            "pusher": "",
            "commits": [
                {"id": NEW, "author": "Ann <a@example.org>", "time": "2026-01-01T00:00:00Z", "message": "Fix: it\n\nso"}
            ],
            "commit_count": 1,
        },
    }


def test_times_are_written_in_utc() -> None:
    berlin = timezone(timedelta(hours=2))
    frame = encode(push(time=datetime(2026, 7, 1, 12, 0, tzinfo=berlin)))
    assert json.loads(frame.body)["time"] == "2026-07-01T10:00:00Z"


def test_every_mistake_of_a_message_is_named_with_its_path_and_without_its_value() -> None:
    bad = Commit(id=ObjectId("SECRET"), author=7, time="", message="")  # type: ignore[arg-type]
    with pytest.raises(MessageError) as caught:
        encode(push(repo="../SECRET", time=datetime(2026, 1, 1), commits=(bad, "x"), extra={"repo": 1}))  # noqa: DTZ001
    assert caught.value.problems == (
        "time: expected a time with an offset",
        "repo: expected a repository name",
        "commits[0].id: expected 40 or 64 lower-case hex digits",
        "commits[0].author: expected a text",
        "commits[1]: expected a Commit",
        "extra: repo is a field of its own",
    )
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": ""},
        {"id": "a\nb"},
        {"id": "x" * 256},
        {"source": ""},
        {"source": "a b"},
        {"correlation_id": "\x00"},
        {"pusher": "\ud800"},
        {"pusher": None},
        {"pusher": b"x"},
        {"forced": 1},
        {"commit_count": -1},
        {"commit_count": True},
        {"commit_count": 2**53},
        {"commits": "abc"},
        {"commits": None},
        {"commits": (push().commits[0],) * 1001},
        {"extra": {"x": float("nan")}},
        {"extra": {"x": float("inf")}},
        {"extra": {"x": b"bytes"}},
        {"extra": {"x": {1: 2}}},
        {"extra": {"x": "\ud800"}},
        {"extra": {"x": ["x"] * 1001}},
        {"extensions": {"Traceparent": "x"}},
        {"extensions": {"id": "x"}},
        {"extensions": {"data": "x"}},
        {"extensions": {"x": 1.5}},
        {"extensions": {"x": "a\nb"}},
        {"extensions": {"x": {}}},
        {"new": OLD.upper().replace("1", "A")},
    ],
    ids=lambda c: next(iter(c)) if isinstance(c, dict) else "",
)
def test_what_no_reader_would_take_is_not_written(changes: dict[str, Any]) -> None:
    with pytest.raises(MessageError, match="RefUpdated cannot be sent: "):
        encode(push(**changes))


def test_a_loop_in_an_unknown_field_is_refused() -> None:
    loop: dict[str, object] = {}
    loop["x"] = loop
    with pytest.raises(MessageError):
        encode(push(extra=loop))


def test_a_message_over_the_limit_is_refused() -> None:
    with pytest.raises(MessageError, match="over the limit of 1048576"):
        encode(Notice(text="x" * 1024 * 1024))


def test_what_a_hook_may_tell_of_a_push_fits_in_a_message() -> None:
    commit = Commit(id=NEW, author="\x01" * 9000, time="\x01" * 9000, message="\x01" * 9000)
    commits = told([commit] * 80)
    assert len(commits) == 50
    for legacy in (False, True):
        frame = encode(push(commits=commits, commit_count=80), legacy=legacy)
        assert decode(frame.headers, frame.body) is not None


def test_what_is_no_message_is_refused() -> None:
    for thing in (Message(), "text", None, push().commits[0]):
        with pytest.raises(MessageError, match="is not a message that can be sent"):
            encode(thing)  # type: ignore[arg-type]


def test_an_unknown_event_cannot_pass_for_one_of_ours() -> None:
    with pytest.raises(MessageError, match="has a class of its own"):
        encode(Unknown(type="deploykit.notice.v1", data={"text": "x"}))


def test_a_password_in_clear_is_never_written_to_the_native_wire() -> None:
    grant = AccessGrantRequested(site=SiteName("s"), user="jane", password="c4nary")
    with pytest.raises(MessageError, match="password: is never written to this wire") as caught:
        encode(grant)
    assert "c4nary" not in repr(caught.value)
    assert "c4nary" not in repr(grant)


def test_a_password_hash_is_written_and_not_shown() -> None:
    hashed = "$2b$12$" + "a" * 53
    grant = AccessGrantRequested(site=SiteName("s"), user="jane", password_hash=hashed)
    frame = encode(grant)
    assert decode(frame.headers, frame.body) == grant
    for shown in (repr(grant), repr(frame), json.dumps(plain(grant)), *frame.headers.values()):
        assert "$2b$" not in shown


@pytest.mark.parametrize("line", ["a:b", "x\n", "$1$abc", "plain", "$6$" + "a" * 40 + "\nroot:x"])
def test_a_password_hash_is_one_of_the_good_kinds(line: str) -> None:
    with pytest.raises(MessageError):
        encode(AccessGrantRequested(site=SiteName("s"), user="jane", password_hash=line))


def test_a_push_loads_no_cattrs() -> None:
    code = (
        "import sys, deploykit\n"
        "from deploykit.messages import Notice\n"
        "frame = deploykit.encode(Notice(text='x'))\n"
        "deploykit.encode(Notice(text='x'), legacy=True)\n"
        "assert 'cattrs' not in sys.modules, 'encode'\n"
        "assert not {'stomp', 'dulwich', 'click', 'cryptography'} & set(sys.modules)\n"
        "deploykit.decode(frame.headers, frame.body)\n"
        "assert 'cattrs' in sys.modules, 'decode'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# -- in ----------------------------------------------------------------------------------------------------------------


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
    ],
)
def test_times_of_other_clients_are_read(said: str, moment: datetime) -> None:
    assert read(event(time=said)).time == moment


@pytest.mark.parametrize(
    "said",
    ["2026-11-23", "2026-11-23T07:50:04", "20261123T075004Z", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+23:00",
     "2026-11-23T07:50:04+0100", "2026-W01-1T00:00:00Z", "now", 0, "2026-11-23T07:50:04Z\n",
     "\uff12026-11-23T07:50:04Z", "2016-12-31T23:59:60Z"],
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


# -- headers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\x00b", "a:b", "a\\b", "\ud800", "x" * 9000, 5, None, b"x"])
def test_a_header_that_could_break_out_of_its_line_is_not_sent(value: Any) -> None:
    with pytest.raises(MessageError, match=r"cannot be sent|are longer"):
        sendable(Frame({"x": value}, b""))


@pytest.mark.parametrize("name", ["", "a:b", "a\nb", "a b", "ß", "x" * 65, "-x"])
def test_a_header_name_is_a_plain_word(name: str) -> None:
    with pytest.raises(MessageError, match="cannot be sent"):
        sendable(Frame({name: "x"}, b""))


@pytest.mark.parametrize("name", ["message-id", "destination", "Content-Length", "receipt", "user-id", "timestamp"])
def test_a_header_that_belongs_to_the_broker_is_not_set(name: str) -> None:
    with pytest.raises(MessageError, match="is reserved"):
        sendable(Frame({name: "x"}, b""))


def test_a_refused_header_does_not_show_its_value() -> None:
    with pytest.raises(MessageError) as caught:
        sendable(Frame({"x": "c4nary\n"}, b""))
    assert "c4nary" not in repr(caught.value)


# -- messages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", BY_TYPE.values(), ids=lambda c: c.__name__)
def test_message_classes_are_frozen_slotted_and_keyword_only(cls: type[Message]) -> None:
    assert "__dict__" not in dir(cls) or not hasattr(cls, "__weakref__") or "__slots__" in vars(cls)
    fields = attrs.fields(cls)
    assert all(f.kw_only for f in fields)
    message = Notice(text="x")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        message.text = "y"  # type: ignore[misc]


def test_a_summary_is_one_line_whatever_is_in_it() -> None:
    hostile = "a\x1b[31m\r\nb\u2028c\u202ed\x00" + "x" * 1000
    summary = push(pusher=hostile).summary
    assert summary.isprintable()
    assert len(summary) <= 300


def test_plain_shows_a_message_as_json_without_its_secrets() -> None:
    described = NodeDescribed(node=NodeName("n"), facts={"os": "debian"}, time=WHEN)
    shown = plain(described)
    assert (shown["type"], shown["time"]) == ("deploykit.node.described.v1", "2026-11-23T07:50:04.123456Z")
    assert json.loads(json.dumps(shown))["facts"] == {"os": "debian"}


def test_the_public_names_are_on_the_package() -> None:
    names: list[tuple[str, Callable[..., object]]] = [("encode", encode), ("decode", decode)]
    for name, function in names:
        assert getattr(deploykit, name) is function


def test_a_command_carries_its_audience_and_expiry_in_the_body_that_is_signed() -> None:
    command = DeployRequested(
        site=SiteName("s"), ref=RefName("refs/tags/v1"), commit=NEW, audience=(NodeName("n"),), expires=WHEN
    )
    said = json.loads(encode(command).body)
    assert said["data"]["audience"] == ["n"]
    assert said["data"]["expires"] == "2026-11-23T07:50:04.123456Z"
