"""What one process remembers of a spool because the disk has no room for it, and what it has logged about it.

Rules:

* Where no mark can be written, this process remembers that the record was sent and does not yield it again. After a
  crash it is sent a second time; receivers find the duplicate by the message's id.
* A problem that lasts is logged once, and once more when it is over.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Set
from time import monotonic
from typing import Final

_log = logging.getLogger(__name__)

#: Errors of a file system that has no bytes, no inodes or no quota left.
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
_MOST_REPORTED: Final = 10_000
#: Seconds until marking is tried again: each attempt costs as much as there is to mark.
_AGAIN: Final = 3.0
#: Seconds without such an error after which there is room again.
_QUIET: Final = 10.0
_NONE: Final[frozenset[int]] = frozenset()


class Notes:
    """The settled records of larger files that could not be marked, and the names that were logged."""

    def __init__(self) -> None:
        self._settled: dict[str, set[int]] = {}
        self._reported: set[str] = set()
        self._marked: dict[str, int] = {}  # how many more records of a file are marked on the disk
        self._full_at: float | None = None  # when there last was no room; None: there is room
        #: Files that the last complete read of the spool could not read.
        self.unreadable: frozenset[str] = frozenset()

    def settled(self, stem: str) -> Set[int]:
        """Return the numbers of the records of a file that are settled and not marked on the disk."""
        return self._settled.get(stem, _NONE)

    def may_mark(self) -> bool:
        """Return whether to try to mark settled records on the disk: on a full one only every few seconds."""
        return self._full_at is None or monotonic() - self._full_at >= _AGAIN

    def settle(self, stem: str, number: int) -> None:
        """Note that a record is settled which cannot be marked."""
        self._settled.setdefault(stem, set()).add(number)

    def may_be_all(self, stem: str, records: int, count: Callable[[], int]) -> bool:
        """Return whether all records of a file may be settled; False where some are not.

        Args:
            count: counts the settled records. Called seldom: it reads as much as there are records.
        """
        noted = len(self.settled(stem))
        if stem not in self._marked:
            self._marked[stem] = count() - noted
        return self._marked[stem] + noted >= records

    def full(self, path: str, error: OSError) -> None:
        """Note that there is no room for marks, and log it the first time."""
        self._marked.clear()
        before, self._full_at = self._full_at, monotonic()
        if before is None:
            _log.warning(
                "spool %s: no room to mark what was sent (%s): a file is removed when all of it was sent, and "
                "after a crash some of it is sent twice; make room (df -h, df -i)",
                path,
                error.strerror,
            )

    def marked(self, path: str, stem: str) -> None:
        """Note that the marks of a file are on the disk. Logs that there is room again after a quiet while."""
        self.gone(stem)
        if self._full_at is not None and monotonic() - self._full_at > _QUIET:
            self._full_at = None
            _log.info("spool %s: there is room again to mark what was sent", path)

    def gone(self, stem: str) -> None:
        """Forget what was noted of a file: it was removed, or its marks are all on the disk."""
        self._settled.pop(stem, None)
        self._marked.pop(stem, None)

    def first_time(self, name: str) -> bool:
        """Return whether a name is logged for the first time."""
        if name in self._reported:
            return False
        if len(self._reported) >= _MOST_REPORTED:
            self._reported.clear()
        self._reported.add(name)
        return True
