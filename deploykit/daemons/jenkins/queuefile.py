"""The SQLite file of the build queue: its tables, its mode, and what makes it durable (WAL, `synchronous=FULL`)."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path
from typing import Final

from deploykit.errors import BuildQueueError
from deploykit.system.durable import sync_directory

_APPLICATION_ID: Final = 0x64706A62  # "dpjb"
_VERSION: Final = 1
_SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY,
    destination TEXT NOT NULL,
    headers TEXT NOT NULL,      -- JSON
    body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS builds (
    number INTEGER PRIMARY KEY, -- the order in which they came
    key TEXT NOT NULL UNIQUE,
    server TEXT NOT NULL,
    job TEXT NOT NULL,          -- what the server is asked for: its builds keep their order
    wanted TEXT NOT NULL,       -- JSON
    event INTEGER,              -- kept while the build may need it
    digest BLOB,                -- of an event that carries no id
    state TEXT NOT NULL,
    created REAL NOT NULL,      -- seconds since 1970, as all times here
    due REAL NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0,
    asked REAL NOT NULL DEFAULT 0,
    asks INTEGER NOT NULL DEFAULT 0,
    doubtful INTEGER NOT NULL DEFAULT 0,
    answer TEXT NOT NULL DEFAULT '',
    answered REAL NOT NULL DEFAULT 0,
    problem TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS builds_to_do ON builds (server, state, number) WHERE state NOT IN ('done', 'refused');
CREATE INDEX IF NOT EXISTS builds_for_later ON builds (server, due) WHERE due > 0 AND state NOT IN ('done', 'refused');
CREATE INDEX IF NOT EXISTS builds_by_digest ON builds (digest) WHERE digest IS NOT NULL;
CREATE INDEX IF NOT EXISTS builds_by_event ON builds (event) WHERE event IS NOT NULL;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
COMMIT;
"""


def open_queue_file(path: Path) -> sqlite3.Connection:
    """Open the file, made when it is missing, and make its tables.

    Raises:
        BuildQueueError: it is open to other users, belongs to another program, or a newer deploykit wrote it.
        OSError, sqlite3.Error: it cannot be opened.
    """
    _prepare_file(path)
    db = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
    try:
        application, version, tables = (
            db.execute(sql).fetchone()[0]
            for sql in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
        )
        if tables and application != _APPLICATION_ID:
            raise BuildQueueError(f"{path} is a database of another program", "name another state directory")
        if version > _VERSION:
            raise BuildQueueError(f"build queue {path} has the newer format {version}", "use that deploykit")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(_SCHEMA)
    except BaseException:
        db.close()
        raise
    return db


def _prepare_file(path: Path) -> None:
    """Make the file before SQLite does, 0600; its log and index files get the same mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        sync_directory(path.parent)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise BuildQueueError(
                f"build queue {path} is no plain file of mode 0600 (it has {mode:04o})", f"chmod 600 {path}"
            ) from None


__all__ = ["open_queue_file"]
