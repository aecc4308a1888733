"""Whether a signed message is in time: not expired, not stale, not from the future. Pure: `now` is an argument.

Both edges of every limit count as inside. Differences are compared, never sums: an expiry in the year 9999 plus a skew
overflows datetime.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from deploykit.errors import PolicyRefused
from deploykit.messages import Message


def called(message: Message) -> str:
    """Return a message's class and id, for errors."""
    return f"{type(message).__name__} {message.id[:64]!a}"


def since(now: datetime, then: datetime, message: Message) -> timedelta:
    """Return how long ago an instant was.

    Raises:
        PolicyRefused: the message's time has no zone.
    """
    if then.tzinfo is None or now.tzinfo is None:
        raise PolicyRefused(f"{called(message)} has a time without a zone")
    return now - then


def check_not_ahead(message: Message, now: datetime, skew: timedelta) -> None:
    """Accept a message that was not made in the future.

    Raises:
        PolicyRefused: it was.
    """
    if since(now, message.time, message) < -skew:
        raise PolicyRefused(f"{called(message)} claims to be from the future", "compare the clocks (NTP)")


def check_times(message: Message, now: datetime, *, cap: timedelta, skew: timedelta) -> None:
    """Accept a message that may be acted on now.

    Args:
        message: with or without an expiry.
        now: aware.
        cap: how far ahead its expiry may lie, and how old it may be without one.
        skew: how far apart honest clocks may be.

    Raises:
        PolicyRefused: it is too late, too early, or expires too far ahead.
    """
    check_not_ahead(message, now, skew)
    expires = getattr(message, "expires", None)
    if expires is None:
        if since(now, message.time, message) > cap + skew:
            raise PolicyRefused(f"{called(message)} is stale", "send it again")
        return
    overdue = since(now, expires, message)
    if overdue > skew:
        raise PolicyRefused(
            f"{called(message)} expired {overdue.total_seconds():.0f} s ago",
            "send it again; where it was just sent, compare the clocks (NTP)",
        )
    if -overdue > cap + skew:
        raise PolicyRefused(
            f"{called(message)} expires further ahead than {cap.total_seconds():.0f} s",
            "send it with an earlier expiry",
        )


__all__ = ["called", "check_not_ahead", "check_times", "since"]
