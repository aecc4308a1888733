"""Times on the wire: RFC 3339, with an offset, at any second that there is."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from deploykit.errors import MessageError

_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]{1,12})?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])\Z"
).match


def parse_time(value: object) -> datetime:
    """Return an RFC 3339 time in UTC, cut to microseconds; a leap second is the instant after it.

    Raises:
        MessageError: it is not such a time, or has no offset.
    """
    if not isinstance(value, str) or not _RFC3339(value):
        raise MessageError("not a time")
    try:
        if value[17:19] == "60":
            return _after_leap_second(value)
        when = datetime.fromisoformat(value.upper())
        return when if when.tzinfo is UTC else when.astimezone(UTC)
    except (ValueError, OverflowError):
        raise MessageError("not a time") from None


def _after_leap_second(text: str) -> datetime:
    """Return the instant after a 61st second, which exists only at the end of a month in UTC (RFC 3339, 5.7)."""
    before = datetime.fromisoformat(f"{text[:17]}59{text[19:]}".upper()).astimezone(UTC)
    after = before.replace(microsecond=0) + timedelta(seconds=1)
    if (after.day, after.hour, after.minute) != (1, 0, 0):
        raise MessageError("not a leap second")
    return after


def format_time(value: object) -> str:
    """Return an aware time as RFC 3339 text in UTC.

    Raises:
        MessageError: it is naive, or not a time.
    """
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise MessageError("not an aware time")
    try:
        written = (value if value.tzinfo is UTC else value.astimezone(UTC)).isoformat()
    except OverflowError:
        raise MessageError("not a time in UTC") from None
    return written[:-6] + "Z"


__all__ = ["format_time", "parse_time"]
