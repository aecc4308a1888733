"""What is wrong with settings, as text: the words that every family's `problems()` shares. Pure.

A problem is one line, `field: expected …, not …`, without the value of anything that may be secret. The caller that
holds a family puts the family's path before it: `broker.window: expected at least 1, not 0`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

#: Seconds (31 years) that are as good as for ever, and still within what locks and sockets can wait.
LONGEST: Final = 1e9


def below(path: str, problems: Iterable[str]) -> Iterator[str]:
    """Put the path of a family before each of its problems.

    >>> list(below("broker", ["window: expected at least 1, not 0"]))
    ['broker.window: expected at least 1, not 0']
    """
    return (f"{path}.{problem}" for problem in problems)


def too_small(settings: object, least: Mapping[str, float]) -> Iterator[str]:
    """Find numbers below the least that makes sense: a daemon would stall, or go round without a pause.

    Args:
        settings: holds the fields.
        least: field -> smallest value.
    """
    for name, limit in least.items():
        value = getattr(settings, name)
        if not value >= limit:  # also what is no number
            yield f"{name}: expected at least {limit:g}, not {value:g}"


def too_large(settings: object, most: Mapping[str, float]) -> Iterator[str]:
    """Find numbers above the most that makes sense.

    Args:
        settings: holds the fields.
        most: field -> largest value.
    """
    for name, limit in most.items():
        value = getattr(settings, name)
        if value > limit:
            yield f"{name}: expected at most {limit:g}, not {value:g}"


def not_a_time(settings: object, names: Iterable[str], unit: str = "seconds") -> Iterator[str]:
    """Find times that are not above 0, or that never end."""
    for name in names:
        value = getattr(settings, name)
        if not 0 < value < LONGEST:
            yield f"{name}: expected {unit} above 0 and below {LONGEST:g}, not {value:g}"
