"""Databases of the console, SQLite or PostgreSQL: opened, brought up to date, written to and read.

Rules:

* The projection and the ledger use the same functions; `DatabaseUse` says where they differ.
* In PostgreSQL both are in one database, each with a version of its own. In SQLite each has a file of its own.
* In PostgreSQL no console keeps another one waiting for ever: its transactions and its waiting have an end.
* A database that a newer version has changed is refused: it may be in use by that version.
* The password is read when a connection is made, so that it can be changed while the console runs.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

import attrs
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, column, create_engine, event, inspect, make_url, select, table, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DatabaseError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from deploykit.errors import ProjectionError, UsageError, WebError
from deploykit.settings.web import WebSettings
from deploykit.system.secretfile import read_secret

_log = logging.getLogger(__name__)

#: Bytes up to which a whole SQLite file is checked when it is opened.
_CHECKED: Final = 64 * 2**20
_DAMAGED: Final = ("malformed", "not a database", "disk image", "file is encrypted", "no such table", "no such column")


@attrs.frozen(kw_only=True, slots=True)
class DatabaseUse:
    """What a database is used for.

    Args:
        name: in words for a person, as in "cannot use NAME".
        error: what is raised where it cannot be used.
        remedy: the way out where its file cannot be used.
        scripts: where alembic finds the migrations, `PACKAGE:DIRECTORY`.
        versions: the table that says which version it has.
        lock: one number for all consoles of a PostgreSQL database.
        synchronous: of SQLite; `FULL`: a commit outlasts a power cut.
        mode: of an SQLite file.
        closed: bits that the mode of its file must not have.
        overflow: connections to PostgreSQL beyond 8, while many threads want one.
        most_idle: seconds after which PostgreSQL ends a transaction of a console that was stopped in the middle of it.
        most_wait: seconds that a statement waits for a lock of another console in PostgreSQL, then it fails.
    """

    name: str
    error: type[WebError]
    remedy: str
    scripts: str
    versions: str
    lock: int
    synchronous: Literal["NORMAL", "FULL"]
    mode: int
    closed: int = 0
    overflow: int = 24
    most_idle: float = 10.0
    most_wait: float = 15.0


PROJECTION: Final = DatabaseUse(
    name="the console's database",
    error=ProjectionError,
    remedy="make it writable for the console",
    scripts="deploykit.web.projection:migrations",
    versions="alembic_version",
    lock=0x6465706C6F79,
    synchronous="NORMAL",
    mode=0o640,
)


def database_url(settings: WebSettings, state: Path) -> URL:
    """Return where the projection is; by default a file in `state`.

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


def file_of(url: URL) -> Path | None:
    """Return the file of a database; None where it has none: PostgreSQL, or in memory."""
    return Path(url.database) if url.drivername == "sqlite" and url.database and url.database != ":memory:" else None


#: How long a server that has vanished is waited for: libpq waits for ever where nothing is said.
_PATIENCE: Final = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_EXPECTED: Final = "expected sqlite:////PATH or postgresql://USER@HOST/NAME"


def make_engine(url: URL, password_file: Path | None, use: DatabaseUse = PROJECTION) -> Engine:
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

        def prepare(connection: sqlite3.Connection, _record: object) -> None:
            connection.isolation_level = None  # we begin transactions ourselves
            pragmas = ("journal_mode=WAL", f"synchronous={use.synchronous}", "busy_timeout=10000", "cache_size=-16000")
            for pragma in pragmas:
                connection.execute(f"PRAGMA {pragma}")

        event.listen(engine, "connect", prepare)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        engine = create_engine(url, pool_size=8, max_overflow=use.overflow, pool_pre_ping=True, connect_args=_PATIENCE)
    except ImportError as error:  # it is not there, or it finds no libpq
        problem = "psycopg cannot be loaded: a database on PostgreSQL needs the extra postgresql"
        raise UsageError(problem, "pip install 'deploykit[web,postgresql]'") from error
    if password_file is not None:

        def with_password(_dialect: object, _record: object, _args: object, values: dict[str, object]) -> None:
            values["password"] = read_secret(password_file, "web.database_password_file")

        event.listen(engine, "do_connect", with_password)

    def bound(connection: DBAPIConnection, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"SET idle_in_transaction_session_timeout = {int(use.most_idle * 1000)}")
        cursor.execute(f"SET lock_timeout = {int(use.most_wait * 1000)}")
        connection.commit()

    event.listen(engine, "connect", bound)
    return engine


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def writing(engine: Engine, *, lock: int | None = PROJECTION.lock, patient: bool = False) -> Iterator[Connection]:
    """Yield a connection in a transaction that writes.

    Args:
        engine: from `make_engine`.
        lock: nobody who gives the same number writes meanwhile; None: PostgreSQL's locks of rows are enough.
        patient: wait for locks as long as others hold them, as while they bring the database up to date.
    """
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        if patient and engine.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL lock_timeout = 0"))
        if lock is not None and engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": lock})
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Yield a connection that sees one state of the database."""
    options = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
    with engine.connect().execution_options(**options) as connection, connection.begin():
        yield connection


def prepare_file(path: Path, use: DatabaseUse = PROJECTION) -> None:
    """Make an SQLite file's directory and the file; one that is there is not opened.

    POSIX drops all locks that a process holds on a file when it closes any descriptor of it. At HUP the old console
    has the database open in this process: without its locks another process takes itself for the last one and removes
    the write-ahead log under it, and what is committed then is lost.

    Raises:
        WebError: that is not possible.
    """
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        with suppress(FileExistsError):  # of the file alone: O_EXCL does not open what is there
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, use.mode))
        found = path.stat()
    except OSError as error:
        raise use.error(f"cannot use {path}: {error.strerror}", use.remedy) from error
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISREG(found.st_mode) and mode & use.closed:
        raise use.error(f"{use.name} {path} has mode {mode:04o}, which is too open", f"chmod {use.mode:o} {path}")


def migrate(engine: Engine, use: DatabaseUse = PROJECTION) -> bool:
    """Bring a database up to date; return whether it was empty.

    Raises:
        WebError: a newer version has changed it, or it cannot be used.
    """
    config = Config()
    config.set_main_option("script_location", use.scripts)
    config.set_main_option("path_separator", "os")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    try:
        with writing(engine, lock=use.lock, patient=True) as connection:
            tables = inspect(connection).get_table_names()
            if use.versions in tables:
                versions = table(use.versions, column("version_num"))
                here = connection.execute(select(versions.c.version_num)).scalars().all()
                if unknown := set(here) - known:
                    raise use.error(
                        f"{use.name} has version {', '.join(unknown)[:80]!a}, unknown to this deploykit",
                        "a newer one has changed it: use that, or let [web] database name another",
                    )
            config.attributes["connection"] = connection
            config.attributes["version_table"] = use.versions
            command.upgrade(config, "head")
            return use.versions not in tables
    except CommandError as error:
        raise use.error(f"cannot bring {use.name} up to date: {error}") from error


def check_file(engine: Engine, path: Path, use: DatabaseUse = PROJECTION) -> str:
    """Return why an SQLite file cannot be used; empty where it can.

    Raises:
        WebError: it cannot be opened, and may be sound.
    """
    try:
        with engine.connect() as connection:
            size = path.stat().st_size
            if size > _CHECKED:
                connection.exec_driver_sql("PRAGMA schema_version").scalar()
                return ""
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
            return "" if found == "ok" else " ".join(str(found).split())[:300]
    except (SQLAlchemyError, OSError) as error:
        if isinstance(error, DatabaseError) and is_damaged(error):
            return cause(error)
        raise use.error(f"cannot open {path}: {cause(error)}", use.remedy) from error


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


def file_identity(path: Path | None) -> tuple[int, int] | None:
    """Return what tells a file from another of the same name; None where there is none."""
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)


__all__ = [
    "PROJECTION",
    "DatabaseUse",
    "cause",
    "check_file",
    "database_url",
    "file_identity",
    "file_of",
    "is_damaged",
    "make_engine",
    "migrate",
    "prepare_file",
    "reading",
    "set_aside",
    "writing",
]
