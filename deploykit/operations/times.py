"""Times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime


def shown_time(moment: datetime) -> str:
    """Return an instant for a terminal: UTC, to the second. `--since` reads it, too.

    >>> shown_time(datetime(2026, 1, 31, 12, 0, 3, 120000, UTC))
    '2026-01-31 12:00:03Z'
    """
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


__all__ = ["shown_time"]
