"""The first and the last record of one file of an audit log: where the chain goes on, and what the file begins with."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from deploykit.audit.chain import OLDEST, SELF
from deploykit.audit.files import lines_of
from deploykit.audit.record import MAX_LINE, AuditRecord, BadRecord, parse_record
from deploykit.errors import AuditError

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: Bytes of a file's end in which its last record is looked for: two lines, for the last one may be damaged.
_WINDOW: Final = 2 * MAX_LINE


def last_record(path: Path) -> tuple[int, bytes, AuditRecord | None]:
    """Return the last record of a file, the bytes up to its end, and what stands behind it.

    Raises:
        AuditError: there is no record in all of the file's end.
    """
    fd = os.open(path, _READ)
    try:
        size = os.fstat(fd).st_size
        start = max(0, size - _WINDOW)
        data = os.pread(fd, size - start, start)
    finally:
        os.close(fd)
    end = data.rfind(b"\n") + 1
    while end:
        begin = data.rfind(b"\n", 0, end - 1) + 1
        if not begin and start:
            break  # the beginning of this line was not read
        with contextlib.suppress(BadRecord):  # `verify` tells of it; here the last line that is a record counts
            return start + end, data[end:], parse_record(data[begin:end])
        end = begin
    if start:
        raise AuditError(
            f"the end of the audit log {path} holds no record",
            f"look with `deploykit audit verify`, then move all of {path.name}* to another directory",
        )
    return 0, data, None


def first_record(path: Path) -> AuditRecord | None:
    # What is no record is for `verify` to tell of.
    with contextlib.suppress(BadRecord), os.fdopen(os.open(path, _READ), "rb") as file:
        for line in lines_of(file):
            return parse_record(line)
    return None


def oldest_in(path: Path) -> int:
    """Return from which record on those are kept, as the first record of an older file says."""
    first = first_record(path)
    text = first.details.get(OLDEST, "") if first is not None and first.actor == SELF else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 1
