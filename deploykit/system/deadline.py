"""One deadline for a whole fetch: every wait on the other side asks it how long it may take.

Rules: monotonic time; a wait is bounded by what is left of the whole, and by the longest silence that is borne.
"""

from __future__ import annotations

import time

from deploykit.errors import DeadlineExceeded


class Deadline:
    """Seconds for everything, and seconds of silence at most.

    Args:
        seconds: from now on, for the whole.
        stall: the longest wait for a single byte.
        what: names the work in the error.
    """

    def __init__(self, seconds: float, *, stall: float, what: str) -> None:
        self.seconds = seconds
        self.stall = stall
        self._what = what
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until the end.

        Raises:
            DeadlineExceeded: none are left.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.passed()
        return left

    def wait(self) -> float:
        """How long the next wait may be."""
        return min(self.left(), self.stall)

    def passed(self) -> DeadlineExceeded:
        """The error for a wait that was too long."""
        if self._end - time.monotonic() <= 0:
            return DeadlineExceeded(f"{self._what} took longer than {self.seconds:g} s", "try again, or raise deadline")
        return DeadlineExceeded(f"{self._what}: no byte came for {self.stall:g} s", "try again, or raise stall_timeout")
