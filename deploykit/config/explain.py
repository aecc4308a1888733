"""cattrs' tree of errors -> lines `path: what was expected`, and the data without what was wrong. Pure."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import attrs
from cattrs.errors import (
    AttributeValidationNote,
    BaseValidationError,
    ForbiddenExtraKeysError,
    IterableValidationNote,
)

from deploykit.config.convert import WrongKind
from deploykit.errors import DeploykitError

T = TypeVar("T")
Place = tuple[str | int, ...]

_TOO_SMALL: Final = re.compile(r"'(\w+)' must be >= (\S+):").match  # the text of attrs' validator `ge`
_MOST_ROUNDS: Final = 20
#: Settings that are gone, by their class: what to write instead.
_GONE: Final = {
    ("GrantSettings", "without_build"): (
        'is a right now: remove it, and write "without-build" among the types, '
        'as in types = ["deploy.requested", "without-build"]'
    ),
}


def explain(error: BaseException, kind: Any, path: str = "") -> list[str]:
    """Return one line for each error of the tree.

    Args:
        error: what the conversion raised.
        kind: the type that was converted to.
        path: where the value stands in the file.
    """
    if isinstance(error, BaseExceptionGroup):
        lines: list[str] = []
        for child in error.exceptions:
            step, child_kind = _step_of(child)
            joined = f"{path}[{step}]" if isinstance(step, int) else f"{path}.{step or ''}".strip(".")
            lines += explain(child, child_kind if child_kind is not None else kind, joined)
        return lines
    if isinstance(error, ForbiddenExtraKeysError):
        return [_unknown(f"{path}.{key}".strip("."), key, error.cl) for key in sorted(error.extra_fields)]
    if isinstance(error, KeyError):
        return [f"{path}: required, but missing"]
    if isinstance(error, WrongKind | DeploykitError):
        return [f"{path}: {error}"]
    if typing.get_origin(kind) is typing.Literal:
        return [f"{path}: expected one of {', '.join(map(repr, typing.get_args(kind)))}"]
    small = _TOO_SMALL(str(error))
    return [f"{path}.{small[1]}: expected at least {small[2]}".strip(".") if small else f"{path}: {error}"]


def _step_of(error: BaseException) -> tuple[str | int | None, Any]:
    """Return the name or index of the value that an error is about, and the type that was expected there."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return note.name, note.type
        if isinstance(note, IterableValidationNote):
            return note.index, note.type
    return None, None


def _unknown(path: str, key: str, cls: type | None) -> str:
    if cls is not None and (gone := _GONE.get((cls.__name__, key))):
        return f"{path}: {gone}"
    known = [f.name for f in attrs.fields(cls)] if cls is not None and attrs.has(cls) else []
    close = difflib.get_close_matches(key, known, n=1)
    return f"{path}: unknown setting" + (f" (did you mean {close[0]}?)" if close else f" (known: {', '.join(known)})")


# -- the rest ---------------------------------------------------------------------------------------------------------


def without(
    error: BaseValidationError, data: dict[str, Any], convert: Callable[[dict[str, Any]], T]
) -> tuple[T | None, Callable[[str], str]]:
    """Take out of `data` what is wrong by itself and convert the rest, so that it can be checked as a whole.

    Args:
        error: what the conversion of `data` raised.
        data: changed in place.
        convert: converts it again.

    Returns:
        What could be read, None when that is nothing; and a function that gives the items of lists in a line
        `path: problem` the numbers they had before others were taken out.
    """
    numbers: dict[str, list[int]] = {}

    def as_before(line: str) -> str:
        for path in sorted(numbers, key=len, reverse=True):
            found = re.match(re.escape(path) + r"\[(\d+)\]", line)
            if found:
                line = f"{path}[{numbers[path][int(found[1])]}]{line[found.end() :]}"
        return line

    for _ in range(_MOST_ROUNDS):  # leaving a value out can make its table one that lacks it
        places = list(_places(error, ()))
        removed = set[Place]()
        for place in reversed(places):  # of a list the last first: the others keep their places
            if not any(place[:length] in removed for length in range(1, len(place) + 1)):
                removed.add(_remove(data, place, numbers))
        try:
            return convert(data), as_before
        except BaseValidationError as again:
            error = again
    return None, as_before


def _places(error: BaseException, path: Place) -> Iterator[Place]:
    if isinstance(error, ForbiddenExtraKeysError):
        yield from ((*path, key) for key in sorted(error.extra_fields))
    elif isinstance(error, BaseExceptionGroup):
        for child in error.exceptions:
            step, _ = _step_of(child)
            yield from _places(child, path if step is None else (*path, step))
    else:
        yield path


def _remove(data: dict[str, Any], place: Place, numbers: dict[str, list[int]]) -> Place:
    """Remove what is at a place; where nothing is, what lacks it. Return the place that was removed."""
    for length in range(len(place), 0, -1):
        holder: Any = data
        try:
            for step in place[: length - 1]:
                holder = holder[step]
        except (KeyError, IndexError, TypeError):
            continue
        last = place[length - 1]
        if isinstance(holder, dict) and last in holder:
            del holder[last]
        elif isinstance(holder, list) and isinstance(last, int) and last < len(holder):
            left = numbers.setdefault(_shown(place[: length - 1]), list(range(len(holder))))
            del holder[last], left[last]
            if not holder:  # an empty list would be wrong in its own way
                _remove(data, place[: length - 1], {})
        else:
            continue
        return place[:length]
    return ()


def _shown(place: Place) -> str:
    """Return a place as lines show it: `trust.grants[0].types`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".")
