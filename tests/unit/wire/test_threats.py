"""Threats 18, 19, 31 and 33 on the wire. Each attack is tried twice: it fails, and with the defence taken out it works.

The second half is what makes the first worth something: a test that cannot fail protects nothing.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import deploykit
from deploykit.errors import MessageError
from deploykit.messages import Notice, RefUpdated
from deploykit.names import ObjectId, RefName, RepoName
from deploykit.wire import CONTENT_TYPE, Frame, codec, decode, encode, frame, quickreader, sendable, strictjson
from deploykit.wire.legacy import decoder as legacy_decoder
from deploykit.wire.legacy import encoder as legacy_encoder

MEGABYTE = 1024 * 1024
NATIVE = {"content-type": CONTENT_TYPE}


def event(data: str) -> bytes:
    head = (
        '{"specversion":"1.0","id":"1","source":"s","type":"deploykit.notice.v1","time":"2026-01-01T00:00:00Z","data":'
    )
    return (head + data + "}").encode()


def as_stomp_1_0(sent: Frame) -> bytes:
    """The frame as a STOMP 1.0 client writes it: no escaping."""
    lines = "".join(f"{k}:{v}\n" for k, v in sent.headers.items())
    return b"SEND\n" + lines.encode() + b"\n" + sent.body + b"\x00"


# -- 18: header injection ----------------------------------------------------------------------------------------------

EVIL = "x\r\nreceipt:stolen\r\n\r\nbody\x00SEND\ndestination:/queue/evil\n\n\x00"


def inject_by_a_header() -> bool:
    """A program sends a header it took from somewhere else; tell whether that made a header of its own."""
    try:
        return b"\nreceipt:stolen" in as_stomp_1_0(sendable(Frame({"note": EVIL}, b"")))
    except MessageError:
        return False


def inject_by_a_message() -> bool:
    """A hook tells of a push whose texts are hostile."""
    message = RefUpdated(
        repo=RepoName("shop"),
        ref=RefName("refs/heads/main"),
        old=ObjectId("1" * 40),
        new=ObjectId("2" * 40),
        pusher=EVIL,
        correlation_id="thread",
    )
    sent = (
        as_stomp_1_0(encode(message)).partition(b"\n\n")[0]
        + as_stomp_1_0(encode(message, legacy=True)).partition(b"\n\n")[0]
    )
    return b"\nreceipt" in sent


def inject_by_a_legacy_name() -> bool:
    """A program names a repository that nobody parsed, in the original's format, whose subject holds it."""
    message = RefUpdated(
        repo=RepoName(EVIL), ref=RefName("refs/heads/main"), old=ObjectId("1" * 40), new=ObjectId("2" * 40)
    )
    try:
        return b"\nreceipt:stolen" in as_stomp_1_0(encode(message, legacy=True))
    except MessageError:
        return False


@pytest.mark.parametrize("attack", [inject_by_a_header, inject_by_a_message, inject_by_a_legacy_name])
def test_threat_18_no_text_becomes_a_header(attack: Callable[[], bool]) -> None:
    assert not attack()


def test_threat_18_without_the_check_a_header_gets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "_unsafe", lambda _text: False)
    assert inject_by_a_header()


def test_threat_18_without_one_line_and_the_check_a_message_gets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RefUpdated, "summary", property(lambda self: self.pusher.replace(":", "")))
    with pytest.raises(MessageError):
        inject_by_a_message()  # the second line of defence
    monkeypatch.setattr(frame, "_unsafe", lambda _text: False)
    assert inject_by_a_message()


def test_threat_18_without_the_checks_a_legacy_name_gets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(legacy_encoder, "_checked", lambda _message: None)
    assert not inject_by_a_legacy_name()  # the second line of defence
    monkeypatch.setattr(frame, "_unsafe", lambda _text: False)
    assert inject_by_a_legacy_name()


# -- 19: size ----------------------------------------------------------------------------------------------------------


def read_a_huge_body() -> bool:
    """Tell whether a body over the limit is read."""
    return gets_through(event(json.dumps({"text": "x" * MEGABYTE})))


def read_a_huge_list() -> bool:
    """Tell whether a list over the limit is read."""
    return gets_through(event(json.dumps({"text": "x", "newer": [0] * 10_000})))


def gets_through(body: bytes) -> bool:
    try:
        return decode(NATIVE, body) is not None
    except MessageError:
        return False


def read_a_huge_list_of_ours() -> bool:
    """Tell whether a list over the limit is read where a list belongs."""
    commit = '{"id":"%s","author":"","time":"","message":""}' % ("1" * 40)
    push = '{"repo":"shop","ref":"refs/heads/x","old":"%s","new":"%s","commits":[%s]}'
    data = push % ("1" * 40, "2" * 40, ",".join([commit] * 1001))
    return gets_through(event(data).replace(b"deploykit.notice.v1", b"deploykit.source.ref-updated.v1"))


def read_a_huge_text_of_the_originals() -> bool:
    """Tell whether a text body over the limit is read."""
    try:
        return decode({"subject": "Talking to eventbot"}, b"x" * (MEGABYTE + 1), "") is not None
    except MessageError:
        return False


def test_threat_19_a_body_or_a_list_over_the_limit_is_not_read() -> None:
    assert not read_a_huge_body()
    assert not read_a_huge_list()
    assert not read_a_huge_list_of_ours()
    assert not read_a_huge_text_of_the_originals()


def test_threat_19_without_the_limits_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strictjson, "MAX_BODY", 2**30)
    assert read_a_huge_body()
    monkeypatch.setattr(strictjson, "MAX_ITEMS", 2**30)
    assert read_a_huge_list()
    monkeypatch.setattr(quickreader, "MAX_ITEMS", 2**30)
    assert read_a_huge_list_of_ours()
    monkeypatch.setattr(legacy_decoder, "MAX_BODY", 2**30)
    assert read_a_huge_text_of_the_originals()


def test_threat_19_what_is_refused_on_the_way_in_is_not_sent_either(monkeypatch: pytest.MonkeyPatch) -> None:
    huge = Notice(text="x" * MEGABYTE)
    with pytest.raises(MessageError, match="over the limit"):
        encode(huge)
    monkeypatch.setattr(codec, "MAX_BODY", 2**30)
    assert not gets_through(encode(huge).body)


# -- 31: formats that run code -----------------------------------------------------------------------------------------

DANGEROUS = {"pickle", "marshal", "shelve", "yaml", "dill", "jsonpickle"}
CALLS = {"eval", "exec", "compile", "__import__"}


def dangers(source: str) -> list[str]:
    """Name what in this source could make code of data."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.partition(".")[0] in DANGEROUS]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in DANGEROUS:
            found.append(node.module or "")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
            found.append(node.func.id)
    return found


def test_threat_31_nothing_on_the_way_in_can_run_data() -> None:
    package = Path(deploykit.__file__).parent
    files = [*package.glob("messages/*.py"), *package.glob("wire/*.py"), package / "names.py", package / "ids.py"]
    assert len(files) > 15
    assert {str(f): dangers(f.read_text()) for f in files if f.exists() and dangers(f.read_text())} == {}


@pytest.mark.parametrize("source", ["import yaml", "from pickle import loads", "eval('1')", "import marshal as m"])
def test_threat_31_the_scan_finds_what_it_looks_for(source: str) -> None:
    assert dangers(source)


# -- 33: JSON ----------------------------------------------------------------------------------------------------------

DEEP = event('{"text":"x","newer":' + "[" * 300 + "]" * 300 + "}")
NAN = event('{"text":"x","newer":NaN}')
INFINITE = event('{"text":"x","newer":1e999}')
TWICE = event('{"text":"harmless","text":"evil"}')
HALF = event('{"text":"\\ud800"}')


@pytest.mark.parametrize("body", [DEEP, NAN, INFINITE, TWICE, HALF], ids=["deep", "nan", "infinite", "twice", "half"])
def test_threat_33_json_with_two_meanings_or_none_is_refused(body: bytes) -> None:
    assert not gets_through(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[NaN]", b"[Infinity]", b"[-Infinity]", b"[1e999]", b"[-1e999]", b"[1" + b"0" * 400 + b"]",
        b'{"a":1,"a":1}', b'[{"a":[{"b":1,"\\u0062":2}]}]', b'["\\udc00"]', b'{"\\ud800":1}',
        b"[" * 65 + b"0," * 200 + b"[" * 200,
    ],
)  # fmt: skip
def test_threat_33_the_parser_alone_refuses_it_before_any_class_looks_at_it(body: bytes) -> None:
    with pytest.raises(MessageError, match=r"not acceptable JSON|nested deeper"):
        strictjson.parse(body)


def test_threat_33_depth_without_its_limits_gets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strictjson, "_too_deep", lambda _body: False)
    assert not gets_through(DEEP)  # the second line of defence
    monkeypatch.setattr(strictjson.within_limits, "__defaults__", (10_000,))
    assert gets_through(DEEP)


def test_threat_33_a_bomb_never_reaches_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[str] = []
    monkeypatch.setattr(strictjson, "_decode", reached.append)
    assert not gets_through(b"[" * 100_000)
    assert not gets_through(DEEP)
    assert reached == []
    monkeypatch.setattr(strictjson, "_too_deep", lambda _body: False)
    gets_through(DEEP)
    assert reached


@pytest.mark.parametrize(
    ("body", "also"),
    [(TWICE, ""), (NAN, "within_limits"), (INFINITE, "within_limits")],
    ids=["twice", "nan", "infinite"],
)
def test_threat_33_a_lax_parser_would_let_it_through(body: bytes, also: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strictjson, "_decode", json.loads)
    if also:
        assert not gets_through(body)  # the second line of defence
        monkeypatch.setattr("deploykit.wire.quickreader.within_limits", lambda _value: True)
    assert gets_through(body)


def test_threat_33_half_a_pair_gets_through_without_the_look_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strictjson, "_SURROGATE", lambda _body: None)
    assert gets_through(HALF)
