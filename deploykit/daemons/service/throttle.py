"""Limit log lines and answers about events that may come in any number: one an interval. Pure but for a lock."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Final

#: Seconds between two log lines, and between two answers to unverified messages.
INTERVAL: Final = 60.0


class LogThrottle:
    """Counts events of one kind, and says when a log line about them is due. Use it from any thread.

    Args:
        interval: least seconds between two lines.
    """

    def __init__(self, interval: float = INTERVAL) -> None:
        self._interval = interval
        self._lock = threading.Lock()
        self._count = 0
        self._next = float("-inf")
        self._last = ""

    def add(self, why: str, now: float) -> int:
        """Count one event; return how many came since the last line if a line is due, else 0."""
        with self._lock:
            self._count += 1
            self._last = why
            return self._take(now)

    def flush(self, now: float = float("inf")) -> tuple[int, str]:
        """Return how many events no line has counted yet, if a line is due, else 0; and the last event's reason."""
        with self._lock:
            return (self._take(now) if self._count else 0), self._last

    def _take(self, now: float) -> int:
        if now < self._next:
            return 0
        self._next = now + self._interval
        count, self._count = self._count, 0
        return count


class KeyedThrottle:
    """Limits events of many kinds, each kind by its key. Use it from any thread.

    Args:
        interval: least seconds between two events of a key. A key is forgotten after that.
    """

    def __init__(self, interval: float = INTERVAL) -> None:
        self._interval = interval
        self._lock = threading.Lock()
        self._until: dict[Hashable, float] = {}

    def due(self, key: Hashable, now: float) -> bool:
        """Return whether an event of this key is due. If so, the next one is due after an interval."""
        with self._lock:
            while self._until and next(iter(self._until.values())) <= now:  # in the order in which they end
                del self._until[next(iter(self._until))]
            if key in self._until:
                return False
            self._until[key] = now + self._interval
            return True
