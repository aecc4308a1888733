"""A chain of lines over several files: whatever is done to it is found, and what the log itself does is no fault."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.audit.chain import DAMAGED, OLDEST, ROTATED, SELF, TORN, ChainReport, verify_chain
from deploykit.audit.record import START, AuditEntry, AuditHead, encode_record

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def chain(number: int, before: AuditHead = START, *first: AuditEntry) -> tuple[list[bytes], AuditHead]:
    """So many lines behind `before`, the first of them `first`, and the last one's head."""
    lines = []
    for n in range(number):
        plain = AuditEntry(actor="ops", action="deploy", target="shop", decision="denied", reason=f"reason {n}")
        line, before = encode_record(before, NOW, first[n] if n < len(first) else plain)
        lines.append(line)
    return lines, before


LINES, HEAD = chain(8)


def look(lines: list[bytes], head: AuditHead | None = HEAD, noted: AuditHead | None = None) -> ChainReport:
    """Look at lines in two files."""
    return verify_chain([("audit.log.000000000001", lines[:3]), ("audit.log", lines[3:])], head=head, noted=noted)


def own(action: str, **details: str) -> AuditEntry:
    return AuditEntry(actor=SELF, action=action, target="audit", decision="allowed", reason="why", details=details)


def test_a_whole_chain_is_whole() -> None:
    report = look(LINES)
    assert (report.fault, report.notes, report.records, report.first, report.last) == (None, (), 8, 1, HEAD)


@given(st.data())
def test_threat_40_any_changed_byte_is_found(data: st.DataObject) -> None:
    lines = list(LINES)
    number = data.draw(st.integers(0, len(lines) - 1))
    line = lines[number]
    at = data.draw(st.integers(0, len(line) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != line[at]))
    raw = b"".join([*lines[:number], line[:at] + bytes([byte]) + line[at + 1 :], *lines[number + 1 :]])
    report = verify_chain([("audit.log", raw.splitlines(keepends=True))], head=HEAD)
    assert report.fault is not None
    assert report.records <= number


@given(st.integers(0, 7))
def test_threat_40_any_removed_line_is_found(number: int) -> None:
    report = look([*LINES[:number], *LINES[number + 1 :]])
    assert report.fault is not None


@given(st.permutations(range(8)))
def test_threat_40_any_other_order_is_found(order: list[int]) -> None:
    report = look([LINES[n] for n in order])
    assert (report.fault is None) == (order == sorted(order))


@given(st.integers(0, 8), st.integers(0, 7), st.booleans())
def test_threat_40_any_inserted_line_is_found(at: int, which: int, foreign: bool) -> None:
    other, _ = chain(8, START, AuditEntry(actor="eve", action="x", target="x", decision="allowed"))
    line = (other if foreign else LINES)[which]
    assert look([*LINES[:at], line, *LINES[at:]]).fault is not None


@given(st.integers(0, 7))
def test_threat_40_a_cut_off_end_is_found_by_the_head(left: int) -> None:
    report = look(LINES[:left])
    assert report.fault is not None
    assert "cut off" in report.fault.problem
    assert (look(LINES[:left], head=None).fault is None) == (left > 0 or True)


@given(st.binary(min_size=1).filter(lambda junk: b"\n" not in junk))
def test_an_incomplete_last_line_is_no_fault_unless_it_was_confirmed(junk: bytes) -> None:
    report = look([*LINES, junk])
    assert (report.fault, report.last) == (None, HEAD)
    assert "incomplete" in report.notes[0]
    assert look([*LINES[:-1], LINES[-1][:-1]]).fault is not None


def test_threat_40_a_chain_that_was_computed_anew_is_found_by_a_head_noted_elsewhere() -> None:
    forged, forged_head = chain(8, START, AuditEntry(actor="eve", action="x", target="x", decision="allowed"))
    assert look(forged, forged_head).fault is None
    report = look(forged, forged_head, noted=HEAD)
    assert report.fault is not None
    assert "replaced" in report.fault.problem
    longer, end = chain(3, HEAD)
    assert look([*LINES, *longer], end, noted=HEAD).fault is None
    assert look(LINES[:5], None, noted=HEAD).fault is not None


def test_a_head_that_is_older_than_the_log_is_a_power_cut() -> None:
    longer, _ = chain(3, HEAD)
    assert look([*LINES, *longer]).fault is None


def test_a_file_that_the_rotation_removed_is_no_fault_and_another_one_is() -> None:
    second, head = chain(4, HEAD, own(ROTATED, **{OLDEST: "1"}))
    third, end = chain(4, head, own(ROTATED, **{OLDEST: str(HEAD.sequence + 1)}))
    files = [("a", LINES), ("b", second), ("c", third)]
    assert verify_chain(files, head=end).fault is None
    report = verify_chain(files[1:], head=end)
    assert report.fault is None
    assert "rotation" in report.notes[0]
    gone = verify_chain(files[2:], head=end).fault
    assert gone is not None
    assert "a file was removed" in gone.problem
    middle = verify_chain([files[0], files[2]], head=end).fault
    assert middle is not None
    assert "missing" in middle.problem


def test_a_noted_head_that_is_not_kept_any_more_cannot_be_compared() -> None:
    second, end = chain(4, HEAD, own(ROTATED, **{OLDEST: str(HEAD.sequence + 1)}))
    fault = verify_chain([("b", second)], head=end, noted=AuditHead(sequence=2, hash="ab" * 32)).fault
    assert fault is not None
    assert "not kept" in fault.problem


@pytest.mark.parametrize(("action", "fault"), [(TORN, False), (DAMAGED, True)])
def test_what_the_log_recorded_of_itself_is_shown(action: str, fault: bool) -> None:
    more, end = chain(2, HEAD, own(action))
    report = look([*LINES, *more], end)
    assert (report.fault is not None) == fault
    assert bool(report.notes) == (not fault)
    nothing = AuditEntry(actor="eve", action=action, target="audit", decision="allowed")
    more, end = chain(2, HEAD, nothing)
    assert look([*LINES, *more], end).notes == (), "an actor who is called so in a message has no such power"


def test_the_fault_names_file_line_and_what_is_wrong() -> None:
    lines = list(LINES)
    lines[4] = lines[4].replace(b"shop", b"shap")
    fault = look(lines).fault
    assert str(fault) == "audit.log, line 2: it does not match its own hash: it was changed, or never was a record"
    assert "record 3 is missing" in str(look([*LINES[:2], *LINES[3:]]).fault)
    assert "records 3 to 4 are missing" in str(look([*LINES[:2], *LINES[4:]]).fault)
