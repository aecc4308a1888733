"""What a page shows after an action: in memory, for a while, for its owner, under an id that nobody can guess."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

#: How many are kept; the oldest go first.
_MOST: Final = 1000


class BriefStore(Generic[T]):
    """Values by id, each with its owner. Use it from any thread.

    Args:
        seconds: for how long each is kept. What is older is forgotten at the next call.
        clock: monotonic seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[float, str, T]] = OrderedDict()

    def keep(self, owner: str, value: T) -> str:
        """Return the id under which a value is kept."""
        id_ = secrets.token_urlsafe(16)
        with self._lock:
            self._drop_old()
            self._kept[id_] = (self._clock() + self._seconds, owner, value)
            while len(self._kept) > _MOST:
                self._kept.popitem(last=False)
        return id_

    def find(self, owner: str, id_: str) -> T | None:
        """Return the value of an id; None where it is unknown, too old, or another owner's."""
        with self._lock:
            return self._found(owner, id_)

    def take(self, owner: str, id_: str) -> T | None:
        """Return the value of an id as `find` does, and forget it."""
        with self._lock:
            found = self._found(owner, id_)
            if found is not None:
                del self._kept[id_]
            return found

    def _found(self, owner: str, id_: str) -> T | None:
        self._drop_old()
        kept = self._kept.get(id_)
        return kept[2] if kept is not None and kept[1] == owner else None

    def _drop_old(self) -> None:
        now = self._clock()
        while self._kept and next(iter(self._kept.values()))[0] <= now:
            self._kept.popitem(last=False)


__all__ = ["BriefStore"]
