"""Wall-clock seconds that only go forward, at the pace of the monotonic clock."""

from __future__ import annotations

import time
from collections.abc import Callable


class SteadyClock:
    """Returns wall-clock seconds. A clock that is set in between does not move them.

    Args:
        wall: seconds since 1970; read once.
        monotonic: seconds.
        not_before: the least that is returned: of a journal that was written under a clock ahead of ours.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        not_before: float = 0.0,
    ) -> None:
        self._monotonic = monotonic
        self._offset = max(wall(), not_before) - monotonic()

    def __call__(self) -> float:
        """Return the current time."""
        return self._offset + self._monotonic()


__all__ = ["SteadyClock"]
