"""One deadline for a whole fetch, which bounds every wait on the other side.

Rules: monotonic time; a wait ends when the whole time is over, or after the longest silence that is accepted.
"""

from __future__ import annotations

import time

from deploykit.errors import DeadlineExceeded


class Deadline:
    """The end of the whole, and the longest silence.

    Args:
        seconds: for the whole, from now on.
        stall: the longest wait for a single byte.
        what: names the work in the error.
    """

    def __init__(self, seconds: float, *, stall: float, what: str) -> None:
        self.seconds = seconds
        self.stall = stall
        self._what = what
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds until the end.

        Raises:
            DeadlineExceeded: none are left.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.passed()
        return left

    def wait(self) -> float:
        """Return how long the next wait may be, seconds."""
        return min(self.left(), self.stall)

    def passed(self) -> DeadlineExceeded:
        """Return the error for a wait that was too long."""
        if self._end - time.monotonic() <= 0:
            return DeadlineExceeded(f"{self._what} took longer than {self.seconds:g} s", "try again, or raise deadline")
        return DeadlineExceeded(f"{self._what}: no byte came for {self.stall:g} s", "try again, or raise stall_timeout")
