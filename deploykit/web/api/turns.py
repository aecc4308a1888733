"""How many requests that do something are at work at a time: each holds a thread, and asks nodes for seconds."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from deploykit.web.api.problems import RequestRefused

#: Of one viewer, and of all: below the threads that a console has for pages.
OF_ONE: Final = 4
OF_ALL: Final = 16


class ActionTurns:
    """Counts requests that are at work."""

    def __init__(self, *, of_one: int = OF_ONE, of_all: int = OF_ALL) -> None:
        self._of_one, self._of_all = of_one, of_all
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()

    @contextmanager
    def turn(self, viewer: str) -> Iterator[None]:
        """Hold a place while a request is at work.

        Raises:
            RequestRefused: 429, too many of one viewer; 503, too many of all.
        """
        with self._lock:
            if self._running[viewer] >= self._of_one:
                raise RequestRefused(429, f"{self._of_one} of your requests are at work", retry_after=2)
            if self._running.total() >= self._of_all:
                raise RequestRefused(503, "too many requests are at work", retry_after=5)
            self._running[viewer] += 1
        try:
            yield
        finally:
            with self._lock:
                self._running[viewer] -= 1
                self._running += Counter()  # drops names whose count is 0


__all__ = ["OF_ALL", "OF_ONE", "ActionTurns"]
