"""Which records of a larger file are settled: `<stem>.done`.

A version line, then one byte for each record: `x` when it is settled. Marks of other processes are kept, since each
byte is written alone and in place. A lost mark costs a second delivery, never a message: no fsync.
Only marks by the writer of the records, the spool's owner or root count: a stranger's would be a way to drop records.
"""

from __future__ import annotations

import os
import stat

from deploykit.outbox.directory import Spool

_MAGIC = b"deploykit-done 1\n"
SUFFIX = ".done"


def marks_name(stem: str) -> str:
    """The marks' file for record file `stem`."""
    return stem + SUFFIX


def read_marks(spool: Spool, stem: str, records: int, writer: int) -> bytes:
    """Return one byte per record, `x` for settled; empty when there are no marks that count."""
    try:
        fd = os.open(marks_name(stem), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=spool.fd)
    except OSError:
        return b""
    try:
        if not _counts(spool, fd, writer):
            return b""
        data = os.pread(fd, len(_MAGIC) + records, 0)
    finally:
        os.close(fd)
    return data[len(_MAGIC) :] if data.startswith(_MAGIC) else b""


def mark(spool: Spool, stem: str, number: int, records: int, writer: int) -> bool:
    """Mark record `number` settled; tell whether all are.

    Raises:
        OSError: it cannot be marked.
    """
    name = marks_name(stem)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, 0o640, dir_fd=spool.fd)
        if not _counts(spool, fd, writer):
            os.close(fd)
            raise PermissionError(1, f"{name} is somebody else's")
    except OSError:
        if not spool.settles_all:
            raise
        os.unlink(name, dir_fd=spool.fd)
        fd = os.open(name, flags | os.O_EXCL, 0o640, dir_fd=spool.fd)
    try:
        os.pwrite(fd, _MAGIC, 0)
        os.pwrite(fd, b"x", len(_MAGIC) + number - 1)
        return os.pread(fd, records, len(_MAGIC)) == b"x" * records
    finally:
        os.close(fd)


def _counts(spool: Spool, fd: int, writer: int) -> bool:
    found = os.fstat(fd)
    return stat.S_ISREG(found.st_mode) and (found.st_uid == writer or spool.trusts(found.st_uid))
