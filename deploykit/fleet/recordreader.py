"""Reads a recorded log, all its files, oldest first, as often as it takes, in flat memory.

Rules:

* The files are opened newest first: a log that is rotated meanwhile shows a file twice, and never misses one.
* What is written after that is not read: each pass sees the same lines.
* A line that is too long is skipped, and no more of it is held than the cap. The last line may be torn.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import attrs

from deploykit.errors import MessageError, UsageError
from deploykit.fleet.recordformat import MAX_LINE, RecordedMessage, RecordingBegan, RecordingGap, parse_line
from deploykit.fleet.recordwriter import part, part_numbers

_BUFFER: Final = 1 << 20
_MOST_GAPS: Final = 1000


@attrs.define(kw_only=True, slots=True)
class ReadCounts:
    """What one pass over a log found.

    Args:
        messages: lines that hold a message.
        broken: lines that hold nothing we can read; `first_broken` says why of the first one, and where.
        too_long: lines beyond the cap.
        torn: files whose last line is not ended: a recorder was killed, or writes right now.
        gaps: what the recorder could not write; the first of them, and `more_gaps` counts the others.
    """

    messages: int = 0
    broken: int = 0
    first_broken: str = ""
    too_long: int = 0
    torn: int = 0
    gaps: list[RecordingGap] = attrs.field(factory=list)
    more_gaps: int = 0


class RecordLog:
    """The files of one or more recorded logs. A context manager: they stay open in it.

    Args:
        paths: the files that recorders write; older parts (`FILE.1`, …) are found beside them.

    Raises:
        UsageError: (on entering) one of them is not a file.
        OSError: (on entering) one cannot be read.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = tuple(paths)
        self._files: list[tuple[Path, BinaryIO, int]] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            seen: set[tuple[int, int]] = set()
            for path in reversed(self._paths):
                for each in _parts(path):
                    self._open(each, stack, seen, must=each == path)
            self._files.reverse()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()
        self._files.clear()

    @property
    def files(self) -> tuple[Path, ...]:
        """The files, oldest first."""
        return tuple(path for path, _, _ in self._files)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for _, _, size in self._files)

    def messages(self, counts: ReadCounts) -> Iterator[RecordedMessage]:
        """Yield each message, oldest file first; each call is a pass of its own, and two at once get in each other's
        way. `counts` collects what else was found."""
        for path, file, size in self._files:
            file.seek(0)
            for number, line in enumerate(_lines(file, size), 1):
                if line is None:
                    counts.too_long += 1
                    continue
                try:
                    found = parse_line(line)
                except MessageError as error:
                    if not line.endswith(b"\n"):
                        counts.torn += 1
                    elif line.strip():
                        counts.broken += 1
                        counts.first_broken = counts.first_broken or f"{path}:{number}: {error}"
                    continue
                match found:
                    case RecordedMessage():
                        counts.messages += 1
                        yield found
                    case RecordingGap():
                        if len(counts.gaps) < _MOST_GAPS:
                            counts.gaps.append(found)
                        else:
                            counts.more_gaps += 1
                    case RecordingBegan():
                        pass

    def _open(self, path: Path, stack: ExitStack, seen: set[tuple[int, int]], *, must: bool) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            if must and not part(path, 1).exists():  # just rotated: the next one is not there yet
                raise
            return
        file = stack.enter_context(os.fdopen(fd, "rb", buffering=_BUFFER))
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise UsageError(f"{path} is not a file", "name a file that `deploykit watch --record` wrote")
        if (found.st_dev, found.st_ino) not in seen:
            seen.add((found.st_dev, found.st_ino))
            self._files.append((path, file, found.st_size))


def _parts(path: Path) -> list[Path]:
    """Return the file and its older parts, the newest first, and the one that a rotation right now would add."""
    numbers = part_numbers(path)
    return [part(path, number) for number in (0, *numbers, max(numbers, default=0) + 1)]


def _lines(file: BinaryIO, size: int) -> Iterator[bytes | None]:
    """Yield the lines of the first `size` bytes; None for one that is longer than the cap."""
    left = size
    while left > 0 and (line := file.readline(min(left, MAX_LINE))):
        left -= len(line)
        if len(line) < MAX_LINE or line.endswith(b"\n"):
            yield line
            continue
        while left > 0 and not line.endswith(b"\n") and (line := file.readline(min(left, _BUFFER))):
            left -= len(line)
        yield None
