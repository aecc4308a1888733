"""Many flat records decoded at once, one field of all records at a time: a push is mostly one list of commits.

Twenty commits cost half of what they cost record by record, and the steps of a deploy a quarter, with the same checks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from operator import itemgetter
from types import MemberDescriptorType
from typing import Any, TypeAlias

import attrs

from deploykit.errors import DeploykitError
from deploykit.wire import field_types
from deploykit.wire.field_types import FieldType, Leaf, Maybe, RecordType

BatchReader: TypeAlias = Callable[[list[Any]], tuple[Any, ...] | None]
#: Returns the values of one field of all records, as they are in Python. Raises where one is not valid.
_ColumnReader: TypeAlias = Callable[[Sequence[Any]], Sequence[Any]]


class _NotValidError(ValueError):
    """A value is not valid; which one, and why, is found record by record."""


def batch_reader(kind: FieldType) -> BatchReader | None:
    """Return a reader for records of a class whose fields are single values; None for any other type.

    The reader returns None unless every record has just the known fields, all valid. Read them one by one then: that
    way handles unknown fields, and explains problems.
    """
    if not isinstance(kind, RecordType):
        return None
    fields = field_types.fields(kind.cls)
    readers = [reader for f in fields if (reader := _column_reader(f.type)) is not None]
    make = _maker(kind.cls, [f.name for f in fields])
    if make is None or len(fields) < 2 or len(readers) < len(fields):
        return None
    only = {len(fields)}
    values = itemgetter(*(f.name for f in fields))

    def read(records: list[Any]) -> tuple[Any, ...] | None:
        try:
            columns = zip(*map(values, records), strict=True)
            if set(map(len, records)) != only:
                return None
            return make(len(records), [reader(column) for reader, column in zip(readers, columns, strict=True)])
        # A field is missing, a record or a value is of another type, or not valid.
        except (DeploykitError, KeyError, TypeError, ValueError):
            return None

    return read


def _column_reader(kind: FieldType) -> _ColumnReader | None:
    if isinstance(kind, Leaf):
        return _valid_as_they_are(kind.all_valid) if kind.all_valid is not None else _one_by_one(kind.check)
    if isinstance(kind, Maybe) and isinstance(kind.item, Leaf):
        check = kind.item.check
        return _one_by_one(lambda value: None if value is None else check(value))
    return None


def _valid_as_they_are(all_valid: Callable[[Sequence[Any]], bool]) -> _ColumnReader:
    def read(column: Sequence[Any]) -> Sequence[Any]:
        if not all_valid(column):
            raise _NotValidError
        return column

    return read


def _one_by_one(check: Callable[[Any], Any]) -> _ColumnReader:
    return lambda column: [check(value) for value in column]


def _maker(cls: type, names: list[str]) -> Callable[[int, list[Sequence[Any]]], tuple[Any, ...]] | None:
    """Return a function that makes many instances of a frozen slotted class; None if its `__init__` does more."""
    attributes = attrs.fields(cls)
    slots = {a.name: getattr(cls, a.name, None) for a in attributes}
    rest = {a.name: a.default for a in attributes if a.name not in names}
    if (
        hasattr(cls, "__attrs_post_init__")
        or any(a.validator is not None or a.converter is not None for a in attributes)
        or not all(isinstance(slot, MemberDescriptorType) for slot in slots.values())
        or any(default is attrs.NOTHING or isinstance(default, attrs.Factory) for default in rest.values())  # type: ignore[arg-type]
    ):
        return None
    setters = [slots[name].__set__ for name in names]  # type: ignore[union-attr]
    defaults = [(slots[name].__set__, default) for name, default in rest.items()]  # type: ignore[union-attr]

    def make(count: int, columns: list[Sequence[Any]]) -> tuple[Any, ...]:
        made: tuple[Any, ...] = tuple(map(object.__new__, repeat(cls, count)))
        for set_field, column in zip(setters, columns, strict=True):
            _run(map(set_field, made, column))
        for set_field, default in defaults:
            _run(map(set_field, made, repeat(default)))
        return made

    return make


#: Makes the calls of an iterator and keeps nothing.
_run: Callable[[Iterable[object]], None] = deque[object](maxlen=0).extend
