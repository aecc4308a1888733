"""The rows that one transaction reads and changes: read when they are first asked for, written together at its end.

Rules:

* What a fold put is what the next fold reads, within the transaction.
* A row that did not change is not written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, Delete, Insert, Select, Table, bindparam, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from deploykit.web.projection.cells import Row

_Key = tuple[object, ...]


class WorkingRows:
    """Rows by table and primary key. Not for several threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: dict[Table, dict[_Key, Row | None]] = {}
        self._before: dict[Table, dict[_Key, Row | None]] = {}
        self._changed: dict[Table, set[_Key]] = {}
        #: Sites that must be compared anew.
        self.touched: set[str] = set()

    @property
    def connection(self) -> Connection:
        """The connection: for statements that change no row which was read here."""
        return self._connection

    def get(self, table: Table, *key: object) -> Row | None:
        """Return a copy of the row with that primary key; None where there is none."""
        known = self._rows.setdefault(table, {})
        if key not in known:
            values = {f"k{at}": value for at, value in enumerate(key)}
            found = self._connection.execute(_by_key(table), values).mappings().first()
            self._note(table, key, None if found is None else dict(found))
        row = known[key]
        return None if row is None else dict(row)

    def get_or_new(self, table: Table, **key: object) -> tuple[Row, bool]:
        """Return a copy of a row, or a new one with the columns' defaults; and whether it is new."""
        row = self.get(table, *key.values())
        return (row, False) if row is not None else ({**_defaults(table), **key}, True)

    def select(self, table: Table, **equal: object) -> list[Row]:
        """Return copies of all rows in which these columns have these values."""
        self._write(table)
        statement = select(table)
        for name, value in equal.items():
            statement = statement.where(table.c[name] == value)
        known = self._rows.setdefault(table, {})
        result = []
        for found in self._connection.execute(statement).mappings():
            row = dict(found)
            key = _key_of(table, row)
            if key not in known:
                self._note(table, key, row)
            result.append(dict(row))
        return result

    def put(self, table: Table, row: Row) -> bool:
        """Keep a row for the end of the transaction; return whether it differs from what is there."""
        key = _key_of(table, row)
        if self.get(table, *key) == row:
            return False
        self._rows[table][key] = dict(row)
        self._changed.setdefault(table, set()).add(key)
        return True

    def put_new(self, table: Table, row: Row) -> None:
        """Keep a row that is known not to be there, for the end of the transaction."""
        key = _key_of(table, row)
        if key not in self._rows.setdefault(table, {}):
            self._note(table, key, None)
        self._rows[table][key] = dict(row)
        self._changed.setdefault(table, set()).add(key)

    def remove(self, table: Table, *key: object) -> None:
        """Remove a row at the end of the transaction."""
        if self.get(table, *key) is not None:
            self._rows[table][key] = None
            self._changed.setdefault(table, set()).add(key)

    def flush(self) -> None:
        """Write all that changed."""
        for table in list(self._changed):
            self._write(table)
        self._rows.clear()
        self._before.clear()

    def _write(self, table: Table) -> None:
        keys = self._changed.pop(table, None)
        if not keys:
            return
        rows, before = self._rows[table], self._before[table]
        gone = [key for key in keys if rows[key] is None and before[key] is not None]
        changed = [row for key in keys if (row := rows[key]) is not None and row != before[key]]
        if gone:
            values = [{f"k{at}": value for at, value in enumerate(key)} for key in gone]
            self._connection.execute(_delete(table), values)
        if changed:
            self._connection.execute(_upsert(table, self._connection.dialect.name), changed)
        before.update((key, rows[key]) for key in keys)

    def _note(self, table: Table, key: _Key, row: Row | None) -> None:
        self._rows.setdefault(table, {})[key] = row
        self._before.setdefault(table, {})[key] = row


def new_row(table: Table, **values: object) -> Row:
    """Return a row of a table with its columns' defaults and some values."""
    return {**_defaults(table), **values}


def _defaults(table: Table) -> Mapping[str, object]:
    found = _DEFAULTS.get(table)
    if found is None:
        found = {c.name: getattr(c.default, "arg", None) for c in table.columns}
        _DEFAULTS[table] = found
    return found


_DEFAULTS: Final[dict[Table, Mapping[str, object]]] = {}


def _key_of(table: Table, row: Mapping[str, object]) -> _Key:
    return tuple(row[column.name] for column in table.primary_key)


def _by_key(table: Table) -> Select[tuple[object, ...]]:
    found = _SELECTS.get(table)
    if found is None:
        found = select(table)
        for at, column in enumerate(table.primary_key):
            found = found.where(column == bindparam(f"k{at}"))
        _SELECTS[table] = found
    return found


def _delete(table: Table) -> Delete:
    found = _DELETES.get(table)
    if found is None:
        found = delete(table)
        for at, column in enumerate(table.primary_key):
            found = found.where(column == bindparam(f"k{at}"))
        _DELETES[table] = found
    return found


def _upsert(table: Table, dialect: str) -> Insert:
    found = _UPSERTS.get((table, dialect))
    if found is None:
        module = postgresql if dialect == "postgresql" else sqlite
        insert = module.insert(table)
        keys = [column.name for column in table.primary_key]
        rest = {c.name: insert.excluded[c.name] for c in table.columns if c.name not in keys}
        if rest:
            found = insert.on_conflict_do_update(index_elements=keys, set_=rest)
        else:
            found = insert.on_conflict_do_nothing(index_elements=keys)
        _UPSERTS[table, dialect] = found
    return found


_SELECTS: Final[dict[Table, Select[tuple[object, ...]]]] = {}
_DELETES: Final[dict[Table, Delete]] = {}
_UPSERTS: Final[dict[tuple[Table, str], Insert]] = {}
