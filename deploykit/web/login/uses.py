"""When a use was written last, so that it is written once in a while and not at each request."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

_MOST: Final = 10_000


class NotedUses:
    """What was noted, by key. Use it from any thread; its memory is bounded.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._at: OrderedDict[str, float] = OrderedDict()

    def due(self, key: str, every: float) -> bool:
        """Return whether the use of a key is to be written now; it counts as written from then on."""
        now = self._clock()
        with self._lock:
            if now < self._at.get(key, float("-inf")) + every:
                return False
            self._at[key] = now
            self._at.move_to_end(key)
            while len(self._at) > _MOST:
                self._at.popitem(last=False)
            return True


__all__ = ["NotedUses"]
