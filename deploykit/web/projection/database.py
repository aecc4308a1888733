"""The database of the projection: SQLite or PostgreSQL, opened, brought up to date, and set aside when it is damaged.

Rules:

* Nothing in it is worth a backup: what is damaged is moved aside, and the projection is rebuilt.
* A database that a newer version has changed is refused: it may be in use by that version.
* The password is read when a connection is made, so that it can be changed while the console runs.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import DatabaseError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from deploykit.errors import ProjectionError, UsageError
from deploykit.settings.web import WebSettings
from deploykit.system.secretfile import read_secret

_log = logging.getLogger(__name__)

#: One number for all consoles of a PostgreSQL database: only one of them writes at a time.
_LOCK: Final = 0x6465706C6F79
#: Bytes up to which a whole SQLite file is checked when it is opened.
_CHECKED: Final = 64 * 2**20
_DAMAGED: Final = ("malformed", "not a database", "disk image", "file is encrypted", "no such table", "no such column")


def database_url(settings: WebSettings, state: Path) -> URL:
    """Return where the database is; by default a file in `state`.

    Raises:
        ProjectionError: it is no URL of a database that is known here.
    """
    if not settings.database:
        return URL.create("sqlite", database=str(state / "web" / "console.db"))
    try:
        url = make_url(settings.database)
    except (SQLAlchemyError, ValueError) as error:
        scheme = urlsplit(settings.database).scheme
        raise ProjectionError(f"web.database: no URL of a database ({scheme[:20]!a})", _EXPECTED) from error
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg") or not url.database:
        raise ProjectionError(f"web.database: {url.drivername} is not supported", _EXPECTED)
    return url


_EXPECTED: Final = "expected sqlite:////PATH or postgresql://USER@HOST/NAME"


def make_engine(url: URL, password_file: Path | None) -> Engine:
    """Return an engine for any number of reading threads and one that writes. Nothing is connected yet.

    Raises:
        UsageError: what speaks to PostgreSQL is not installed.
    """
    if url.drivername == "sqlite":
        engine = create_engine(
            url,
            poolclass=QueuePool,
            pool_size=8,
            max_overflow=24,
            connect_args={"timeout": 10.0, "check_same_thread": False},
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        engine = create_engine(
            url, pool_size=8, max_overflow=24, pool_pre_ping=True, connect_args={"connect_timeout": 5}
        )
    except ImportError as error:  # it is not there, or it finds no libpq
        problem = "psycopg cannot be loaded: a database on PostgreSQL needs the extra postgresql"
        raise UsageError(problem, "pip install 'deploykit[web,postgresql]'") from error
    if password_file is not None:

        def with_password(_dialect: object, _record: object, _args: object, values: dict[str, object]) -> None:
            values["password"] = read_secret(password_file, "web.database_password_file")

        event.listen(engine, "do_connect", with_password)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # we begin transactions ourselves
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000", "cache_size=-16000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Yield a connection in a transaction that writes: no other console writes meanwhile."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK})
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Yield a connection that sees one state of the database."""
    options = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
    with engine.connect().execution_options(**options) as connection, connection.begin():
        yield connection


def prepare_file(path: Path) -> None:
    """Make an SQLite file's directory and the file, for its owner and group alone.

    Raises:
        ProjectionError: that is not possible.
    """
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640))
    except OSError as error:
        raise ProjectionError(f"cannot use {path}: {error.strerror}", "make it writable for the console") from error


def migrate(engine: Engine) -> bool:
    """Bring the database up to date; return whether it was empty.

    Raises:
        ProjectionError: a newer version has changed it, or it cannot be used.
    """
    config = Config()
    config.set_main_option("script_location", "deploykit.web.projection:migrations")
    config.set_main_option("path_separator", "os")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    try:
        with writing(engine) as connection:
            tables = inspect(connection).get_table_names()
            if "alembic_version" in tables:
                here = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
                if unknown := set(here) - known:
                    raise ProjectionError(
                        f"the console's database has version {', '.join(unknown)[:80]!a}, unknown to this deploykit",
                        "a newer one has changed it: use that, or let [web] database name another",
                    )
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            return "alembic_version" not in tables
    except CommandError as error:
        raise ProjectionError(f"cannot bring the console's database up to date: {error}") from error


def check_file(engine: Engine, path: Path) -> str:
    """Return why an SQLite file cannot be used; empty where it can."""
    try:
        with engine.connect() as connection:
            size = path.stat().st_size
            if size > _CHECKED:
                connection.exec_driver_sql("PRAGMA schema_version").scalar()
                return ""
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
            return "" if found == "ok" else str(found)
    except (SQLAlchemyError, OSError) as error:
        if isinstance(error, DatabaseError) and is_damaged(error):
            return cause(error)
        raise ProjectionError(f"cannot open {path}: {cause(error)}", "make it writable for the console") from error


def is_damaged(error: BaseException) -> bool:
    """Return whether an error of SQLite says that its file is damaged."""
    reason = cause(error).lower()
    return any(each in reason for each in _DAMAGED)


def cause(error: BaseException) -> str:
    """Return what a driver reports, in one line and without the statement and its values."""
    reason = getattr(error, "orig", None) or error
    return " ".join(str(reason).split())[:300]


def set_aside(path: Path) -> Path:
    """Move an SQLite file and what belongs to it out of the way; return its new name. Earlier ones are removed."""
    for old in path.parent.glob(f"{path.name}.damaged-*"):
        old.unlink(missing_ok=True)
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    for end in ("", "-wal", "-shm"):
        found = path.with_name(path.name + end)
        if found.exists():
            found.rename(aside.with_name(aside.name + end))
    return aside
