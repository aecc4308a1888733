"""Whether a sequence of audit lines, over several files, is what was written. Pure.

Found are lines that were changed, removed, moved, inserted or cut off, given that whoever did it did not compute all
hashes behind it anew. Against that, and against a cut tail, helps a head that was noted elsewhere.

Rules:

* Records that the rotation removed are no fault: the first record of each new file says from where on records are kept.
* An incomplete last line is no fault, unless a head says that it was complete: it is a write that a crash cut off.
* Confirmed records that were lost, as the log itself recorded, stay a fault as long as that record is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import attrs

from deploykit.audit.record import START, AuditHead, AuditRecord, BadRecord, parse_record

#: The log's own records, whose actor is `deploykit`.
ROTATED: Final = "audit.rotated"
TORN: Final = "audit.torn"
DAMAGED: Final = "audit.damaged"
SELF: Final = "deploykit"
#: The detail of `ROTATED`: the number of the oldest record that is kept.
OLDEST: Final = "oldest"


@attrs.frozen(kw_only=True, slots=True)
class ChainFault:
    """The first thing that is wrong.

    Args:
        file: the file's name.
        line: its line, from 1; 0 where no line is meant.
        problem: what is wrong.
    """

    file: str
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.file}{f', line {self.line}' if self.line else ''}: {self.problem}"


@attrs.frozen(kw_only=True, slots=True)
class ChainReport:
    """What a look at the whole chain found.

    Args:
        records: how many records are sound, up to the fault.
        first: the number of the first record; 0 without records.
        last: the head of the last sound record.
        fault: the first thing that is wrong; None if all is well.
        notes: what a person should know, and is no fault.
    """

    records: int
    first: int
    last: AuditHead
    fault: ChainFault | None
    notes: tuple[str, ...]


def verify_chain(
    files: Iterable[tuple[str, Iterable[bytes]]], *, head: AuditHead | None = None, noted: AuditHead | None = None
) -> ChainReport:
    """Return whether the lines are a whole chain.

    Args:
        files: name and lines (each with its newline) of each file, oldest first.
        head: what the log's own head file says was written last; read before the files were.
        noted: a head that was noted elsewhere.

    Raises:
        AuditError: a newer deploykit wrote it.
    """
    return _Walk(head, noted).run(files)


class _Broken(Exception):
    pass


class _Walk:
    """Goes through the lines once."""

    def __init__(self, head: AuditHead | None, noted: AuditHead | None) -> None:
        self._heads = [(head, "the head file"), (noted, "the head that was noted")]
        self._head = head
        self._last = START
        self._first = self._count = 0
        self._oldest: AuditRecord | None = None  # the newest record of a rotation
        self._notes: list[str] = []

    def run(self, files: Iterable[tuple[str, Iterable[bytes]]]) -> ChainReport:
        fault: ChainFault | None = None
        name, number, first_file = "the log", 0, ""
        try:
            for name, lines in files:
                first_file = first_file or name
                number = 0
                for number, line in enumerate(lines, 1):
                    if not line.endswith(b"\n"):
                        self._notes.append(
                            f"{name}, line {number}: incomplete, being written or cut off by a crash; "
                            "the next record sets it aside"
                        )
                        continue
                    self._look_at(line)
            number = 0
            self._at_the_end()
        except _Broken as broken:
            fault = ChainFault(file=name, line=number, problem=str(broken))
        if fault is None and (missing := self._missing()):
            fault = ChainFault(file=first_file, line=1, problem=missing)
        return ChainReport(
            records=self._count, first=self._first, last=self._last, fault=fault, notes=tuple(self._notes)
        )

    def _look_at(self, line: bytes) -> None:
        try:
            record = parse_record(line)
        except BadRecord as bad:
            raise _Broken(str(bad)) from None
        if self._count:
            self._follows(record)
        else:
            self._first = record.sequence
            if record.sequence == 1 and record.previous != START.hash:
                raise _Broken("record 1 names a record before it")
        for head, whose in self._heads:
            if head is not None and head.sequence == record.sequence and head.hash != record.hash:
                raise _Broken(f"record {record.sequence} is not the one that {whose} names: it was replaced")
        self._last = record.head
        self._count += 1
        if record.actor != SELF:
            return
        if record.action == DAMAGED:
            raise _Broken(f"confirmed records were lost before record {record.sequence}: {record.reason}")
        if record.action == TORN:
            self._notes.append(f"record {record.sequence}: {record.reason}")
        if record.action == ROTATED:
            self._oldest = record

    def _follows(self, record: AuditRecord) -> None:
        expected = self._last.sequence + 1
        if record.sequence > expected:
            gap = f"record {expected} is" if record.sequence == expected + 1 else f"records {expected} to "
            gap += "" if record.sequence == expected + 1 else f"{record.sequence - 1} are"
            raise _Broken(f"{gap} missing before record {record.sequence}: removed, or moved elsewhere")
        if record.sequence < expected:
            raise _Broken(f"record {record.sequence} stands behind record {self._last.sequence}: moved or inserted")
        if record.previous != self._last.hash:
            raise _Broken(f"record {record.sequence} does not follow the record before it: one of them was replaced")

    def _at_the_end(self) -> None:
        for head, whose in self._heads:
            if head is None:
                continue
            if head.sequence > self._last.sequence:
                raise _Broken(
                    f"it ends with record {self._last.sequence}, but {whose} says that record {head.sequence} was "
                    "written: the end was cut off"
                )
            if head.sequence and head.sequence < self._first and head is not self._head:
                raise _Broken(f"record {head.sequence}, which was noted, is not kept any more: it cannot be compared")
        if self._head is None and self._count:
            self._notes.append("there is no head file: records that were removed from the end cannot be seen")

    def _missing(self) -> str:
        """Return what is wrong with the beginning: only the rotation removes records, and says from where on."""
        if not self._count or self._first == 1:
            return ""
        kept = self._oldest.details.get(OLDEST, "") if self._oldest is not None else "1"
        oldest = int(kept) if kept.isascii() and kept.isdigit() and len(kept) < 20 else 1
        if self._first <= oldest:
            self._notes.append(f"it begins with record {self._first}; older ones were removed by rotation")
            return ""
        return f"it begins with record {self._first}, but records from {oldest} on should be there: a file was removed"
