"""Names of nodes in few words, and nothing left out: `web[1-40],db1`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from deploykit.fleet.plan import natural_order

_LAST_NUMBER: Final = re.compile(r"(.*?)([0-9]+)([^0-9]*)\Z").match


def folded_names(nodes: Iterable[str]) -> tuple[str, ...]:
    """Return names, those that differ in their last number alone folded into one. No two sets of names fold alike.

    >>> folded_names(["web2", "web1", "web3", "db", "web10", "web7"])
    ('db', 'web[1-3,7,10]')
    >>> folded_names(["web09", "web10", "web9"])
    ('web[09-10]', 'web9')
    """
    groups: dict[tuple[str, str, int], list[int]] = {}
    for name in sorted(set(nodes), key=natural_order):
        found = _LAST_NUMBER(name)
        if found is None:
            groups[name, "", -1] = []
            continue
        prefix, digits, suffix = found.groups()
        padded = digits[0] == "0" and len(digits) > 1
        width = len(digits) if padded or (prefix, suffix, len(digits)) in groups else 0
        groups.setdefault((prefix, suffix, width), []).append(int(digits))
    return tuple(_folded(*group, numbers) for group, numbers in groups.items())


def _folded(prefix: str, suffix: str, width: int, numbers: list[int]) -> str:
    if width < 0:
        return prefix
    if len(numbers) == 1:
        return f"{prefix}{numbers[0]:0{width}d}{suffix}"
    return f"{prefix}[{','.join(_ranges(sorted(numbers), width))}]{suffix}"


def _ranges(numbers: list[int], width: int) -> Iterator[str]:
    start = end = numbers[0]
    for number in (*numbers[1:], None):
        if number is not None and number == end + 1:
            end = number
            continue
        yield f"{start:0{width}d}" if start == end else f"{start:0{width}d}-{end:0{width}d}"
        if number is not None:
            start = end = number


__all__ = ["folded_names"]
