"""The ledger's database: opened, never moved aside, and asked what time it is.

Rules:

* It holds what nobody can make again. A damaged file is refused, with the way out; nothing is done without the ledger.
* Its file is for the console alone: whoever could write it could log in as anybody.
* A commit outlasts a power cut.
* Each write is one short transaction, right by itself beside those of other consoles. PostgreSQL ends one that hangs.
* Times are those of the database, so consoles need not agree on theirs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    CursorResult,
    Engine,
    Float,
    Table,
    cast,
    func,
    literal,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from deploykit.errors import LedgerError, WebError
from deploykit.settings.web import WebSettings
from deploykit.web import database

LEDGER: Final = database.DatabaseUse(
    name="the console's ledger",
    error=LedgerError,
    remedy="make it writable for the console alone",
    scripts="deploykit.web.ledger:migrations",
    versions="ledger_version",
    lock=0x6465706C6F7A,
    synchronous="FULL",
    mode=0o600,
    closed=0o077,
    overflow=8,
)


class LedgerDatabase:
    """What all parts of the ledger read and write. Use it from any thread.

    Args:
        url: from `ledger_url`.
        password_file: of PostgreSQL's user.
        clock: seconds since 1970, in place of the database's own clock.
    """

    def __init__(self, url: URL, password_file: Path | None, *, clock: Callable[[], float] | None = None) -> None:
        self._url = url
        self._password_file = password_file
        self._clock = clock
        self._engine: Engine | None = None
        self._file: tuple[int, int] | None = None

    def open(self) -> None:
        """Open it, and make or migrate it.

        Raises:
            LedgerError: it is damaged, of a newer version, or cannot be reached.
        """
        path = database.file_of(self._url)
        if path is not None:
            database.prepare_file(path, LEDGER)
        engine = database.make_engine(self._url, self._password_file, LEDGER)
        try:
            if path is not None and (damage := database.check_file(engine, path, LEDGER)):
                raise _damaged(path, damage)
            database.migrate(engine, LEDGER)
        except SQLAlchemyError as error:
            engine.dispose()
            if path is not None and database.is_damaged(error):
                raise _damaged(path, database.cause(error)) from error
            raise _unusable(error) from error
        except BaseException:
            engine.dispose()
            raise
        self._engine = engine
        self._file = database.file_identity(path)

    def close(self) -> None:
        """Close all connections."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield a connection in a transaction that writes.

        Raises:
            LedgerError: the database cannot be used. A commit whose answer was lost may have been made.
        """
        path = database.file_of(self._url)
        if path is not None and database.file_identity(path) != self._file:
            raise LedgerError(
                f"the console's ledger {path} was removed or replaced while it was in use",
                "put it back and start the console again; deploys that run go on then",
            )
        try:
            with database.writing(self._connected(), lock=None) as connection:
                yield connection
        except SQLAlchemyError as error:
            raise _unusable(error) from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection that sees one state of the database.

        Raises:
            LedgerError: the database cannot be used.
        """
        try:
            with database.reading(self._connected()) as connection:
                yield connection
        except SQLAlchemyError as error:
            raise _unusable(error) from error

    def now(self) -> ColumnElement[float]:
        """Return the time, for a statement: seconds since 1970 by the database's clock."""
        if self._clock is not None:
            return literal(self._clock(), Float)
        if self._url.drivername == "sqlite":
            return literal(time.time(), Float)  # it is on this machine
        return cast(func.extract("epoch", func.clock_timestamp()), Float(53))

    def time(self, connection: Connection) -> float:
        """Return what time it is, by the database's clock."""
        return float(connection.execute(select(self.now())).scalar_one())

    def _connected(self) -> Engine:
        if self._engine is None:
            raise LedgerError("the console's ledger is closed")
        return self._engine


def ledger_url(settings: WebSettings, state: Path) -> URL:
    """Return where the ledger is: the projection's PostgreSQL database, or an SQLite file of its own in `state`.

    Raises:
        LedgerError: the settings name no database that is known here.
    """
    try:
        url = database.database_url(settings, state)
    except WebError as error:
        raise LedgerError(error.problem, error.remedy) from error
    if url.drivername == "sqlite":
        return URL.create("sqlite", database=str(state / "web" / "ledger.db"))
    return url


def insert_new(connection: Connection, table: Table, values: Mapping[str, object]) -> bool:
    """Insert a row unless there is one that it would repeat; return whether it was inserted."""
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    first = next(iter(table.primary_key.columns))
    statement = insert(table).values(**values).on_conflict_do_nothing().returning(first)
    return connection.execute(statement).first() is not None  # `rowcount` says nothing of an INSERT


def changed(result: CursorResult[tuple[object, ...]]) -> int:
    """Return how many rows a statement inserted, changed or removed."""
    return max(result.rowcount, 0)


def is_away(error: LedgerError) -> bool:
    """Return whether the same may work later: the database does not answer, its disk is full, somebody locks it."""
    cause = error.__cause__
    if isinstance(cause, PoolTimeout):
        return True
    return isinstance(cause, DBAPIError) and (
        cause.connection_invalidated or type(cause).__name__ in ("OperationalError", "InterfaceError", "InternalError")
    )


def _damaged(path: Path, why: str) -> LedgerError:
    return LedgerError(
        f"the console's ledger {path} is damaged ({why}): deploys that run, logins, tokens and passkeys are in it",
        "restore it from a backup; or move it away: then people log in anew, and deploys that ran are begun again",
    )


def _unusable(error: SQLAlchemyError) -> LedgerError:
    return LedgerError(f"the console's ledger cannot be used: {database.cause(error)}", "mend the database")


__all__ = ["LEDGER", "LedgerDatabase", "changed", "insert_new", "is_away", "ledger_url"]
