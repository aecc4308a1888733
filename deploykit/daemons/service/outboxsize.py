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

from deploykit.outbox.keys import STEM_LENGTH, SUFFIX

#: Least seconds between two listings, and how many times as long as a listing the pause after it is.
_EVERY: Final = 5.0
_IDLE: Final = 20.0
_LENGTH: Final = STEM_LENGTH + len(SUFFIX)


@attrs.frozen(slots=True)
class OutboxSize:
    """How many records wait, and when the oldest was written (seconds since 1970; None where none waits)."""

    records: int
    oldest: float | None


def size_of(path: str) -> OutboxSize | None:
    """List a spool; return None where it cannot be read."""
    try:
        # `os` alone: a Path for each of 100,000 names would take most of the time.
        # Not `keys.is_record_name`: it looks at every digit, which takes most of the time for a long backlog.
        names = [name for name in os.listdir(path) if name.endswith(SUFFIX) and len(name) == _LENGTH]  # noqa: PTH208
    except OSError:
        return None
    if not names:
        return OutboxSize(0, None)
    try:
        return OutboxSize(len(names), os.lstat(os.path.join(path, min(names))).st_mtime)  # noqa: PTH118
    except OSError:  # it was sent meanwhile
        return OutboxSize(len(names) - 1, None)


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
