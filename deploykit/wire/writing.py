"""Messages to JSON text, by a writer made once per class. It is on the push's path: no cattrs, no dicts in between.

Rule: what is written, a reader accepts: every value passes the same check that reading applies. A message that fails
one is refused with all its mistakes, each with its path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from json.encoder import encode_basestring as quote
from operator import attrgetter
from typing import Any, TypeAlias

from deploykit.errors import DeploykitError, MessageError
from deploykit.wire import shapes
from deploykit.wire.shapes import Leaf, ListOf, Maybe, Record, Shape
from deploykit.wire.strictjson import MAX_ITEMS, dump, tame

Writer: TypeAlias = Callable[[Any], str]


@shapes.per_class
def record_writer(cls: type) -> Writer:
    """Make the function that writes the fields of `cls`, and its `extra`, as one JSON object.

    It raises whatever its checks raise; `mistakes` tells the same with paths.
    """
    known = shapes.fields(cls)
    template = "{" + ",".join(f"{quote(f.name)}:%s" for f in known) + "}"
    writers = tuple(_writer(f.shape) for f in known)
    values = attrgetter(*(f.name for f in known))
    single = len(known) == 1
    names = frozenset(f.name for f in known)

    def write(record: Any) -> str:
        held = (values(record),) if single else values(record)
        said = template % tuple([w(v) for w, v in zip(writers, held, strict=True)])
        if record.extra:
            said = said[:-1] + "," + _extra(record.extra, names)[1:]
        return said

    return write


def _extra(extra: Mapping[str, object], names: frozenset[str]) -> str:
    if not names.isdisjoint(extra) or not tame(dict(extra)):
        raise MessageError("extra")
    return dump(dict(extra))


def _writer(shape: Shape) -> Writer:
    match shape:
        case Leaf():
            return _leaf_writer(shape)
        case ListOf(item=item):
            return _list_writer(_writer(item))
        case Maybe(item=item):
            inner = _writer(item)
            return lambda value: "null" if value is None else inner(value)
        case Record(cls=cls):
            return _typed_writer(cls)


def _typed_writer(cls: type[Any]) -> Writer:
    write = record_writer(cls)

    def typed(value: object) -> str:
        if value.__class__ is not cls:
            raise MessageError(f"not a {cls.__name__}")
        return write(value)

    return typed


def _list_writer(item: Writer) -> Writer:
    def write(values: object) -> str:
        if not isinstance(values, tuple | list) or len(values) > MAX_ITEMS:
            raise MessageError("not a list in bounds")
        return "[" + ",".join(map(item, values)) + "]"

    return write


def _leaf_writer(leaf: Leaf) -> Writer:
    check = leaf.check
    if check is shapes.text:
        return quote  # refuses anything but a text by itself
    if check is shapes.moment:
        return lambda value: quote(shapes.moment_text(value))
    if leaf.schema.get("type") == "string" or "enum" in leaf.schema:
        return lambda value: quote(check(value))
    if leaf.schema.get("type") == "object":
        return lambda value: dump(dict(check(value)))
    return lambda value: dump(check(value))


def mistakes(record: Any, path: str = "") -> list[str]:
    """List what is wrong with a record that could not be written, each with its path; never a value."""
    found: list[str] = []
    for field in shapes.fields(record.__class__):
        found += _mistakes(field.shape, getattr(record, field.name), path + field.name)
    extra = getattr(record, "extra", {})
    names = {f.name for f in shapes.fields(record.__class__)}
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
