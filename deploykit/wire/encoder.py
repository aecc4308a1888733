"""Messages to JSON text, by a writer made once per class. On the push's path: no cattrs, no dicts in between.

Rule: every value passes the same check that the decoder applies, so a reader accepts what is written. A message that
fails a check is refused with all its problems, each with its path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from itertools import chain, repeat
from json.encoder import encode_basestring as quote
from operator import attrgetter, call
from typing import Any, Final, TypeAlias

from deploykit.errors import DeploykitError, MessageError
from deploykit.wire import field_types
from deploykit.wire.field_types import FieldType, Leaf, ListOf, Maybe, RecordType
from deploykit.wire.forms import forms
from deploykit.wire.strictjson import MAX_ITEMS, dump, within_limits
from deploykit.wire.times import format_time, parse_time

Writer: TypeAlias = Callable[[Any], str]
BatchWriter: TypeAlias = Callable[[Sequence[Any]], Iterable[str]]

_EXTRA = attrgetter("extra")


@field_types.per_class
def record_writer(cls: type[Any]) -> Writer:
    """Return the function that writes a record of this class, with its `extra`, as one JSON object.

    It raises whatever its checks raise; `problems_of` returns the same with paths.
    """
    defaults = field_types.absent_by_default(cls)
    if not defaults:
        return _some_fields_writer(cls, frozenset())
    choices = forms(cls)

    @cache
    def without(absent: frozenset[str]) -> Writer:
        return _some_fields_writer(cls, absent)

    def write(record: Any) -> str:
        same = {name for name, default in defaults.items() if getattr(record, name, default) == default}
        for instead, others in choices.items():
            if instead not in same:
                same.update(others)
        return without(frozenset(same))(record)

    return write


def _some_fields_writer(cls: type[Any], absent: frozenset[str]) -> Writer:
    """Return the function that writes all fields of a record but the absent ones."""
    known = tuple(f for f in field_types.fields(cls) if f.name not in absent)
    # Joined, not formatted: a join allocates its result once, and that of a push is long.
    bare = [_bare(f.type) for f in known]
    before = [
        _before(f.name, first=not i)[i > 0 and bare[i - 1] is not None][bare[i] is not None]
        for i, f in enumerate(known)
    ]
    end = "}" if bare[-1] is None else '"}'
    writers = tuple(check or _writer(f.type) for check, f in zip(bare, known, strict=True))
    values = attrgetter(*(f.name for f in known))
    single = len(known) == 1
    never = field_types.never_written(cls)
    names = never.union((f.name for f in known), absent)

    def write(record: Any) -> str:
        if record.__class__ is not cls or (never and any(getattr(record, name) for name in never)):
            raise MessageError(f"not a {cls.__name__} to be written")
        written = map(call, writers, (values(record),) if single else values(record))
        text = "".join(chain(chain.from_iterable(zip(before, written, strict=True)), (end,)))
        return _with_extra(text, record.extra, names) if record.extra else text

    return write


@field_types.per_class
def records_writer(cls: type) -> BatchWriter:
    """Return the function that writes many records of one class.

    It writes one field of all records at a time: a push is mostly one list of commits, and this halves its cost.
    """
    known = field_types.fields(cls)
    names = frozenset(f.name for f in known)
    columns = [(attrgetter(f.name), _column(f.type), _before(f.name, first=not i)) for i, f in enumerate(known)]

    def write(records: Sequence[Any]) -> Iterable[str]:
        if not records:
            return ()
        if set(map(type, records)) != {cls}:
            raise MessageError(f"not all are {cls.__name__}")
        pieces: list[Iterable[str]] = []
        bare = False
        for get, write_all, before in columns:
            closes = bare
            written, bare = write_all(list(map(get, records)))
            pieces += (repeat(before[closes][bare]), written)
        made = map("".join, zip(*pieces, repeat('"}' if bare else "}"), strict=False))
        if any(map(_EXTRA, records)):
            return [_with_extra(s, r.extra, names) for s, r in zip(made, records, strict=True)]
        return made

    return write


def _before(name: str, *, first: bool) -> tuple[tuple[str, str], tuple[str, str]]:
    """Return what stands before a value: by whether the previous value is bare, then by whether this one is."""
    key = f"{'{' if first else ','}{quote(name)}:"
    return (key, f'{key}"'), (f'"{key}', f'"{key}"')


def _bare(kind: FieldType) -> Writer | None:
    """Return the check of a value that JSON writes as it is, between quotes; None for other types."""
    return kind.check if isinstance(kind, Leaf) and kind.bare else None


def _column(kind: FieldType) -> Callable[[Sequence[Any]], tuple[Iterable[str], bool]]:
    """Return the function that writes many values of one type; it also returns whether they lack their quotes.

    Texts that JSON writes as they are need one check of all of them, not a call for each.
    """
    if isinstance(kind, Leaf) and kind.check is field_types.text:
        return _texts
    if isinstance(kind, Leaf) and kind.all_valid is not None and kind.bare:
        all_valid = kind.all_valid

        def same(values: Sequence[Any]) -> tuple[Iterable[str], bool]:
            if not all_valid(values):
                raise MessageError(f"expected {kind.expected}")
            return values, True

        return same
    many = _batch_writer(kind)
    return lambda values: (many(values), False)


#: The bytes that stand in a JSON text for themselves.
_AS_THEY_ARE: Final = bytes(b for b in range(0x20, 0x100) if b not in b'"\\')


def _texts(values: Sequence[Any]) -> tuple[Iterable[str], bool]:
    together = "".join(values)  # refuses anything but texts
    # The usual reasons for escaping first: they are found sooner.
    if "\n" in together or '"' in together or together.encode().translate(None, _AS_THEY_ARE):
        return map(quote, values), False
    return values, True


def _with_extra(text: str, extra: object, names: frozenset[str]) -> str:
    if not extra:
        return text
    if not isinstance(extra, Mapping) or not names.isdisjoint(extra) or not within_limits(dict(extra)):
        raise MessageError("extra")
    return f"{text[:-1]}{',' if names else ''}{dump(dict(extra))[1:]}"


def _writer(kind: FieldType) -> Writer:
    match kind:
        case Leaf():
            return _leaf_writer(kind)
        case ListOf(item=item, most=most):
            many = _batch_writer(item)
            return lambda values: _list(many, values, most or MAX_ITEMS)
        case Maybe(item=item):
            inner = _writer(item)
            return lambda value: "null" if value is None else inner(value)
        case RecordType(cls=cls):
            return record_writer(cls)


def _batch_writer(kind: FieldType) -> BatchWriter:
    if isinstance(kind, RecordType) and not field_types.absent_by_default(kind.cls):
        return records_writer(kind.cls)
    one = _writer(kind)  # of records whose fields stand there or not, each is written by itself
    return lambda values: map(one, values)


def _list(many: BatchWriter, values: object, most: int) -> str:
    if not isinstance(values, tuple | list) or len(values) > most:
        raise MessageError("not a list in bounds")
    return f"[{','.join(many(values))}]"


def _leaf_writer(leaf: Leaf) -> Writer:
    check = leaf.check
    if check is field_types.text:
        return quote  # refuses anything but a text by itself
    if check is parse_time:
        return lambda value: quote(format_time(value))
    if leaf.schema.get("type") == "string" or "enum" in leaf.schema:
        return lambda value: quote(check(value))
    if leaf.schema.get("type") == "object":
        return lambda value: dump(dict(check(value)))
    if leaf.schema.get("type") == "boolean":
        return lambda value: "true" if check(value) else "false"
    write = float.__repr__ if leaf.schema.get("type") == "number" else int.__repr__
    return lambda value: write(check(value))  # the checks let no NaN and no infinity pass


def problems_of(record: Any, path: str = "") -> list[str]:
    """Return what is wrong with a record that could not be written, each with its path, never with a value."""
    found: list[str] = []
    for field in field_types.fields(record.__class__):
        if field.unless and getattr(record, field.unless):
            continue
        found += _value_problems(field.type, getattr(record, field.name), path + field.name)
    never = field_types.never_written(record.__class__)
    found += [f"{path}{name}: is never written to the wire" for name in sorted(never) if getattr(record, name)]
    extra = getattr(record, "extra", {})
    if not isinstance(extra, Mapping):
        return [*found, f"{path}extra: expected a map"]
    names = never.union(f.name for f in field_types.fields(record.__class__))
    found += [f"{path}extra: {k} is a field of its own" for k in sorted(names.intersection(extra))]
    if not within_limits(dict(extra)):
        found.append(f"{path}extra: expected JSON values within the limits on depth and length")
    return found


def _value_problems(kind: FieldType, value: object, path: str) -> list[str]:
    match kind:
        case Leaf():
            return [] if _passes(kind, value) else [f"{path}: expected {kind.expected}"]
        case ListOf(item=item, most=most):
            most = most or MAX_ITEMS
            if not isinstance(value, tuple | list) or len(value) > most:
                return [f"{path}: expected a list of at most {most}"]
            return [line for i, v in enumerate(value) for line in _value_problems(item, v, f"{path}[{i}]")]
        case Maybe(item=item):
            return [] if value is None else _value_problems(item, value, path)
        case RecordType(cls=cls):
            return problems_of(value, f"{path}.") if isinstance(value, cls) else [f"{path}: expected a {cls.__name__}"]


def _passes(leaf: Leaf, value: object) -> bool:
    try:
        if leaf.check is parse_time:
            return isinstance(value, datetime) and bool(format_time(value))
        _leaf_writer(leaf)(value).encode()
    except (DeploykitError, TypeError, ValueError, RecursionError):
        return False
    return True
