"""JSON made hostile: every field of a payload removed, and replaced by everything that a field may wrongly hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

#: Deeper than any payload, not deeper than a JSON parser lets through.
_NESTED: Any = "x"
for _ in range(60):
    _NESTED = {"x": [_NESTED]}

#: What a field may wrongly hold, each with a name for the test's report.
VALUES: Final[dict[str, Any]] = {
    "null": None,
    "true": True,
    "zero": 0,
    "negative": -1,
    "huge number": 10**299,
    "fraction": 1.5e300,
    "empty text": "",
    "text": "x",
    "huge text": "x" * 100_000,
    "control characters": "a\x00b\x1b[2Jc\r\nd\u2028e\u202ef",
    "half of a surrogate pair": "\ud800",
    "path out": "refs/heads/../../etc",
    "option": "--upload-pack=touch /tmp/x",
    "markup": "<script>alert(1)</script>",
    "zeros": "0" * 40,
    "object id": "9" * 40,
    "empty list": [],
    "list": ["x", 1, None, {"id": []}],
    "long list": [None] * 5000,
    "empty object": {},
    "object": {"id": 1, "name": [], "full_name": {}, "hash": None},
    "nested": _NESTED,
}


class Changed(NamedTuple):
    """A payload with one field changed, and which."""

    payload: Any
    path: tuple[str | int, ...]
    how: str


def paths_of(value: Any, here: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every field of a payload, and of the first two items of every list: the others are like them."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, below in list(items):
        yield (*here, key)
        yield from paths_of(below, (*here, key))


def each_changed(payload: Any) -> Iterator[Changed]:
    """The payload with each field removed, then replaced by each value. It is the same object, and whole at the end."""
    for path in tuple(paths_of(payload)):
        holder = payload
        for key in path[:-1]:
            holder = holder[key]
        kept = holder[path[-1]]
        if isinstance(holder, dict):
            names = list(holder)
            del holder[path[-1]]
            yield Changed(payload, path, "removed")
            whole = {name: kept if name == path[-1] else holder[name] for name in names}
            holder.clear()
            holder.update(whole)
        for name, value in VALUES.items():
            holder[path[-1]] = value
            yield Changed(payload, path, name)
        holder[path[-1]] = kept


__all__ = ["VALUES", "Changed", "each_changed", "paths_of"]
