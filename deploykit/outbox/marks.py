"""Which records of a larger file are settled: `<stem>.done` by the spool's owner, `<stem>.mine` by their writer.

A version line, then one byte for each record: `x` when it is settled in either file. Each byte is written alone and in
place, so marks of several processes add up. A lost mark costs a second delivery, never a message: no fsync. Another
user's file does not count: it would be a way to drop records of others.
"""

from __future__ import annotations

import errno
import os
import stat

from deploykit.outbox.directory import STRANGE, Spool
from deploykit.outbox.notes import Notes

_MAGIC = b"deploykit-done 1\n"
#: Suffixes of a file of marks, after the stem of its records.
SUFFIXES = (".done", ".mine")
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_marks(spool: Spool, stem: str, records: int, writer: int) -> bytes:
    """Return one byte for each record, `x` for settled."""
    found = bytes(records)
    for suffix in SUFFIXES:
        try:
            fd = os.open(stem + suffix, os.O_RDONLY | _FLAGS, dir_fd=spool.fd)
        except OSError:
            continue  # not there, or not a file of marks
        try:
            data = os.pread(fd, len(_MAGIC) + records, 0) if _counts(spool, fd, suffix, writer) else b""
        finally:
            os.close(fd)
        if data.startswith(_MAGIC):
            found = _either(found, data[len(_MAGIC) :].ljust(records, b"\0"))
    return found


def settled_of(spool: Spool, stem: str, records: int, writer: int, notes: Notes) -> bytes:
    """Return one byte for each record, `x` for those that are marked or that this process remembers as settled."""
    marks, noted = read_marks(spool, stem, records, writer), notes.settled(stem)
    if not noted:
        return marks
    return bytes(ord("x") if number in noted else marks[number - 1] for number in range(1, records + 1))


def _either(one: bytes, other: bytes) -> bytes:
    """Return what is marked in either. As whole numbers: byte by byte, n records would cost n * n steps."""
    both = int.from_bytes(one, "big") | int.from_bytes(other, "big")
    return both.to_bytes(len(one), "big")


def mark(spool: Spool, stem: str, number: int, records: int, writer: int) -> bool:
    """Mark record `number` settled; return whether all are.

    Raises:
        OSError: it cannot be marked.
    """
    suffix = SUFFIXES[0] if spool.settles_all else SUFFIXES[1]
    fd = _open_own(spool, stem + suffix, suffix, writer)
    try:
        if os.pread(fd, len(_MAGIC), 0) != _MAGIC:  # new, or damaged
            try:
                _begin(spool, fd, suffix)
            except OSError:
                spool.remove(stem + suffix)  # on a full disk it would only take an inode
                raise
        os.pwrite(fd, b"x", len(_MAGIC) + number - 1)
    finally:
        os.close(fd)
    return read_marks(spool, stem, records, writer) == b"x" * records


def _begin(spool: Spool, fd: int, suffix: str) -> None:
    os.ftruncate(fd, 0)
    if spool.shared:
        os.fchmod(fd, 0o640)  # owner and writer read each other's marks
    if os.geteuid() == 0 and suffix == SUFFIXES[0]:
        os.fchown(fd, spool.owner, spool.gid)
    os.pwrite(fd, _MAGIC, 0)


def forget(spool: Spool, stem: str) -> None:
    """Remove the marks of a file that is gone, as far as this process may; the owner's reader removes the rest."""
    for suffix in SUFFIXES:
        spool.remove(stem + suffix)


def _open_own(spool: Spool, name: str, suffix: str, writer: int) -> int:
    for _ in (1, 2):
        try:
            fd = os.open(name, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600, dir_fd=spool.fd)
        except OSError as error:
            if error.errno not in STRANGE:
                raise
        else:
            if _counts(spool, fd, suffix, writer):
                return fd
            os.close(fd)
        spool.clear(name)
    raise PermissionError(errno.EPERM, f"{name} belongs to another user")


def _counts(spool: Spool, fd: int, suffix: str, writer: int) -> bool:
    found = os.fstat(fd)
    ours = spool.trusts(found.st_uid) if suffix == SUFFIXES[0] else found.st_uid == writer
    return stat.S_ISREG(found.st_mode) and ours and found.st_nlink == 1  # else a hard link
