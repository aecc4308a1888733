"""Which STOMP destinations are acceptable for every broker."""

from __future__ import annotations

from typing import Final

from deploykit.errors import DialectError

#: Characters of the longest destination.
MAX_DESTINATION: Final = 512


def check_destination(destination: str) -> None:
    """Refuse a destination that no broker takes, or that could end its header line.

    Raises:
        DialectError: it holds control characters or a backslash, is too long, or names nothing.
    """
    if not destination.isprintable() or "\\" in destination or not 0 < len(destination) <= MAX_DESTINATION:
        raise DialectError(
            f"not an acceptable destination: {destination[:80]!a}",
            f"no control characters, no backslash, at most {MAX_DESTINATION} characters",
        )
    if destination in ("/queue/", "/topic/"):
        raise DialectError(f"{destination!r} has no name", f"write {destination}NAME")
