"""The files of one audit log: which there are, their lines, and the head file.

    audit.log                the records that are being written
    audit.log.000000000501   older records, named after the number of the first one
    audit.log.head           number and hash of the last record
    audit.log.lock           the writers' lock
    audit.log.torn           what the last crash left of a line

Rules:

* Whoever reads changes nothing and makes no file. The lock is taken for a moment, if it can be opened.
* A symbolic link in the place of a file is not followed.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from deploykit.audit.chain import ChainReport, verify_chain
from deploykit.audit.record import MAX_LINE, AuditHead, AuditRecord, BadRecord, parse_record
from deploykit.errors import AuditError, LockBusy
from deploykit.system.lock import lock_descriptor

_NUMBER: Final = re.compile(r"[0-9]{12,20}")
#: Seconds to wait for a writer before reading without its lock.
_WAIT: Final = 5.0
#: Bytes of a head file: a number with leading zeros, a colon, a hash and a newline.
HEAD_BYTES: Final = 20 + 1 + 64 + 1


def beside(path: Path, suffix: str) -> Path:
    """Return the path of a file that belongs to the log at `path`."""
    return path.with_name(f"{path.name}.{suffix}")


def head_line(head: AuditHead) -> bytes:
    """Return the content of a head file."""
    return b"%020d:%s\n" % (head.sequence, head.hash.encode())


def read_head(path: Path) -> AuditHead | None:
    """Return what the log's head file says; None where there is none, or it holds something else.

    Raises:
        AuditError: it cannot be read.
    """
    try:
        fd = os.open(beside(path, "head"), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise cannot("read", beside(path, "head"), error) from error
    try:
        text = os.read(fd, HEAD_BYTES + 1)
    finally:
        os.close(fd)
    with contextlib.suppress(BadRecord, UnicodeDecodeError):  # a torn head counts as none: the log says the same
        if len(text) == HEAD_BYTES:
            return AuditHead.parse(text.decode("ascii"))
    return None


def old_files(path: Path) -> list[Path]:
    """Return the files of older records, oldest first."""
    prefix = f"{path.name}."
    try:
        names = os.listdir(path.parent)  # noqa: PTH208 -- names are all that is needed
    except FileNotFoundError:
        return []
    numbered = [
        (int(number), name)
        for name in names
        if name.startswith(prefix) and _NUMBER.fullmatch(number := name[len(prefix) :])
    ]
    return [path.with_name(name) for _, name in sorted(numbered)]


def first_sequence(path: Path) -> int:
    """Return the number in the name of a file of older records."""
    return int(path.name.rpartition(".")[2])


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file, each with its newline. Of one that is too long its beginning, with a newline."""
    while line := file.readline(MAX_LINE + 1):
        if len(line) <= MAX_LINE:
            yield line
            continue
        while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
            pass
        yield line[:MAX_LINE] + b"\n"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[list[tuple[str, BinaryIO]]]:
    """Open all files of a log at one instant, oldest first, by their names.

    Raises:
        AuditError: there is no log, or a file cannot be read.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.ExitStack() as held:
            _try_lock(beside(path, "lock"), held)
            current = _open(path, stack)  # before the others: one that is rotated meanwhile is found twice, not lost
            seen = set() if current is None else {_identity(current)}
            files = []
            for old in old_files(path):
                file = _open(old, stack)
                if file is not None and _identity(file) not in seen:
                    files.append((old.name, file))
            if current is not None:
                files.append((path.name, current))
        if not files and read_head(path) is None:
            raise AuditError(f"there is no audit log at {path}", "start the agent, or correct `[audit] path`")
        yield files


def verify_files(path: Path, *, noted: AuditHead | None = None) -> ChainReport:
    """Verify the log at `path`; see `chain.verify_chain`.

    Args:
        noted: a head that was noted elsewhere.

    Raises:
        AuditError: it cannot be read, or a newer deploykit wrote it.
    """
    head = read_head(path)  # before the records: it may be older than they are, and never newer
    with opened(path) as files:
        return verify_chain(((name, _lines(name, file)) for name, file in files), head=head, noted=noted)


def read_records(path: Path) -> Iterator[AuditRecord | str]:
    """Yield the records at `path`, oldest first; for a line that is no record, a text that names it.

    Raises:
        AuditError: it cannot be read, or a newer deploykit wrote it.
    """
    with opened(path) as files:
        for name, file in files:
            for number, line in enumerate(_lines(name, file), 1):
                try:
                    yield parse_record(line)
                except BadRecord as bad:
                    yield f"{name}, line {number}: {bad}"


def cannot(what: str, path: Path, error: OSError) -> AuditError:
    """Return the error for a file that cannot be read or written, with the way out."""
    return AuditError(
        f"cannot {what} the audit log {path}: {error.strerror or error}",
        "free the disk, or correct the owner and mode of the file and its directory (`[audit] path`)",
    )


def _lines(name: str, file: BinaryIO) -> Iterable[bytes]:
    try:
        yield from lines_of(file)
    except OSError as error:
        raise cannot("read", Path(name), error) from error


def _try_lock(path: Path, held: contextlib.ExitStack) -> None:
    """Take the writers' lock, if it can be opened and is free soon. Without it the files may be read a moment apart."""
    with contextlib.suppress(OSError, LockBusy):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        held.callback(os.close, fd)
        lock_descriptor(fd, path, wait=_WAIT, busy=f"{path} is held by a writer")


def _open(path: Path, stack: contextlib.ExitStack) -> BinaryIO | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise cannot("read", path, error) from error
    return stack.enter_context(os.fdopen(fd, "rb"))


def _identity(file: BinaryIO) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino
