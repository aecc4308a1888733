"""A journal as a file: one JSON object a line, appended and synced, read back up to where a crash cut it off.

Rules:

* The first line is the head: format, version, and what the rest is about. It is written whole or not at all.
* A record counts from the moment its line end is in the file. What stands after the last line end is a torn tail.
* A torn tail is left out by readers, and cut off by the next writer. Any other line that is no record is an error.
* One writer: flock on the file itself, which ends with the process. Readers need no lock.
* File mode 0600, directory mode 0700: commands and the names of people stand in it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import attrs

from deploykit.errors import JournalDamaged, LockBusy, RolloutBusy, RolloutError
from deploykit.system.durable import replace_file, sync_directory, write_all
from deploykit.system.lock import lock_descriptor

#: What the head says, for file(1), for people, and so that no other file is taken for a journal.
FORMAT: Final = "deploykit-rollout-journal"
VERSION: Final = 1
#: Seconds to wait for a lock: `is_written` holds it for an instant.
_LOOK: Final = 0.5

Record = Mapping[str, object]


@attrs.frozen(kw_only=True, slots=True)
class JournalLines:
    """What a journal holds.

    Args:
        head: the first line, without format and version.
        records: the lines after it.
        size: bytes up to the end of the last whole line: what comes after is a torn tail.
    """

    head: Record
    records: tuple[Record, ...]
    size: int


class JournalFile:
    """A journal that this process writes, and no other one.

    Args:
        path: the file.
        fd: open for writing, at its end, and locked.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    def create(cls, path: Path, head: Record) -> Self:
        """Make a journal with a head, durably, in a directory that is made too.

        Raises:
            RolloutError: there is one already, or the directory cannot be written.
        """
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.exists():
                raise RolloutError(f"{path} is there already", "a rollout's id is used once; take another one")
            replace_file(path, _line({"format": FORMAT, "version": VERSION, **head}), mode=0o600)
            sync_directory(path.parent.parent)
        except OSError as error:
            raise _cannot("written", path, error) from error
        return cls.hold(path)

    @classmethod
    def open(cls, path: Path) -> tuple[Self, JournalLines]:
        """Open a journal to go on with it: return it and what it holds. A torn tail is cut off.

        Raises:
            RolloutBusy: another process writes it.
            JournalDamaged, RolloutError: it cannot be read.
        """
        journal = cls.hold(path)
        try:
            lines = read_lines(path)  # under the lock: nobody appends
            os.ftruncate(journal._fd, lines.size)
            os.fsync(journal._fd)
        except OSError as error:
            journal.close()
            raise _cannot("written", path, error) from error
        except BaseException:
            journal.close()
            raise
        return journal, lines

    @classmethod
    def hold(cls, path: Path) -> Self:
        """Open a journal that nobody else writes, and keep others from it. Nothing is read or cut off.

        Raises:
            RolloutBusy: another process writes it.
            RolloutError: it cannot be opened.
        """
        try:
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise _cannot("opened", path, error) from error
        try:
            lock_descriptor(fd, path, wait=_LOOK, quiet=2 * _LOOK)
        except LockBusy:
            os.close(fd)
            raise RolloutBusy(
                f"another process coordinates the rollout of {path.parent.name}",
                f"follow it with `deploykit rollout show {path.parent.name}`",
            ) from None
        except OSError as error:
            os.close(fd)
            raise _cannot("locked", path, error) from error
        return cls(path, fd)

    def append(self, records: Iterable[Record], *, durable: bool = True) -> None:
        """Append records; with `durable`, these and all before them are on the disk when it returns.

        Raises:
            RolloutError: the disk refused. Nothing may be sent that these records announce.
        """
        try:
            write_all(self._fd, b"".join(map(_line, records)))
            if durable:
                os.fsync(self._fd)
        except OSError as error:
            self.close()  # a part of a line may stand there: nothing may follow it before the next writer cuts it off
            raise RolloutError(
                f"{self.path} cannot be written: {error.strerror}; nothing more is sent",
                f"make room, then `deploykit rollout resume {self.path.parent.name}` goes on",
            ) from error

    def close(self) -> None:
        """Give up the file and its lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def is_written(path: Path) -> bool:
    """Return whether a process writes a journal at this moment."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: others who look are no writers
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False


def read_lines(path: Path) -> JournalLines:
    """Return what a journal holds, also while another process writes it.

    Raises:
        JournalDamaged: a line is no record.
        RolloutError: the file cannot be read, is no journal, or is of a newer version.
    """
    return parse_lines(_content(path), str(path))


def read_ends(path: Path) -> tuple[Record, Record | None]:
    """Return the head and the last record, without looking at what is between; None where there is no record.

    Raises:
        JournalDamaged, RolloutError: as `read_lines`.
    """
    content = _content(path)
    first, size = content.find(b"\n") + 1, content.rfind(b"\n") + 1
    last = content.rfind(b"\n", 0, max(size - 1, 0)) + 1
    lines = parse_lines(content[:first] + (content[last:size] if last >= first else b""), str(path))
    return lines.head, lines.records[-1] if lines.records else None


def parse_lines(content: bytes, name: str = "journal") -> JournalLines:
    """Return what the bytes of a journal hold. Pure.

    Raises:
        JournalDamaged, RolloutError: as `read_lines`.
    """
    size = content.rfind(b"\n") + 1
    texts = content[:size].split(b"\n")[:-1]
    if texts and b"\0" in texts[-1]:  # of a power cut: the file had grown, and not all of its bytes were there
        size -= len(texts.pop()) + 1
    if not texts:
        raise JournalDamaged(f"{name} has no whole first line", "the rollout was never begun: nothing was sent")
    records = [_record(text, at, name) for at, text in enumerate(texts, 1)]
    head = records[0]
    if head.get("format") != FORMAT:
        raise JournalDamaged(f"{name} is no journal of a rollout", "give the journal.jsonl of one")
    version = head.get("version")
    if type(version) is not int or version > VERSION:
        raise RolloutError(f"{name} was written by a newer deploykit (format {version})", "use that one to go on")
    rest = {key: value for key, value in head.items() if key not in ("format", "version")}
    return JournalLines(head=rest, records=tuple(records[1:]), size=size)


def damaged(name: str, line: int, why: str) -> JournalDamaged:
    """Return the error for a line that is no record: what is wrong, and how to go on without it."""
    if line == 1:
        remedy = "without its plan nobody can go on: look at `deploykit status --all`, and begin a new rollout"
    else:
        remedy = f"keep a copy, cut it off with `head -n {line - 1}`, and resume: nodes answer again what they did"
    return JournalDamaged(f"{name}: line {line} is damaged: {why}", remedy)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _cannot("read", path, error) from error


def _record(text: bytes, line: int, name: str) -> Record:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise damaged(name, line, "no JSON") from None
    if not isinstance(value, dict):
        raise damaged(name, line, "no JSON object")
    return value


def _line(record: Record) -> bytes:
    return json.dumps(record, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _cannot(what: str, path: Path, error: OSError) -> RolloutError:
    reason = error.strerror or str(error)
    remedy = "set `rollouts` in the settings to a directory that you may write" if what != "read" else ""
    if what == "written" and error.errno in (errno.ENOSPC, errno.EDQUOT):
        resume = f"make room, then `deploykit rollout resume {path.parent.name}`"
        remedy = resume if path.exists() else "make room: nothing began"
    with contextlib.suppress(OSError):
        if what == "read" and not path.exists():
            remedy = "see `deploykit rollout list`"
    return RolloutError(f"{path} cannot be {what}: {reason}", remedy)


__all__ = [
    "FORMAT",
    "VERSION",
    "JournalFile",
    "JournalLines",
    "Record",
    "damaged",
    "is_written",
    "parse_lines",
    "read_ends",
    "read_lines",
]
