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
from typing import Any, Final, TypeAlias

from deploykit.errors import DeploykitError, MessageError
from deploykit.wire import field_types
from deploykit.wire.field_types import Leaf, ListOf, Maybe, RecordType, Shape
from deploykit.wire.strictjson import MAX_ITEMS, dump, tame

One: TypeAlias = Callable[[Any], str]
Many: TypeAlias = Callable[[Sequence[Any]], Iterable[str]]

_EXTRA = attrgetter("extra")


@field_types.per_class
def record_writer(cls: type[Any]) -> One:
    """Make the function that writes the fields of a record of this class, and its `extra`, as one JSON object.

    It raises whatever its checks raise; `mistakes` tells the same with paths.
    """
    known = field_types.fields(cls)
    # Joined, not formatted: a join sizes its result once, and that of a push is long.
    bare = [_bare(f.shape) for f in known]
    before = [
        _before(f.name, first=not i)[i > 0 and bare[i - 1] is not None][bare[i] is not None]
        for i, f in enumerate(known)
    ]
    end = "}" if bare[-1] is None else '"}'
    writers = tuple(check or _one(f.shape) for check, f in zip(bare, known, strict=True))
    values = attrgetter(*(f.name for f in known))
    single = len(known) == 1
    never = field_types.never_written(cls)
    names = never.union(f.name for f in known)

    def write(record: Any) -> str:
        if record.__class__ is not cls or (never and any(getattr(record, name) for name in never)):
            raise MessageError(f"not a {cls.__name__} to be written")
        told = map(call, writers, (values(record),) if single else values(record))
        said = "".join(chain(chain.from_iterable(zip(before, told, strict=True)), (end,)))
        return _with_extra(said, record.extra, names) if record.extra else said

    return write


@field_types.per_class
def records_writer(cls: type) -> Many:
    """Make the function that writes many records of one class.

    It goes by columns, one field of all the records at a time: a push is mostly one list of commits, and this halves
    its cost.
    """
    known = field_types.fields(cls)
    names = frozenset(f.name for f in known)
    columns = [(attrgetter(f.name), _column(f.shape), _before(f.name, first=not i)) for i, f in enumerate(known)]

    def write(records: Sequence[Any]) -> Iterable[str]:
        if not records:
            return ()
        if set(map(type, records)) != {cls}:
            raise MessageError(f"not all are {cls.__name__}")
        pieces: list[Iterable[str]] = []
        bare = False
        for get, write_all, before in columns:
            closes = bare
            said, bare = write_all(list(map(get, records)))
            pieces += (repeat(before[closes][bare]), said)
        made = map("".join, zip(*pieces, repeat('"}' if bare else "}"), strict=False))
        if any(map(_EXTRA, records)):
            return [_with_extra(s, r.extra, names) for s, r in zip(made, records, strict=True)]
        return made

    return write


def _before(name: str, *, first: bool) -> tuple[tuple[str, str], tuple[str, str]]:
    """Write what stands before a value: by whether the one before it is bare, then by whether it is itself."""
    said = f"{'{' if first else ','}{quote(name)}:"
    return (said, f'{said}"'), (f'"{said}', f'"{said}"')


def _bare(shape: Shape) -> One | None:
    """Find the check of a value that is the same in JSON but for the quotes around it."""
    return shape.check if isinstance(shape, Leaf) and shape.plain else None


def _column(shape: Shape) -> Callable[[Sequence[Any]], tuple[Iterable[str], bool]]:
    """Make the function that writes many values of one shape, and tells whether they are bare: still without quotes.

    Texts that JSON writes as they are need one look at all of them, not a call for each.
    """
    if isinstance(shape, Leaf) and shape.check is field_types.text:
        return _texts
    if isinstance(shape, Leaf) and shape.all_good is not None and shape.plain:
        all_good = shape.all_good

        def same(values: Sequence[Any]) -> tuple[Iterable[str], bool]:
            if not all_good(values):
                raise MessageError(f"expected {shape.expected}")
            return values, True

        return same
    many = _many(shape)
    return lambda values: (many(values), False)


#: The bytes that stand in a JSON text for themselves.
_AS_THEY_ARE: Final = bytes(b for b in range(0x20, 0x100) if b not in b'"\\')


def _texts(values: Sequence[Any]) -> tuple[Iterable[str], bool]:
    together = "".join(values)  # refuses anything but texts
    # The usual reasons for quoting first: they are found sooner.
    if "\n" in together or '"' in together or together.encode().translate(None, _AS_THEY_ARE):
        return map(quote, values), False
    return values, True


def _with_extra(said: str, extra: object, names: frozenset[str]) -> str:
    if not extra:
        return said
    if not isinstance(extra, Mapping) or not names.isdisjoint(extra) or not tame(dict(extra)):
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
        case RecordType(cls=cls):
            return record_writer(cls)


def _many(shape: Shape) -> Many:
    if isinstance(shape, RecordType):
        return records_writer(shape.cls)
    one = _one(shape)
    return lambda values: map(one, values)


def _list(many: Many, values: object) -> str:
    if not isinstance(values, tuple | list) or len(values) > MAX_ITEMS:
        raise MessageError("not a list in bounds")
    return f"[{','.join(many(values))}]"


def _leaf_writer(leaf: Leaf) -> One:
    check = leaf.check
    if check is field_types.text:
        return quote  # refuses anything but a text by itself
    if check is field_types.moment:
        return lambda value: quote(field_types.moment_text(value))
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
    for field in field_types.fields(record.__class__):
        found += _mistakes(field.shape, getattr(record, field.name), path + field.name)
    never = field_types.never_written(record.__class__)
    found += [f"{path}{name}: is never written to this wire" for name in sorted(never) if getattr(record, name)]
    extra = getattr(record, "extra", {})
    if not isinstance(extra, Mapping):
        return [*found, f"{path}extra: expected a map"]
    names = never.union(f.name for f in field_types.fields(record.__class__))
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
        case RecordType(cls=cls):
            return mistakes(value, f"{path}.") if isinstance(value, cls) else [f"{path}: expected a {cls.__name__}"]


def _passes(leaf: Leaf, value: object) -> bool:
    try:
        if leaf.check is field_types.moment:
            return isinstance(value, datetime) and bool(field_types.moment_text(value))
        _leaf_writer(leaf)(value).encode()
    except (DeploykitError, TypeError, ValueError, RecursionError):
        return False
    return True
