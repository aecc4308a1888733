"""How a value of a fact is compared with a text in a selector.

| operator | true when |
|---|---|
| `=` | the texts are equal; a fact that is a number equals every spelling of it (`15.5` and `15.50`) |
| `<` `<=` `>` `>=` | both are numbers: by value; else both are versions: part by part; else neither is: as texts |

A number or version compared with anything else is neither smaller nor larger. Nothing here takes longer than the two
texts are long.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final, Literal

from deploykit.fleet.facts import Scalar, text_of

Ordering = Literal["<", "<=", ">", ">="]

#: No exponents: `12e45` is more often the start of a commit than a number.
_NUMBER = re.compile(r"[+-]?[0-9]{1,300}(?:\.[0-9]{1,300})?\Z", re.ASCII).match
_VERSION = re.compile(r"[vV]?[0-9][0-9A-Za-z.+~:_-]*\Z", re.ASCII).match
_PARTS = re.compile(r"[0-9]+|[A-Za-z]+|~", re.ASCII).findall
#: Words that stand before the version itself.
_BEFORE: Final = frozenset({"~", "alpha", "beta", "dev", "pre", "rc"})

#: A part's rank, length of its digits, and text: tuples in the order of the parts they stand for.
_Part = tuple[int, int, str]
_NOTHING: Final[_Part] = (1, 0, "")


def equals(value: Scalar, text: str) -> bool:
    """Return whether a value is what a text says."""
    if text_of(value) == text:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and number_of(value) == number_of(text)


def in_order(value: Scalar, ordering: Ordering, text: str) -> bool:
    """Return whether a value stands before or after a text as an operator says; booleans have no order."""
    if isinstance(value, bool):
        return False
    order = _order(value, text)
    if order is None:
        return False
    match ordering:
        case "<":
            return order < 0
        case "<=":
            return order <= 0
        case ">":
            return order > 0
        case ">=":
            return order >= 0


def _order(value: Scalar, text: str) -> int | None:
    """Return -1, 0 or 1; None where the two cannot be compared."""
    number, other = number_of(value), number_of(text)
    if number is not None and other is not None:
        return (number > other) - (number < other)
    mine = text_of(value)
    versions = bool(_VERSION(mine)), bool(_VERSION(text))
    if all(versions):
        return _order_of_versions(_parts_of(mine), _parts_of(text))
    if any(versions) or number is not None or other is not None:
        return None
    return (mine > text) - (mine < text)


def number_of(value: Scalar) -> Decimal | None:
    """Return a value as an exact number; None where it is none."""
    if isinstance(value, str):
        return Decimal(value) if _NUMBER(value) else None
    return Decimal(str(value)) if isinstance(value, float) else Decimal(value)


def _order_of_versions(mine: list[_Part], other: list[_Part]) -> int:
    longest = max(len(mine), len(other))
    mine += [_NOTHING] * (longest - len(mine))  # 6.1 is 6.1.0
    other += [_NOTHING] * (longest - len(other))
    return (mine > other) - (mine < other)


def _parts_of(version: str) -> list[_Part]:
    """Return a version's parts: `6.1.0-rc1` stands before `6.1.0`, and `1.0.2k` after `1.0.2`.

    Digits are compared by their number first: making integers of long ones would take more than linear time.
    """
    return [_part_of(part) for part in _PARTS(version.lstrip("vV"))]


def _part_of(part: str) -> _Part:
    if part.lower() in _BEFORE:
        return (0, 0, part.lower())
    if not part.isdigit():
        return (1, 0, part)
    digits = part.lstrip("0")
    return (1, len(digits), digits)
