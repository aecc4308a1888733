"""What a handler says about a delivery: return one of these, or raise it.

`None` is `Ack()`. Any other exception counts as a failed attempt: it is tried again after a pause, and when the
attempts are used up, the subscription's `on_failure` decides.
"""

from __future__ import annotations


class Verdict(Exception):
    """The root of the verdicts."""


class Ack(Verdict):
    """Done. The broker may forget the message."""


class Retry(Verdict):
    """Not now: hand it to the handler again `after` seconds. Counts as an attempt."""

    def __init__(self, after: float = 1.0) -> None:
        if not 0 <= after < float("inf"):
            raise ValueError("after: seconds, from 0")
        super().__init__(after)
        self.after = after


class Reject(Verdict):
    """Never: it will not get better. `on_failure` decides at once; `reason` goes with the dead letter."""

    def __init__(self, reason: str) -> None:
        reason = str(reason)  # handlers give the exception itself
        super().__init__(reason)
        self.reason = reason
