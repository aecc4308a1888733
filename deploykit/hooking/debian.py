"""To come."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str], stdin: bytes, strict: list[bool]) -> int:
    """To come."""
    return 0
