"""The wire on whatever hypothesis finds: every message comes back, and no bytes do more than be refused."""

from __future__ import annotations

import json
import pickle
import time
import tracemalloc
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from itertools import product
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deploykit.errors import MessageError
from deploykit.messages import BY_TYPE, Commit, Message, Notice, Unknown
from deploykit.names import ObjectId
from deploykit.testing import strategies
from deploykit.wire import CONTENT_TYPE, Frame, decode, encode, redact
from deploykit.wire.codec import TYPE_HEADER
from deploykit.wire.frame import sendable

NATIVE = {"content-type": CONTENT_TYPE}
LEGACY = {"content-type": "text/plain; charset=UTF-8", "subject": "[a] b c", "message-id": "1"}
CLASSES = [*BY_TYPE.values(), Unknown]

relaxed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def drawn(cls: type[Message]) -> st.SearchStrategy[Message]:
    return strategies.unknowns() if cls is Unknown else strategies.records(cls)


def read(headers: dict[str, str], body: bytes) -> Message | None:
    """Decode, and hold the promise: a message, None, or `MessageError` with a text that can be printed."""
    try:
        return decode(headers, body, "/topic/x")
    except MessageError as e:
        said = str(e)
    assert said.isprintable()
    assert len(said) < 1000
    return None


# -- every message comes back ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
@relaxed
@given(st.data())
def test_every_type_survives_the_wire(cls: type[Message], data: st.DataObject) -> None:
    message = data.draw(drawn(cls))
    frame = encode(message)
    assert decode(frame.headers, frame.body) == message
    sendable(frame)
    assert message.summary.isprintable()
    assert "\n" not in message.summary
    json.dumps(redact(message))


@relaxed
@given(strategies.messages())
def test_headers_are_safe_copies_and_the_body_counts(message: Message) -> None:
    frame = encode(message)
    assert decode(NATIVE, frame.body) == message
    assert not any(c in value for value in frame.headers.values() for c in "\r\n\x00:\\")
    event = json.loads(frame.body)
    if event["type"].isascii() and event["type"].isalnum():
        assert frame.headers[TYPE_HEADER] == event["type"]


@relaxed
@given(strategies.messages(), st.data())
def test_unknown_fields_survive_at_every_level(message: Message, data: st.DataObject) -> None:
    event = json.loads(encode(message).body)
    if isinstance(message, Unknown):
        return
    value = data.draw(strategies.json_values())
    event["data"]["x-newer"] = value
    for nested in ("commits", "steps", "sites", "refs"):
        for item in event["data"].get(nested, []):
            if isinstance(item, dict):
                item["x-newer"] = value
    event["xnewer"] = "kept"
    again = decode(NATIVE, json.dumps(event).encode())
    assert again is not None
    assert json.loads(encode(again).body) == event


#: What a program may put into a field by mistake.
WRONG: list[Any] = [
    *(
        None,
        True,
        0,
        -1,
        1.5,
        float("nan"),
        float("inf"),
        10**20,
        10**400,
        2**53,
        "",
        "x",
        "\ud800",
        "a\nb",
        b"x",
        object(),
    ),
    *([], {}, (), [[]], {1: 2}, {"x": object()}, ["x"] * 1001, ("x",), (None,), "x" * 256, set(), range(3), iter([])),
    datetime(2026, 1, 1),  # noqa: DTZ001
    datetime.max.replace(tzinfo=UTC),
    datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    Commit(id=1, author=2, time=3, message=4),  # type: ignore[arg-type]
    [Commit(id=ObjectId("1" * 40), author="", time="", message="", extra={"id": 1})],
]


def readable(frame: Frame) -> bool:
    try:
        return decode(frame.headers, frame.body) is not None
    except MessageError:
        return False


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_value_in_any_field_is_refused_or_written_so_that_it_can_be_read(
    cls: type[Message], data: st.DataObject
) -> None:
    message = data.draw(drawn(cls))
    for field, value in product(attrs.fields(cls), WRONG):
        for legacy in (False, True):
            with suppress(MessageError):
                frame = encode(attrs.evolve(message, **{field.name: value}), legacy=legacy)
                if not legacy:
                    assert readable(frame)


# -- no bytes do harm --------------------------------------------------------------------------------------------------


@relaxed
@given(st.binary(max_size=300))
@example(b"\xff\xfe{\x00}\x00")
@example(b'\xef\xbb\xbf{"specversion":"1.0"}')
def test_random_bytes_are_refused_or_read(body: bytes) -> None:
    read(NATIVE, body)
    read(LEGACY, body)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.messages(), st.data())
def test_damaged_bodies_are_refused_or_read(message: Message, data: st.DataObject) -> None:
    body = bytearray(encode(message).body)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        piece = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"{", b"]", b'"', b"\\", b"null", b"NaN", b"-", b"1e999"])
        )
        body[at : at + data.draw(st.integers(0, 3))] = piece
    found = read(NATIVE, bytes(body))
    if found is not None:
        assert decode(NATIVE, encode(found).body) == found


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.messages(), strategies.json_values(), st.data())
def test_any_value_in_any_place_is_refused_or_read(message: Message, value: Any, data: st.DataObject) -> None:
    event = json.loads(encode(message).body)
    place = event
    while True:
        key = (
            data.draw(st.sampled_from(sorted(place)))
            if isinstance(place, dict)
            else data.draw(st.integers(0, len(place) - 1))
        )
        if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        if data.draw(st.booleans()) and isinstance(place, dict):
            del place[key]
        else:
            place[key] = value
        break
    found = read(NATIVE, json.dumps(event).encode())
    if found is not None:
        assert decode(NATIVE, encode(found).body) == found


@relaxed
@given(st.text(max_size=200) | st.sampled_from(strategies.NAUGHTY), st.sampled_from(strategies.NAUGHTY))
def test_naughty_texts_are_refused_or_read(text: str, other: str) -> None:
    for body in (text, f"repo: {text}\nrefname: {other}\n", f"Site: {text}\nUser: {other}\nPassword: {text}\n"):
        read(LEGACY | {"subject": other}, body.encode("utf-8", "surrogatepass"))
    read({"content-type": other}, text.encode("utf-8", "surrogatepass"))
    assert decode(NATIVE, encode(Notice(text=other)).body).text == other  # type: ignore[union-attr]


KEYS = ["repo", "oldrev", "newrev", "refname", "revname", "Repo", "Status", "Site", "User", "Password", "x"]
VALUES = ["", "a", "0" * 40, "1" * 40, "refs/heads/x", "Success", "{}", "a_1_all.deb"]


@relaxed
@given(st.sampled_from([*KEYS, "package", "JSON", " Author", "Project", "Dirs", "URL"]), st.data())
def test_shuffled_legacy_lines_are_refused_or_read(first: str, data: st.DataObject) -> None:
    values = st.sampled_from(VALUES) | strategies.texts()
    lines = [(first, data.draw(values)), *data.draw(st.lists(st.tuples(st.sampled_from(KEYS), values), max_size=6))]
    read(LEGACY, "\n".join(f"{k}: {v}" for k, v in lines).encode())


# -- bombs -------------------------------------------------------------------------------------------------------------

MEGABYTE = 1024 * 1024


def wrapped(value: str, wire_type: str = "deploykit.notice.v1") -> bytes:
    head = f'{{"specversion":"1.0","id":"1","source":"s","type":"{wire_type}","time":"2026-01-01T00:00:00Z","data":'
    return (head + value + "}").encode()


def filled(piece: str, end: str = "") -> str:
    return piece * ((MEGABYTE - 300 - len(end)) // len(piece)) + end


BOMBS: dict[str, bytes] = {
    "brackets": b"[" * MEGABYTE,
    "objects": (b'{"a":' * MEGABYTE)[:MEGABYTE],
    "alternating": (b'[{"a":' * MEGABYTE)[:MEGABYTE],
    "closed": b"[" * (MEGABYTE // 2) + b"]" * (MEGABYTE // 2),
    "closers in texts": (b'["]",' * MEGABYTE)[:MEGABYTE],
    "quotes": b'"' * MEGABYTE,
    "escaped quotes": b'"' + b'\\"' * (MEGABYTE // 2 - 1),
    "backslashes": b'"' + b"\\" * (MEGABYTE - 1),
    "deep in an unknown field": wrapped('{"text":"x","x":' + "[" * 90_000 + "]" * 90_000 + "}"),
    "deep in a known field": wrapped('{"text":' + "[" * 90_000 + "]" * 90_000 + "}"),
    "deep in an unknown type": wrapped("[" * 90_000 + "]" * 90_000, "x"),
    "just too deep in an unknown type": wrapped("[" * 70 + "]" * 70, "x"),
    "wide unknown list": wrapped('{"text":"x","x":[' + filled("0,", "0]}")),
    "wide lists of lists": wrapped('{"text":"x","x":[' + filled("[],", "[]]}")),
    "wide objects": wrapped('{"text":"x","x":[' + filled('{"a":{}},', "{}]}")),
    "many commits": wrapped('{"commits":[' + filled("{},", "{}]}"), "deploykit.source.ref-updated.v1"),
    "many keys": wrapped("{" + ",".join(f'"{i:x}":0' for i in range(90_000)) + "}"),
    "same key": wrapped("{" + filled('"a":0,', '"a":0}')),
    "digits": wrapped("[" + filled("9", "]"), "x"),
    "long exponent": wrapped("[1e" + filled("9", "]"), "x"),
    "fractions": wrapped("[0." + filled("1", "]"), "x"),
    "escapes": wrapped('{"text":"' + filled("\\u0041", '"}')),
    "surrogate pairs": wrapped('{"text":"' + filled("\\ud83d\\ude00", '"}')),
    "half pairs": wrapped('{"text":"' + filled("\\ud83d", '"}')),
    "blanks": b" " * MEGABYTE,
    "long key": wrapped('{"' + filled("k", '":0}')),
    "long id": wrapped("{}").replace(b'"id":"1"', b'"id":"' + b"1" * 900_000 + b'"'),
    "long time": wrapped("{}").replace(b"00:00Z", b"00:00." + b"0" * 900_000 + b"Z"),
    "long source": wrapped("{}").replace(b'"source":"s"', b'"source":"' + b"%41" * 300_000 + b'"'),
    "over the limit": b"[" + b" " * MEGABYTE + b"]",
}
PUSH = f"repo: a\noldrev: {'1' * 40}\nnewrev: {'2' * 40}\nrefname: refs/heads/x\n".encode()
SVN = b"repo: a\nrevname: 1\n Author: a\n"
ID = b"3" * 40
LEGACY_BOMBS: dict[str, bytes] = {
    "lines": b"a\n" * (MEGABYTE // 2),
    "colons": b":" * MEGABYTE,
    "keys": b"repo: a\n" * (MEGABYTE // 8),
    "commits": PUSH + (b" commit " + ID + b"\nAuthor: a\nDate: d\n\tm\n\n") * 15_000,
    "almost a commit": PUSH + b" " + ID + b"\nAuthor: a\nDate:" + b" " * 900_000,
    "almost a web commit": PUSH + b" commit " + ID + b"\nAuthor:" + b" " * 900_000,
    "json line": PUSH + b"JSON: " + b"[" * 900_000,
    "svn dirs": SVN + b"\nDirs:\n" + b"a/trunk/\n" * 100_000,
    "svn projects": SVN + b"Project: p\n" * 90_000,
    "svn escapes": SVN + b"\nDirs:\n\n\n" + b"{U+00DF}" * 120_000,
    "url": b"Repo: a\nStatus: Success\nURL: http://" + b"/1" * 500_000,
    "not utf-8": b"\xff" * MEGABYTE,
}
ALL_BOMBS = [(NATIVE, k, v) for k, v in BOMBS.items()] + [(LEGACY, k, v) for k, v in LEGACY_BOMBS.items()]


@pytest.mark.parametrize(("headers", "body"), [(h, b) for h, _, b in ALL_BOMBS], ids=[k for _, k, _ in ALL_BOMBS])
def test_a_bomb_of_a_megabyte_costs_little_time_and_memory(headers: dict[str, str], body: bytes) -> None:
    read(headers, body)  # load what is loaded lazily
    start = time.process_time()
    read(headers, body)
    assert time.process_time() - start < 2.0
    tracemalloc.start()
    try:
        read(headers, body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 80 * MEGABYTE


def test_a_bomb_in_the_subject_costs_little_time() -> None:
    subject = "Fail job 1 - [" + "]a" * 4000 + "  x y z"
    start = time.process_time()
    read(LEGACY | {"subject": subject}, b"Repo: a\nStatus: Success\n")
    assert time.process_time() - start < 1.0


def test_a_bomb_in_the_content_type_costs_little_time() -> None:
    start = time.process_time()
    read({"content-type": CONTENT_TYPE + ";charset=" * 20_000}, b"{}")
    assert time.process_time() - start < 1.0


def test_a_pickle_and_a_yaml_tag_are_bytes_like_any_other() -> None:
    assert read(NATIVE, pickle.dumps({"a": 1})) is None
    assert read(NATIVE, b"!!python/object/apply:os.system ['true']") is None
