"""How a handler answers a delivery: it returns one of these, or raises it.

`None` is `Ack()`. Any other exception counts as a failed attempt: it is tried again after a pause, and when the
attempts are used up, the subscription's `on_failure` decides.
"""

from __future__ import annotations


class Verdict(Exception):
    """The root of the verdicts."""


class Ack(Verdict):
    """The message is handled. The broker may forget it."""


class Retry(Verdict):
    """Try again: hand it to the handler after `after` seconds more. It counts as an attempt."""

    def __init__(self, after: float = 1.0) -> None:
        if not 0 <= after < float("inf"):
            raise ValueError("after: seconds, from 0")
        super().__init__(after)
        self.after = after


class Reject(Verdict):
    """Give up: another attempt would not help. `on_failure` decides at once; `reason` goes with the dead letter."""

    def __init__(self, reason: str) -> None:
        reason = str(reason)  # handlers give the exception itself
        super().__init__(reason)
        self.reason = reason
