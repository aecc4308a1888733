"""How much waits in an outbox, for a page that may be asked often: the directory is listed now and then.

Rules:

* No record is opened: names are counted, and the oldest one is looked at.
* Listing a long backlog takes time, so it is done for at most a twentieth of the time, whoever asks how often.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Final

import attrs

from deploykit.outbox.keys import is_record_name

#: Least seconds between two listings, and how many times as long as a listing the pause after it is.
_EVERY: Final = 5.0
_IDLE: Final = 20.0


@attrs.frozen(slots=True)
class OutboxSize:
    """How many records wait, and when the oldest was written (seconds since 1970; None where none waits)."""

    records: int
    oldest: float | None


def size_of(path: str) -> OutboxSize | None:
    """List a spool; return None where it cannot be read."""
    count, first = 0, ""
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                if is_record_name(name):
                    count += 1
                    if not first or name < first:
                        first = name
        return OutboxSize(count, os.lstat(os.path.join(path, first)).st_mtime if first else None)  # noqa: PTH118
    except FileNotFoundError:  # the oldest one was sent meanwhile, or there is no spool
        return OutboxSize(max(0, count - 1), None) if first else None
    except OSError:
        return None


class OutboxWatch:
    """Remembers how much waits in one outbox. Use it from any thread.

    Args:
        path: the spool.
        clock: monotonic seconds.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._next = float("-inf")
        self._size: OutboxSize | None = None

    def size(self) -> OutboxSize | None:
        """Return the size, at most some seconds old; None where the spool cannot be read."""
        with self._lock:
            begun = self._clock()
            if begun >= self._next:
                self._size = size_of(self._path)
                ended = self._clock()
                self._next = ended + max(_EVERY, _IDLE * (ended - begun))
            return self._size
