"""What may come in any number gets one line in the log an interval, with its count. Pure but for a lock."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Final

#: Seconds between two lines, and between two answers to those whom nobody vouches for.
INTERVAL: Final = 60.0


class LogThrottle:
    """Counts events of one kind. Use it from any thread.

    Args:
        interval: seconds, in which at most one event is due.
    """

    def __init__(self, interval: float = INTERVAL) -> None:
        self._interval = interval
        self._lock = threading.Lock()
        self._count = 0
        self._next = float("-inf")
        self._last = ""

    def add(self, why: str, now: float) -> int:
        """Count one; return how many there were since a line was due, when one is due again, else 0."""
        with self._lock:
            self._count += 1
            self._last = why
            return self._take(now)

    def rest(self, now: float = float("inf")) -> tuple[int, str]:
        """Return how many were counted and never returned, and the last one's reason, when a line is due; else 0."""
        with self._lock:
            return (self._take(now) if self._count else 0), self._last

    def _take(self, now: float) -> int:
        if now < self._next:
            return 0
        self._next = now + self._interval
        count, self._count = self._count, 0
        return count


class KeyedLogThrottle:
    """Says of each of many things whether it is due again. Use it from any thread.

    Args:
        interval: seconds, in which each is due at most once. What was not due for so long is forgotten.
    """

    def __init__(self, interval: float = INTERVAL) -> None:
        self._interval = interval
        self._lock = threading.Lock()
        self._until: dict[Hashable, float] = {}

    def due(self, what: Hashable, now: float) -> bool:
        """Return whether `what` is due; then it is not again for an interval."""
        with self._lock:
            while self._until and next(iter(self._until.values())) <= now:  # in the order in which they end
                del self._until[next(iter(self._until))]
            if what in self._until:
                return False
            self._until[what] = now + self._interval
            return True
