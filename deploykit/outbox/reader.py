"""How the spool is read: in order, in flat memory, trusting nothing.

The directory is listed in rounds: each keeps only the next few thousand names, the smallest above the last one seen.
A file is checked whole (size, checksum) before the first of its records is yielded. A file that is not a record is
moved to `bad/` by a process that may, ignored by another, and logged once by each reader.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import io
import logging
import os
import stat
import zlib
from collections.abc import Generator, Iterator
from typing import BinaryIO, Final

from deploykit.errors import OutboxError
from deploykit.outbox import keys
from deploykit.outbox.directory import ASIDE, BAD, DEAD, STRANGE, Spool, aside_name, refused
from deploykit.outbox.format import (
    MAX_DEAD_ENVELOPE,
    MAX_ENVELOPE,
    MAX_FILE,
    Envelope,
    Malformed,
    RecordId,
    parse_envelope,
    parse_head,
)
from deploykit.outbox.marks import SUFFIXES, forget, settled_of
from deploykit.outbox.notes import Notes
from deploykit.outbox.record import Record, SetAside
from deploykit.wire.frame import Frame

_log = logging.getLogger(__name__)

ROUND: Final = 4096
_BLOCK: Final = 1 << 18
#: Seconds after which a temporary file has no writer any more (24 hours by the wall clock, which may be off by some).
_STALE: Final = 86_400.0
#: A name in `bad/` leaves room for a suffix.
_MAX_BAD_NAME: Final = 200
#: Errors of opening when this process or machine can open no file at all.
_NO_FILE_AT_ALL: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_OURS = frozenset({DEAD, BAD, "lost+found", ".wake", ".relay.lock"})
_NO_NOTES: Final = Notes()


def waiting(path: str, notes: Notes, *, everyone: bool | None) -> Generator[Record, None, None]:
    """Yield waiting records in order; see `Outbox.pending`. A file that cannot be read is passed over."""
    unreadable: set[str] = set()
    with Spool(path, "read") as spool:
        all_users = spool.settles_all if everyone is None else everyone
        only_uid = None if all_users else os.geteuid()
        last = ""
        while True:
            try:
                names, last_round = _next_names(spool, last, notes)
            except OSError as error:
                raise refused("read", path, error) from error
            for name in names:
                try:
                    yield from read_file(spool, spool.fd, name, only_uid=only_uid, notes=notes)
                except Malformed as problem:
                    put_aside(spool, name, str(problem), notes)
                except OSError as error:
                    _pass_over(spool, name, error, notes)
                    unreadable.add(name)
            if last_round:
                notes.unreadable = frozenset(unreadable)
                return
            last = names[-1]


def _pass_over(spool: Spool, name: str, error: OSError, notes: Notes) -> None:
    """Log a file that cannot be read, and leave it for a later pass: it may be good, and holds up no other.

    Raises:
        OutboxError: this process or machine can open no file at all.
    """
    if error.errno in _NO_FILE_AT_ALL:
        raise refused("read", spool.path, error) from error
    if notes.first_time(name):
        _log.error("spool %s: %s cannot be read, will try again: %s", spool.path, ascii(name), error.strerror)


def _next_names(spool: Spool, last: str, notes: Notes) -> tuple[list[str], bool]:
    """Return the next record files after `last`, and whether these are all. The first round tidies other entries."""
    others: list[str] = []
    with os.scandir(spool.fd) as entries:
        names = heapq.nsmallest(ROUND, _record_names((e.name for e in entries), last, others))
    if not last and spool.settles_all:
        for name in others:
            try:
                _look_at(spool, name, notes)
            except OSError:
                _log.debug("spool %s: %s is left alone", spool.path, ascii(name), exc_info=True)
    return names, len(names) < ROUND


def _record_names(names: Iterator[str], last: str, others: list[str]) -> Iterator[str]:
    for name in names:
        if keys.is_record_name(name):
            if name > last:
                yield name
        elif name not in _OURS and not name.startswith(ASIDE) and len(others) < ROUND:
            others.append(name)


def _look_at(spool: Spool, name: str, notes: Notes) -> None:
    """Remove stale temporary files and marks without a file; set aside what has no name of ours."""
    try:
        found = os.stat(name, dir_fd=spool.fd, follow_symlinks=False)
        if name.startswith(".clock-"):
            if not stat.S_ISLNK(found.st_mode):
                spool.clear(name)
        elif name.startswith((".relay-", ".wake-")):
            user = name.removeprefix(".relay-").removeprefix(".wake-").removesuffix(".lock")
            if not (spool.trusts(found.st_uid) or user == str(found.st_uid)):
                spool.clear(name)  # that user's relay needs the name, and may not remove the file
        elif name.startswith(".tmp-"):
            import time

            if time.time() - found.st_mtime > _STALE:
                spool.clear(name)
        elif name.endswith(SUFFIXES) and keys.is_stem(name[:-5]):
            try:
                os.stat(name[:-5] + keys.SUFFIX, dir_fd=spool.fd, follow_symlinks=False)
            except FileNotFoundError:
                spool.clear(name)
        else:
            put_aside(spool, name, "not the name of a record", notes)
    except FileNotFoundError:
        return


def put_aside(spool: Spool, name: str, reason: str, notes: Notes) -> SetAside:
    """Move a file that is not a record to `bad/`, or rename it where it cannot be moved; log it once."""
    moved, where = False, ""
    try:
        where = _move_to_bad(spool, name)
        moved = True
    except FileNotFoundError:
        return SetAside(name=name, reason=reason, moved=False)
    except OSError as error:
        problem = error.strerror
        if spool.settles_all:
            with contextlib.suppress(OSError):  # a stranger's directory can be renamed, not moved
                where = aside_name()
                os.rename(name, where, src_dir_fd=spool.fd, dst_dir_fd=spool.fd)
                moved = True
    if moved:
        _log.warning("spool %s: %s is set aside as %s: %s", spool.path, ascii(name), where, reason)
    elif notes.first_time(name):
        _log.warning("spool %s: %s is ignored: %s (cannot move it: %s)", spool.path, ascii(name), reason, problem)
    return SetAside(name=name, reason=reason, moved=moved)


def _move_to_bad(spool: Spool, name: str) -> str:
    bad = spool.folder(BAD)
    try:
        new = name
        with contextlib.suppress(FileNotFoundError):
            os.stat(name, dir_fd=bad, follow_symlinks=False)
            new = os.fsdecode(os.fsencode(name)[:_MAX_BAD_NAME]) + "." + os.urandom(4).hex()
        os.rename(name, new, src_dir_fd=spool.fd, dst_dir_fd=bad)
    finally:
        os.close(bad)
    return f"{BAD}/{ascii(new)[1:-1]}"


# -- one file --------------------------------------------------------------------------------------------------------


def read_file(
    spool: Spool, folder: int, name: str, *, only_uid: int | None = None, notes: Notes = _NO_NOTES
) -> Iterator[Record]:
    """Yield the records of one file that are not settled yet; nothing if it is gone or not `only_uid`'s.

    Raises:
        Malformed: it is no record file; what was yielded before is good.
        OSError: it cannot be read, and may be good.
    """
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return
    except OSError as error:
        if only_uid is not None:
            return  # another user's
        if error.errno not in STRANGE:
            raise  # the machine failed, not the file: a good record must not be set aside
        raise Malformed("a symbolic link" if error.errno == errno.ELOOP else f"cannot be opened: {error}") from None
    try:
        found = os.fstat(fd)
        if only_uid is not None and found.st_uid != only_uid:
            os.close(fd)
            return
        _check_kind(spool, found)
    except Malformed:
        os.close(fd)
        raise
    with os.fdopen(fd, "rb", buffering=1 << 16) as file:
        records = _verify(file, found.st_size)
        stem = name.removesuffix(keys.SUFFIX)
        waits = folder == spool.fd
        settled = settled_of(spool, stem, records, found.st_uid, notes) if records > 1 and waits else b""
        if records > 1 and settled == b"x" * records:
            _finish(spool, stem)
            return
        for number in range(1, records + 1):
            envelope = _envelope(file, MAX_ENVELOPE if waits else MAX_DEAD_ENVELOPE)
            if settled[number - 1 : number] == b"x":
                file.seek(envelope.body + 1, io.SEEK_CUR)
                continue
            body = file.read(envelope.body)
            if len(body) != envelope.body or file.read(1) != b"\n":
                raise Malformed("a record is cut off")
            yield Record(
                id=RecordId(f"{stem}.{number}" if waits else stem),
                destination=envelope.destination,
                frame=Frame(envelope.headers, body),
                uid=found.st_uid,
                queued=found.st_mtime,
                number=number,
                of=records,
                state="waiting" if waits else "dead",
                reason=envelope.reason,
                dead_since=envelope.dead_since,
            )
        if file.read(1):
            raise Malformed("it holds more than its records")


def _finish(spool: Spool, stem: str) -> None:
    """Remove a file whose records are all settled: the process that settled the last one was cut off."""
    spool.remove(stem + keys.SUFFIX)
    forget(spool, stem)


def _check_kind(spool: Spool, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise Malformed("not a plain file")
    if found.st_nlink != 1:
        # A hard link to another user's file would make the relay send what its maker may not read.
        raise Malformed("a file with more than one name")
    if found.st_size > MAX_FILE:
        raise Malformed(f"too big: {found.st_size} bytes")
    if found.st_mode & 0o002:
        raise Malformed("writable by others")
    if spool.shared:
        if found.st_gid != spool.gid:
            raise Malformed("it belongs to another group than the spool")
    elif not spool.trusts(found.st_uid):
        raise Malformed("it belongs to another user than the spool")


def _verify(file: BinaryIO, size: int) -> int:
    """Check size and checksum; leave `file` at the first record; return how many there are."""
    head = parse_head(file.read(128))
    if head.length + head.size != size:
        raise Malformed(f"it should hold {head.length + head.size} bytes, it holds {size}")
    file.seek(head.length)
    checksum = 0
    while block := file.read(_BLOCK):
        checksum = zlib.crc32(block, checksum)
    if checksum != head.crc32:
        raise Malformed("its checksum is wrong")
    file.seek(head.length)
    return head.records


def _envelope(file: BinaryIO, limit: int) -> Envelope:
    line = file.readline(limit + 1)
    if not line.endswith(b"\n"):
        raise Malformed("a record's JSON line is cut off or too long")
    return parse_envelope(line)


# -- dead letters, bad files, one by its id --------------------------------------------------------------------------


def dead(path: str) -> Iterator[Record]:
    """Yield the dead letters, oldest first."""
    with Spool(path, "read") as spool:
        folder = _folder(spool, DEAD)
        if folder is None:
            return
        try:
            for name in _names_in(folder):
                if not keys.is_dead_name(name):
                    continue
                try:
                    yield from read_file(spool, folder, name)
                except (Malformed, OSError) as problem:
                    _log.warning("spool %s: %s/%s is ignored: %s", spool.path, DEAD, ascii(name), problem)
        finally:
            os.close(folder)


def in_bad(path: str) -> Iterator[SetAside]:
    """Yield the files in `bad/`."""
    with Spool(path, "read") as spool:
        folder = _folder(spool, BAD)
        if folder is None:
            return
        try:
            for name in _names_in(folder):
                yield SetAside(name=name, reason=_why_bad(spool, folder, name), moved=True)
        finally:
            os.close(folder)


def _names_in(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries)


def _why_bad(spool: Spool, folder: int, name: str) -> str:
    try:
        for _ in read_file(spool, folder, name):
            pass
    except (Malformed, OSError) as problem:
        return str(problem)
    return "readable, but its name is not the name of a record"


def _folder(spool: Spool, name: str) -> int | None:
    try:
        return spool.folder(name)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutboxError(
            f"cannot read {name}/ in spool {spool.path}: {error}", "run as the owner of the spool"
        ) from error


def find(path: str, record_id: str) -> Record:
    """Return the record with this id, or the only one whose id starts or ends with it."""
    found: list[Record] = []
    for source in (waiting(path, Notes(), everyone=True), dead(path)):
        for record in source:
            if record.id == record_id:
                return record
            if len(found) < 2 and record_id and (record.id.startswith(record_id) or record.id.endswith(record_id)):
                found.append(record)
    if not found:
        raise OutboxError(f"no record {record_id!a} in spool {path}", "see `deploykit outbox list`")
    if len(found) > 1:
        raise OutboxError(f"{record_id!a} matches more than one record", "give more of the id")
    return found[0]
