"""Times as people give them: so far ahead of now, or an instant with its zone. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from deploykit.errors import UsageError

_AHEAD: Final = re.compile(r"\+?([0-9]{1,6})([smhd])\Z", re.ASCII).match
#: So far from the first and the last instant that a `datetime` holds a time stays.
_EDGE: Final = timedelta(days=366)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_moment(text: str, now: datetime) -> datetime:
    """Return the instant that a text stands for, aware.

    >>> from datetime import UTC
    >>> parse_moment("2h", datetime(2026, 1, 31, 12, tzinfo=UTC)).isoformat()
    '2026-01-31T14:00:00+00:00'

    Args:
        text: `90m`, `2h`, `1d`; `2026-01-31T12:00Z`, or with an offset (`+01:00`).
        now: aware.

    Raises:
        UsageError: it is none.
    """
    ahead = _AHEAD(text)
    try:
        if ahead is not None:
            return now + timedelta(seconds=int(ahead[1]) * _SECONDS[ahead[2]])
        moment = datetime.fromisoformat(text)
        _ = moment.astimezone(UTC) - _EDGE, moment.astimezone(UTC) + _EDGE  # else whoever reckons with it fails
    except (ValueError, OverflowError):
        raise UsageError(f"{text[:80]!r} is no time: write 2h, 30m, or 2026-01-31T12:00Z") from None
    if moment.tzinfo is None:
        raise UsageError(f"{text[:80]!r} has no zone: add Z, or an offset such as +01:00")
    return moment


__all__ = ["parse_moment"]
