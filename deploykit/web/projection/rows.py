"""The rows that one transaction reads and changes: read when they are first asked for, written together at its end.

Rules:

* What a fold put is what the next fold reads, within the transaction.
* A row that did not change is not written. Nothing is written before the end: a batch is one statement a table.
* Rows that are found by other columns than the key are read once: after that, what is here answers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from operator import itemgetter
from typing import Any, Final

import attrs
from sqlalchemy import Connection, Delete, Dialect, Select, Table, bindparam, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from deploykit.web.projection.cells import Row

_Key = tuple[object, ...]


class WorkingRows:
    """Rows by table and primary key. Not for several threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: dict[Table, dict[_Key, Row | None]] = {}
        self._before: dict[Table, dict[_Key, Row | None]] = {}
        self._changed: dict[Table, dict[_Key, None]] = {}
        #: By table and columns that were asked for: the keys of the rows that have these values, or had them.
        self._groups: dict[Table, dict[tuple[str, ...], _Groups]] = {}
        #: Sites that must be compared anew.
        self.touched: set[str] = set()

    @property
    def connection(self) -> Connection:
        """The connection: for statements that change no row which was read here."""
        return self._connection

    def get(self, table: Table, *key: object) -> Row | None:
        """Return a copy of the row with that primary key; None where there is none."""
        row = self._known(table, key)
        return None if row is None else dict(row)

    def get_or_new(self, table: Table, **key: object) -> tuple[Row, bool]:
        """Return a copy of a row, or a new one with the columns' defaults; and whether it is new."""
        row = self.get(table, *key.values())
        return (row, False) if row is not None else ({**_defaults(table), **key}, True)

    def select(self, table: Table, **equal: object) -> list[Row]:
        """Return copies of all rows in which these columns have these values."""
        columns, values = tuple(equal), tuple(equal.values())
        groups = self._grouped(table, columns)
        if values not in groups.read:
            self._read(table, columns, values, groups)
            groups.read.add(values)
        known = self._rows[table]
        rows = [row for key in groups.keys[values] if (row := known[key]) is not None]
        return [dict(row) for row in rows if all(row[name] == equal[name] for name in columns)]

    def load(self, table: Table, columns: tuple[str, ...], values: Iterable[_Key], **equal: object) -> None:
        """Read at once what `select` is going to be asked for.

        Args:
            table: of the rows.
            columns: those by which they are going to be selected.
            values: with these values each.
            equal: no row with those values has other ones than these.
        """
        groups = self._grouped(table, columns)
        wanted = [each for each in values if each not in groups.read]
        if len(wanted) > 1:
            self._read(table, tuple(equal), tuple(equal.values()), groups)
            groups.read.update(wanted)

    def put(self, table: Table, row: Row) -> bool:
        """Keep a row for the end of the transaction; return whether it differs from what is there."""
        key = _shape(table).key_of(row)
        if self._known(table, key) == row:
            return False
        self._change(table, key, dict(row))
        return True

    def put_new(self, table: Table, row: Row) -> None:
        """Keep a row that is known not to be there, for the end of the transaction; do not change it afterwards."""
        key = _shape(table).key_of(row)
        if key not in self._rows.setdefault(table, {}):
            self._note(table, key, None)
        self._change(table, key, row)

    def remove(self, table: Table, *key: object) -> None:
        """Remove a row at the end of the transaction."""
        if self._known(table, key) is not None:
            self._change(table, key, None)

    def changes(self, table: Table) -> Iterator[tuple[Row | None, Row | None]]:
        """Yield what a flush will change: each row as it is in the database, and as it will be."""
        for key in self._changed.get(table, ()):
            yield self._before[table][key], self._rows[table][key]

    def let_go(self, table: Table) -> None:
        """Write what changed of one table and forget its rows: statements of one's own may change them now."""
        if table in self._changed:
            self._write(table)
        for kept in (self._rows, self._before, self._groups):
            kept.pop(table, None)

    def flush(self) -> None:
        """Write all that changed."""
        for table in list(self._changed):
            self._write(table)
        self._rows.clear()
        self._before.clear()
        self._groups.clear()

    def _known(self, table: Table, key: _Key) -> Row | None:
        known = self._rows.setdefault(table, {})
        if key not in known:
            shape, found = _shape(table), None
            if not self._read_with_others(table, key):
                values = dict(zip(shape.keys, key, strict=True))
                found = self._connection.execute(_select(table, shape.keys), values).first()
            self._note(table, key, None if found is None else dict(zip(shape.columns, found, strict=True)))
        return known[key]

    def _read_with_others(self, table: Table, key: _Key) -> bool:
        """Return whether all rows that share a part of this key were read: what is not among them is not there."""
        values = dict(zip(_shape(table).keys, key, strict=True))
        return any(
            groups.values_of(values) in groups.read
            for columns, groups in self._groups.get(table, {}).items()
            if values.keys() >= set(columns)
        )

    def _read(self, table: Table, columns: tuple[str, ...], values: _Key, groups: _Groups) -> None:
        """Read rows by other columns than the key."""
        known, shape = self._rows.setdefault(table, {}), _shape(table)
        for found in self._connection.execute(_select(table, columns), dict(zip(columns, values, strict=True))):
            row = dict(zip(shape.columns, found, strict=True))
            key = shape.key_of(row)
            groups.keys[groups.values_of(row)][key] = None
            if key not in known:
                self._note(table, key, row)

    def _grouped(self, table: Table, columns: tuple[str, ...]) -> _Groups:
        tracked = self._groups.setdefault(table, {})
        groups = tracked.get(columns)
        if groups is None:
            groups = tracked[columns] = _Groups(values_of=_getter(columns))
            known = self._rows.setdefault(table, {})
            for key in self._changed.get(table, ()):
                if (row := known[key]) is not None:
                    groups.keys[groups.values_of(row)][key] = None
        return groups

    def _change(self, table: Table, key: _Key, row: Row | None) -> None:
        self._rows[table][key] = row
        self._changed.setdefault(table, {})[key] = None
        if row is not None:
            for groups in self._groups.get(table, {}).values():
                groups.keys[groups.values_of(row)][key] = None

    def _write(self, table: Table) -> None:
        keys = self._changed.pop(table)
        rows, before, shape = self._rows[table], self._before[table], _shape(table)
        gone = [key for key in keys if rows[key] is None and before[key] is not None]
        changed = [row for key in keys if (row := rows[key]) is not None and row != before[key]]
        if gone:
            self._connection.execute(_delete(table), [dict(zip(shape.keys, key, strict=True)) for key in gone])
        if changed:
            upsert = _upsert(table, self._connection.dialect)
            # SQLAlchemy would prepare each value, which costs more than the database: these are as drivers take them.
            self._connection.exec_driver_sql(upsert.sql, [upsert.values_of(row) for row in changed])

    def _note(self, table: Table, key: _Key, row: Row | None) -> None:
        self._rows.setdefault(table, {})[key] = row
        self._before.setdefault(table, {})[key] = row


def new_row(table: Table, **values: object) -> Row:
    """Return a row of a table with its columns' defaults and some values."""
    return {**_defaults(table), **values}


@attrs.frozen(kw_only=True, slots=True)
class _Groups:
    """Keys of rows by the values of other columns. `read`: of these all that the database holds are here."""

    values_of: Callable[[Mapping[str, object]], _Key]
    keys: defaultdict[_Key, dict[_Key, None]] = attrs.field(factory=lambda: defaultdict(dict))
    read: set[_Key] = attrs.field(factory=set)


@attrs.frozen(kw_only=True, slots=True)
class _Shape:
    """The names of a table's columns and of its key's; `key_of` returns the key of a row."""

    columns: tuple[str, ...]
    keys: tuple[str, ...]
    key_of: Callable[[Mapping[str, object]], _Key]


@attrs.frozen(kw_only=True, slots=True)
class _Upsert:
    """A statement as a driver takes it; `values_of` returns the values of a row for it."""

    sql: str
    values_of: Callable[[Row], Any]


@cache
def _shape(table: Table) -> _Shape:
    keys = tuple(column.name for column in table.primary_key)
    return _Shape(columns=tuple(table.columns.keys()), keys=keys, key_of=_getter(keys))


def _getter(names: tuple[str, ...]) -> Callable[[Mapping[str, object]], _Key]:
    first = names[0]
    return itemgetter(*names) if len(names) > 1 else lambda row: (row[first],)


@cache
def _defaults(table: Table) -> Mapping[str, object]:
    return {column.name: getattr(column.default, "arg", None) for column in table.columns}


@cache
def _select(table: Table, columns: tuple[str, ...]) -> Select[Any]:
    return select(table).where(*(table.c[name] == bindparam(name) for name in columns))


@cache
def _delete(table: Table) -> Delete:
    return delete(table).where(*(column == bindparam(column.name) for column in table.primary_key))


_UPSERTS: Final[dict[tuple[Table, str], _Upsert]] = {}


def _upsert(table: Table, dialect: Dialect) -> _Upsert:
    found = _UPSERTS.get((table, dialect.name))
    if found is None:
        module = postgresql if dialect.name == "postgresql" else sqlite
        insert = module.insert(table)
        shape = _shape(table)
        rest = {name: insert.excluded[name] for name in shape.columns if name not in shape.keys}
        if rest:
            insert = insert.on_conflict_do_update(index_elements=shape.keys, set_=rest)
        else:
            insert = insert.on_conflict_do_nothing(index_elements=shape.keys)
        compiled = insert.compile(dialect=dialect, column_keys=list(shape.columns))
        order = getattr(compiled, "positiontup", None)
        found = _Upsert(sql=str(compiled), values_of=_getter(tuple(order)) if order else dict)
        _UPSERTS[table, dialect.name] = found
    return found
