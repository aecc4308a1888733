"""Writes a recorded log: one file, rotated by size into `FILE.1`, `FILE.2` and so on, the newest first.

Rules:

* One recorder at a time, held by a lock on `FILE.lock`.
* A line is in the file whole, or not at all: what a full disk took half of is cut off again.
* A full disk stops nobody. It is reported once, and once more when it is over; the log then says how much is missing.
* Nobody but the owner, and the group where an existing file allows it, reads the log: it holds what scripts printed.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from deploykit.errors import UsageError
from deploykit.fleet.recordformat import RecordedMessage, RecordingBegan, RecordingGap, format_line
from deploykit.messages.base import utc_now
from deploykit.system.durable import write_all
from deploykit.system.lock import FileLock

#: Bytes of a file, and how many older ones are kept.
SIZE: Final = 64 * 1024 * 1024
KEEP: Final = 9
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class RecordWriter:
    """Appends messages to a recorded log, from any thread. Used as a context manager.

    Args:
        path: the file; its directory must be there.
        size: bytes after which the next file begins.
        keep: how many older files are kept beside the one that is written.
        on_problem: called with a line for people when the log cannot be written, and when it can be again.
        now: the wall clock, aware UTC.

    Raises:
        LockBusy: (on entering) another recorder writes this log.
        UsageError: (on entering) the file is none, or everybody may read it.
        OSError: (on entering) it cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        *,
        size: int = SIZE,
        keep: int = KEEP,
        on_problem: Callable[[str], None] = lambda _: None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.path = path
        self._size = size
        self._keep = keep
        self._report = on_problem
        self._now = now
        self._lock = threading.Lock()
        self._held = FileLock(
            path.with_name(f"{path.name}.lock"),
            busy=f"another recorder writes {path}",
            remedy="record into another file",
        )
        self._fd = -1
        self._length = 0
        self._mode = 0o600
        self._gap: RecordingGap | None = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            undo.enter_context(self._held)
            self._open()
            undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with self._lock:
            if self._gap is not None:
                with contextlib.suppress(OSError):
                    self._append(b"")
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
        self._held.__exit__(kind, error, tb)

    def write(self, message: RecordedMessage) -> bool:
        """Append a message; return whether it is in the log."""
        line = format_line(message)
        with self._lock:
            try:
                self._make_ready(len(line))
                self._append(line)
            except OSError as error:
                self._note_lost(message.received, error)
                return False
            return True

    # -- the file ------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Open the file; a line that a crash tore is ended, so that the next one is whole.

        Raises:
            UsageError, OSError: see the class.
        """
        fd = os.open(self.path, _FLAGS, self._mode)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise UsageError(f"{self.path} is not a file", "record into a file")
            if stat.S_IMODE(found.st_mode) & 0o027:
                raise UsageError(
                    f"others may read or write {self.path}, and it holds what scripts print", "chmod 0600 or 0640"
                )
            self._mode = stat.S_IMODE(found.st_mode)
            self._length = found.st_size
            torn = self._length and os.pread(fd, 1, self._length - 1) != b"\n"
            self._fd, before = fd, self._fd
        except BaseException:
            os.close(fd)
            raise
        if before >= 0:
            os.close(before)
        if torn:
            self._append(b"\n")

    def _make_ready(self, room: int) -> None:
        """Begin the next file where the line would make this one too long, or somebody moved it away."""
        try:
            moved = not os.path.samestat(os.fstat(self._fd), self.path.stat(follow_symlinks=False))
        except FileNotFoundError:
            moved = True
        if not moved and self._length + room > self._size and self._length > _HEAD:
            self._rotate()
            moved = True
        if moved:
            try:
                self._open()
            except UsageError as error:
                raise OSError(None, str(error)) from error
        if not self._length:
            self._append(format_line(RecordingBegan(at=self._now())))

    def _rotate(self) -> None:
        for number in part_numbers(self.path):
            if number > self._keep:  # more were kept before
                part(self.path, number).unlink(missing_ok=True)
        for number in range(self._keep, 0, -1):
            older = part(self.path, number)
            newer = part(self.path, number - 1)
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)
        if not self._keep:
            self.path.unlink()

    def _append(self, line: bytes) -> None:
        """Append a line, and before it what is missing: both or neither, else a nearly full disk takes turns."""
        gap = self._gap
        data = line if gap is None else format_line(gap) + line
        try:
            write_all(self._fd, data)
        except OSError:
            os.ftruncate(self._fd, self._length)  # shorter always works, also on a full disk
            raise
        self._length += len(data)
        if gap is not None:
            self._gap = None
            self._report(f"recording to {self.path} again; {gap.lost} messages are missing from it")

    # -- what is lost --------------------------------------------------------------------------------------------------

    def _note_lost(self, at: datetime, error: OSError) -> None:
        if self._gap is None:
            why = error.strerror or str(error)
            self._report(f"cannot record to {self.path}: {why}; watching goes on, and messages are not recorded")
            self._gap = RecordingGap(since=at, until=at, lost=1)
        else:
            self._gap = RecordingGap(since=self._gap.since, until=at, lost=self._gap.lost + 1)


def part(path: Path, number: int) -> Path:
    """Return the name of an older file of a log, counted from the newest; 0 is the file itself."""
    return path.with_name(f"{path.name}.{number}") if number else path


def part_numbers(path: Path) -> list[int]:
    """Return the numbers of the older files of a log that are there, the newest first."""
    pattern = re.compile(re.escape(path.name) + r"\.([1-9][0-9]{0,5})\Z")
    return sorted(int(hit[1]) for entry in os.scandir(path.parent) if (hit := pattern.match(entry.name)))


#: A file that holds no more than its first line is not rotated, however long the next line is.
_HEAD: Final = 200
