"""Messages to JSON text, by a writer made once per class. On the push's path: no cattrs, no dicts in between.

Rule: what is written, a reader accepts: every value passes the same check that reading applies. A message that fails
one is refused with all its mistakes, each with its path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import chain, repeat
from json.encoder import encode_basestring as quote
from operator import attrgetter, call
from typing import Any, TypeAlias

from deploykit.errors import DeploykitError, MessageError
from deploykit.wire import shapes
from deploykit.wire.shapes import Leaf, ListOf, Maybe, Record, Shape
from deploykit.wire.strictjson import MAX_ITEMS, dump, tame

One: TypeAlias = Callable[[Any], str]
Many: TypeAlias = Callable[[Sequence[Any]], Iterable[str]]

_EXTRA = attrgetter("extra")


@shapes.per_class
def record_writer(cls: type[Any]) -> One:
    """Make the function that writes the fields of a record of this class, and its `extra`, as one JSON object.

    It raises whatever its checks raise; `mistakes` tells the same with paths.
    """
    known = shapes.fields(cls)
    template = "{" + ",".join(f"{quote(f.name)}:%s" for f in known) + "}"
    writers = tuple(_one(f.shape) for f in known)
    values = attrgetter(*(f.name for f in known))
    single = len(known) == 1
    never = shapes.never_written(cls)
    names = never.union(f.name for f in known)

    def write(record: Any) -> str:
        if record.__class__ is not cls or (never and any(getattr(record, name) for name in never)):
            raise MessageError(f"not a {cls.__name__} to be written")
        said = template % tuple(map(call, writers, (values(record),) if single else values(record)))
        return _with_extra(said, record.extra, names) if record.extra else said

    return write


@shapes.per_class
def records_writer(cls: type) -> Many:
    """Make the function that writes many records of one class.

    It goes by columns, one field of all the records at a time: a push is mostly one list of commits, and this halves
    its cost.
    """
    known = shapes.fields(cls)
    names = frozenset(f.name for f in known)
    getters = [attrgetter(f.name) for f in known]
    writers = [_bare(f.shape) or _many(f.shape) for f in known]
    quotes = ["" if _bare(f.shape) is None else '"' for f in known]
    # What stands before each value: the brace or comma, its name, and the quotes that close the last and open this.
    before = [
        repeat(f"{end},{quote(f.name)}:{start}" if i else f"{{{quote(f.name)}:{start}")
        for i, (end, f, start) in enumerate(zip(["", *quotes], known, quotes, strict=False))
    ]
    after = repeat(quotes[-1] + "}")

    def write(records: Sequence[Any]) -> Iterable[str]:
        if not records:
            return ()
        if set(map(type, records)) != {cls}:
            raise MessageError(f"not all are {cls.__name__}")
        columns = [write_all(list(map(get, records))) for write_all, get in zip(writers, getters, strict=True)]
        said = map("".join, zip(*chain.from_iterable(zip(before, columns, strict=True)), after, strict=False))
        if any(map(_EXTRA, records)):
            return [_with_extra(s, r.extra, names) for s, r in zip(said, records, strict=True)]
        return said

    return write


def _bare(shape: Shape) -> Many | None:
    """For values that are the same in JSON but for the quotes: look at all of them in one call, and leave them."""
    if not isinstance(shape, Leaf) or shape.all_good is None or "pattern" not in shape.schema:
        return None
    all_good = shape.all_good

    def same(values: Sequence[Any]) -> Sequence[Any]:
        if not all_good(values):
            raise MessageError(f"expected {shape.expected}")
        return values

    return same


def _with_extra(said: str, extra: Mapping[str, object], names: frozenset[str]) -> str:
    if not extra:
        return said
    if not names.isdisjoint(extra) or not tame(dict(extra)):
        raise MessageError("extra")
    return f"{said[:-1]}{',' if names else ''}{dump(dict(extra))[1:]}"


def _one(shape: Shape) -> One:
    match shape:
        case Leaf():
            return _leaf_writer(shape)
        case ListOf(item=item):
            many = _many(item)
            return lambda values: _list(many, values)
        case Maybe(item=item):
            inner = _one(item)
            return lambda value: "null" if value is None else inner(value)
        case Record(cls=cls):
            return record_writer(cls)


def _many(shape: Shape) -> Many:
    if isinstance(shape, Record):
        return records_writer(shape.cls)
    one = _one(shape)
    return lambda values: map(one, values)


def _list(many: Many, values: object) -> str:
    if not isinstance(values, tuple | list) or len(values) > MAX_ITEMS:
        raise MessageError("not a list in bounds")
    return f"[{','.join(many(values))}]"


def _leaf_writer(leaf: Leaf) -> One:
    check = leaf.check
    if check is shapes.text:
        return quote  # refuses anything but a text by itself
    if check is shapes.moment:
        return lambda value: quote(shapes.moment_text(value))
    if leaf.schema.get("type") == "string" or "enum" in leaf.schema:
        return lambda value: quote(check(value))
    if leaf.schema.get("type") == "object":
        return lambda value: dump(dict(check(value)))
    if leaf.schema.get("type") == "boolean":
        return lambda value: "true" if check(value) else "false"
    plain = float.__repr__ if leaf.schema.get("type") == "number" else int.__repr__
    return lambda value: plain(check(value))  # the checks let no NaN and no infinity pass


def mistakes(record: Any, path: str = "") -> list[str]:
    """List what is wrong with a record that could not be written, each with its path; never a value."""
    found: list[str] = []
    for field in shapes.fields(record.__class__):
        found += _mistakes(field.shape, getattr(record, field.name), path + field.name)
    never = shapes.never_written(record.__class__)
    found += [f"{path}{name}: is never written to this wire" for name in sorted(never) if getattr(record, name)]
    extra = getattr(record, "extra", {})
    names = never.union(f.name for f in shapes.fields(record.__class__))
    found += [f"{path}extra: {k} is a field of its own" for k in sorted(names.intersection(extra))]
    if not tame(dict(extra)):
        found.append(f"{path}extra: expected JSON values within the limits on depth and length")
    return found


def _mistakes(shape: Shape, value: object, path: str) -> list[str]:
    match shape:
        case Leaf():
            return [] if _passes(shape, value) else [f"{path}: expected {shape.expected}"]
        case ListOf(item=item):
            if not isinstance(value, tuple | list) or len(value) > MAX_ITEMS:
                return [f"{path}: expected a list of at most {MAX_ITEMS}"]
            return [m for i, v in enumerate(value) for m in _mistakes(item, v, f"{path}[{i}]")]
        case Maybe(item=item):
            return [] if value is None else _mistakes(item, value, path)
        case Record(cls=cls):
            return mistakes(value, f"{path}.") if isinstance(value, cls) else [f"{path}: expected a {cls.__name__}"]


def _passes(leaf: Leaf, value: object) -> bool:
    try:
        if leaf.check is shapes.moment:
            return isinstance(value, datetime) and bool(shapes.moment_text(value))
        _leaf_writer(leaf)(value).encode()
    except (DeploykitError, TypeError, ValueError, RecursionError):
        return False
    return True
