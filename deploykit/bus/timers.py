"""What is to be done later, on the supervisor's thread."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from time import monotonic


class Timers:
    """Actions and their times. Any thread adds; one thread runs what is due."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Have `action` run after so many seconds. It must be quick."""
        with self._lock:
            heapq.heappush(self._heap, (monotonic() + seconds, next(self._numbers), action))

    def run_due(self, now: float) -> None:
        """Run what is due."""
        while self._heap and self._heap[0][0] <= now:
            with self._lock:
                _, _, action = heapq.heappop(self._heap)
            action()

    @property
    def next_due(self) -> float:
        """Monotonic time of the next action; infinity where there is none."""
        return self._heap[0][0] if self._heap else float("inf")
