"""What is written to the native wire, what is not, and how that is said."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import attrs
import pytest

import deploykit
from deploykit.errors import MessageError
from deploykit.messages import (
    BY_TYPE,
    AccessGrantRequested,
    BuildEvidence,
    Commit,
    DeployRequested,
    Message,
    NodeDescribed,
    Notice,
    Unknown,
    bounded_commits,
)
from deploykit.names import NodeName, ObjectId, RefName, SiteName
from deploykit.wire import Frame, decode, encode, redact, sendable
from tests.support.asked import request
from tests.support.wire import NATIVE, NEW, OLD, WHEN, push

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
    commits = bounded_commits([commit] * 80)
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
    with pytest.raises(MessageError, match="password: is never written to the wire") as caught:
        encode(grant)
    assert "c4nary" not in repr(caught.value)
    assert "c4nary" not in repr(grant)


def test_a_password_hash_is_written_and_not_shown() -> None:
    hashed = "$2b$12$" + "a" * 53
    grant = AccessGrantRequested(site=SiteName("s"), user="jane", password_hash=hashed)
    frame = encode(grant)
    assert decode(frame.headers, frame.body) == grant
    for shown in (repr(grant), repr(frame), json.dumps(redact(grant)), *frame.headers.values()):
        assert "$2b$" not in shown


@pytest.mark.parametrize("line", ["a:b", "x\n", "$1$abc", "plain", "$6$" + "a" * 40 + "\nroot:x"])
def test_a_password_hash_is_one_of_the_good_kinds(line: str) -> None:
    with pytest.raises(MessageError):
        encode(AccessGrantRequested(site=SiteName("s"), user="jane", password_hash=line))


def test_nobody_loads_cattrs_but_who_must_explain_what_is_wrong_with_a_message() -> None:
    code = (
        "import sys, deploykit\n"
        "from deploykit.messages import Notice\n"
        "frame = deploykit.encode(Notice(text='x'))\n"
        "deploykit.encode(Notice(text='x'), legacy=True)\n"
        "assert 'cattrs' not in sys.modules, 'encode'\n"
        "assert not {'stomp', 'dulwich', 'click', 'cryptography'} & set(sys.modules)\n"
        "deploykit.decode(frame.headers, frame.body)\n"
        "assert 'cattrs' not in sys.modules, 'decode'\n"
        "try:\n"
        "    deploykit.decode(frame.headers, frame.body.replace(b'\"x\"', b'1'))\n"
        "except deploykit.MessageError as error:\n"
        "    assert 'data.text' in str(error), error\n"
        "assert 'cattrs' in sys.modules, 'explain'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# -- headers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\x00b", "a:b", "a\\b", "\ud800", "x" * 9000, 5, None, b"x"])
def test_a_header_that_could_break_out_of_its_line_is_not_sent(value: Any) -> None:
    with pytest.raises(MessageError, match=r"cannot be sent|are longer"):
        sendable(Frame({"x": value}, b""))


@pytest.mark.parametrize("name", ["", "a:b", "a\nb", "a b", "ß", "x" * 65, "-x", 5, None, b"x"])
def test_threat_18_a_header_name_is_a_plain_word(name: Any) -> None:
    with pytest.raises(MessageError, match="cannot be sent"):
        sendable(Frame({name: "x"}, b""))


@pytest.mark.parametrize("name", ["message-id", "destination", "Content-Length", "receipt", "user-id", "timestamp"])
def test_threat_18_a_header_that_belongs_to_the_broker_is_not_set(name: str) -> None:
    with pytest.raises(MessageError, match="is reserved"):
        sendable(Frame({name: "x"}, b""))


def test_a_refused_header_does_not_show_its_value() -> None:
    with pytest.raises(MessageError) as caught:
        sendable(Frame({"x": "c4nary\n"}, b""))
    assert "c4nary" not in repr(caught.value)


# -- messages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", BY_TYPE.values(), ids=lambda c: c.__name__)
def test_message_classes_are_frozen_slotted_and_keyword_only(cls: type[Message]) -> None:
    assert all("__slots__" in vars(base) for base in cls.__mro__[:-1])
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


def test_the_summary_of_a_commit_without_a_message_ends_before_the_colon() -> None:
    told = push(pusher="ann")
    bare = attrs.evolve(told.commits[0], message="")
    assert attrs.evolve(told, commits=(bare,)).summary.endswith(" by ann")


def test_plain_shows_a_message_as_json_without_its_secrets() -> None:
    described = NodeDescribed(node=NodeName("n"), facts={"os": "debian"}, time=WHEN)
    shown = redact(described)
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


def test_what_is_younger_than_its_message_is_written_only_where_it_says_something() -> None:
    asked = request()
    assert b"evidence" not in encode(asked).body
    assert b"without_build" not in encode(asked).body
    evidence = (BuildEvidence(body="aGVsbG8=", signature="U1NI"),)
    full = attrs.evolve(asked, evidence=evidence, without_build=True)
    event = json.loads(encode(full).body)
    assert event["data"]["evidence"] == [{"body": "aGVsbG8=", "signature": "U1NI"}]
    assert event["data"]["without_build"] is True
    for message in (asked, full, attrs.evolve(asked, without_build=True), attrs.evolve(asked, evidence=evidence)):
        assert decode(NATIVE, encode(message).body) == message
    assert "without a build" in full.summary
    assert "without" not in asked.summary


@pytest.mark.parametrize("text", ["", "abc", "ab=c", "a b=", "aGVsbG8=\n", "é===", "A" * 87_388])
def test_what_is_no_base64_of_bounded_length_is_not_written(text: str) -> None:
    with pytest.raises(MessageError, match="base64"):
        encode(request(evidence=(BuildEvidence(body=text, signature="U1NI"),)))
    encode(request(evidence=(BuildEvidence(body="A" * 87_384, signature="U1NI"),)))
