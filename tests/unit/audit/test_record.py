"""A record's line: it comes back as it was written, and no text in it can do harm."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.audit.record import (
    MAX_LINE,
    START,
    AuditEntry,
    AuditHead,
    BadRecord,
    encode_record,
    parse_record,
)
from deploykit.errors import AuditError

NOW = datetime(2026, 1, 31, 12, 0, 0, 5000, UTC)
ENTRY = AuditEntry(actor="ops", action="deploy", target="shop", decision="denied", reason="no grant")


def test_a_line_comes_back_as_it_was_written() -> None:
    entry = AuditEntry(
        actor="ops@example.org",
        action="deploy",
        target="shop",
        decision="allowed",
        reason="granted",
        request="r1",
        correlation_id="c1",
        details={"ref": "refs/tags/v1"},
    )
    line, head = encode_record(START, NOW, entry)
    record = parse_record(line)
    assert (record.head, record.previous, record.time) == (head, "0" * 64, NOW)
    assert (record.actor, record.action, record.target, record.decision) == (
        "ops@example.org",
        "deploy",
        "shop",
        "allowed",
    )
    assert (record.reason, record.request, record.correlation_id) == ("granted", "r1", "c1")
    assert record.details == {"ref": "refs/tags/v1"}


@given(st.text(), st.dictionaries(st.text(), st.text()))
def test_threat_40_no_text_can_forge_a_line_or_reach_a_terminal(text: str, details: dict[str, str]) -> None:
    line, _ = encode_record(
        START,
        NOW,
        AuditEntry(actor=text, action=text, target=text, decision="denied", reason=text, request=text, details=details),
    )
    assert line.endswith(b"\n")
    assert all(0x20 <= byte < 0x7F for byte in line[:-1])
    assert parse_record(line).actor == (text if len(text) <= 500 else text[:499] + "…")


def test_the_longest_texts_fit_a_line() -> None:
    worst = "\U0001f4a3" * 10_000
    entry = AuditEntry(
        actor=worst,
        action=worst,
        target=worst,
        decision="denied",
        reason=worst,
        request=worst,
        correlation_id=worst,
        details={f"{n:03}{worst}": worst for n in range(100)},
    )
    line, _ = encode_record(START, NOW, entry)
    assert len(line) <= MAX_LINE
    record = parse_record(line)
    assert record.reason.endswith("…")
    assert len(record.details) == 24


@given(st.data())
def test_threat_40_any_changed_byte_of_a_line_is_found(data: st.DataObject) -> None:
    line, _ = encode_record(START, NOW, ENTRY)
    at = data.draw(st.integers(0, len(line) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != line[at]))
    with pytest.raises(BadRecord):
        parse_record(line[:at] + bytes([byte]) + line[at + 1 :])


@pytest.mark.parametrize("line", [b"", b"\n", b"{}\n", b"[]\n", b"x" * 500 + b"\n"])
def test_what_is_no_record_is_refused(line: bytes) -> None:
    with pytest.raises(BadRecord):
        parse_record(line)


def rewritten(old: bytes, new: bytes) -> bytes:
    """A line that was edited, with a hash that fits."""
    line, _ = encode_record(START, NOW, ENTRY)
    covered = line[: line.index(b',"hash"')]
    assert old in covered
    covered = covered.replace(old, new)
    return covered + b',"hash":"' + hashlib.sha256(covered).hexdigest().encode() + b'"}\n'


def test_a_newer_format_is_not_guessed_at() -> None:
    with pytest.raises(AuditError, match="format version 2"):
        parse_record(rewritten(b'"v":1', b'"v":2'))


def test_a_time_without_a_zone_is_no_record() -> None:
    when = json.loads(encode_record(START, NOW, ENTRY)[0])["time"].encode()
    assert parse_record(rewritten(when, when)).time == NOW
    with pytest.raises(BadRecord):
        parse_record(rewritten(when, when.removesuffix(b"Z")))


def test_a_head_is_read_as_it_is_shown() -> None:
    head = AuditHead(sequence=7, hash="ab" * 32)
    assert AuditHead.parse(f" {head}\n") == head
    for text in ("", "7", "7:abc", "x:" + "ab" * 32, "7:" + "AB" * 32):
        with pytest.raises(BadRecord):
            AuditHead.parse(text)
