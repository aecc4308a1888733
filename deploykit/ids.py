"""The ids of handled messages, on disk, so that a command that is delivered twice is obeyed once.

An id is claimed before its message is acted on, and marked done after. `claim` answers:

- `FRESH`: not seen before, and claimed now. The caller acts, then calls `done`.
- `RESUME`: claimed before and not done, after a crash or redelivery. The caller continues from its own journal.
- `DONE`: handled. The caller answers again (`reply`) and does not act.
- `CONFLICT`: the same id with other bytes, forged or from a broken sender. The caller refuses and reports it.

Rules:

* A claim is on the disk before `claim` returns. If it cannot be written, `IdStoreError` is raised: do not act.
* An id is kept until `keep_until` (the message's expiry and the allowed skew) and a day more, for clocks that jump.
* An id that may have been forgotten is refused, never taken for fresh.
* SQLite in WAL mode with `synchronous=FULL`: one fsync for each claim, where the rollback journal needs three and the
  default of WAL (`NORMAL`) would lose the last claims in a power cut. WAL needs a local file system.
* Any number of processes and threads may use one file. `locked` keeps two of them from handling one id side by side.
"""

from __future__ import annotations

import enum
import fcntl
import hashlib
import logging
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from deploykit.errors import IdForgotten, IdStoreError, LockBusy, UsageError
from deploykit.system.durable import sync_directory

_log = logging.getLogger(__name__)

_APPLICATION_ID: Final = 0x64706964  # "dpid": shown by file(1), and a guard against another program's database
_VERSION: Final = 1
_SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS ids (
    key TEXT NOT NULL,          -- whose id: the sender's key, or another namespace
    id TEXT NOT NULL,
    digest BLOB NOT NULL,       -- of the exact bytes
    claimed REAL NOT NULL,      -- seconds since 1970, UTC
    done REAL,                  -- NULL: claimed only
    keep_until REAL NOT NULL,
    reply BLOB,
    PRIMARY KEY (key, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ids_by_keep_until ON ids (keep_until);
CREATE TABLE IF NOT EXISTS forgotten (only INTEGER PRIMARY KEY CHECK (only = 1), until REAL NOT NULL);
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
COMMIT;
"""
_KNOWN: Final = "SELECT digest, claimed, done, reply FROM ids WHERE key = ? AND id = ?"
_DAY: Final = timedelta(days=1)
_CHUNK: Final = 5000
#: Connections that a forked child inherited. SQLite allows neither use nor close of them there.
_inherited: list[sqlite3.Connection] = []


class Claim(enum.Enum):
    """What is known of an id; see the list in the module's docstring."""

    FRESH = "fresh"
    RESUME = "resume"
    DONE = "done"
    CONFLICT = "conflict"


class IdStore:
    """A durable store of handled ids: one SQLite file, mode 0600.

    Args:
        path: the file; made, with its directory, when missing.
        keep: how long an id is kept that was claimed without `keep_until`.
        busy: seconds to wait for another process that is writing.

    Raises:
        IdStoreError: it cannot be opened, is open to other users, or belongs to another program.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, keep: timedelta = timedelta(days=30), busy: float = 10.0
    ) -> None:
        self.path = Path(path)
        self._keep = keep
        self._busy = busy
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._connection: sqlite3.Connection | None = None
        with self._transaction("open"):
            pass

    def __repr__(self) -> str:
        return f"IdStore({str(self.path)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # -- the life of an id -------------------------------------------------------------------------------------------

    def claim(
        self, keys: str | Sequence[str], id: str, digest: bytes, now: datetime, *, keep_until: datetime | None = None
    ) -> Claim:
        """Claim `id`, durably, before acting; return what was known of it.

        Args:
            keys: whose id it is (the signer, or each of several): two senders may use one id. It is claimed for all of
                them in one step; of what is known by them the gravest is returned: CONFLICT, DONE, RESUME, FRESH.
            digest: of the message's exact bytes.
            now: aware time.
            keep_until: until when a replay would be valid: the message's expiry and the allowed skew.

        Raises:
            IdStoreError: it cannot be written. Do not act.
            IdForgotten: ids as old as this one were forgotten already. Refuse the message.
        """
        until = _seconds(keep_until or now + self._keep)
        wanted = _each(keys)
        with self._transaction("write to") as db:
            known = {key: row for key in wanted if (row := db.execute(_KNOWN, (key, id)).fetchone()) is not None}
            for key, row in known.items():
                if bytes(row[0]) != digest:
                    _log.error("id %s of %s came again with other bytes and is refused", _shown(id), _shown(key))
                    return Claim.CONFLICT
            if not known:
                _check_not_forgotten(db, id, until if keep_until is not None else None)
            # A key that is new to the id joins the others: what they did must not be done again for that key alone.
            first = min((row[1] for row in known.values()), default=_seconds(now))
            done = next((row[2:] for row in known.values() if row[2] is not None), (None, None))
            db.executemany(
                "INSERT INTO ids (key, id, digest, claimed, done, reply, keep_until) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(key, id, digest, first, *done, until) for key in wanted if key not in known],
            )
            # The same bytes have the same expiry, but the caller may allow a wider skew now.
            db.executemany(
                "UPDATE ids SET keep_until = ? WHERE key = ? AND id = ? AND keep_until < ?",
                [(until, key, id, until) for key in known],
            )
            if not known:
                return Claim.FRESH
            return Claim.RESUME if done[0] is None else Claim.DONE

    def done(self, keys: str | Sequence[str], id: str, reply: bytes, now: datetime) -> None:
        """Mark a claimed id done for all its keys, with the reply to give when its message comes again.

        Raises:
            IdStoreError: it cannot be written, or the id was never claimed for one of the keys.
        """
        with self._transaction("write to") as db:
            for key in _each(keys):
                changed = db.execute(
                    "UPDATE ids SET done = ?, reply = ? WHERE key = ? AND id = ?", (_seconds(now), reply, key, id)
                ).rowcount
                if not changed:
                    raise IdStoreError(f"id {_shown(id)} was never claimed", "call claim before acting")

    def claimed_at(self, keys: str | Sequence[str], id: str) -> datetime | None:
        """Return when an id was first claimed for one of the keys, None if never.

        A resumed command is judged by that time.

        Raises:
            IdStoreError: the store cannot be read.
        """
        with self._transaction("read") as db:
            rows = [db.execute(_KNOWN, (key, id)).fetchone() for key in _each(keys)]
        claimed = [row[1] for row in rows if row is not None]
        return datetime.fromtimestamp(min(claimed), UTC) if claimed else None

    def reply(self, keys: str | Sequence[str], id: str) -> bytes | None:
        """Return the reply of an id that is done for one of the keys; None for any other id.

        Raises:
            IdStoreError: the store cannot be read.
        """
        with self._transaction("read") as db:
            rows = [db.execute(_KNOWN, (key, id)).fetchone() for key in _each(keys)]
        return next((bytes(row[3] or b"") for row in rows if row is not None and row[2] is not None), None)

    def prune(self, now: datetime) -> int:
        """Forget ids whose `keep_until` passed a day ago; return their number.

        Raises:
            IdStoreError: it cannot be written.
        """
        limit = _seconds(now - _DAY)
        removed = 0
        while True:
            with self._transaction("write to") as db:
                old = db.execute(
                    "SELECT key, id, keep_until FROM ids WHERE keep_until < ? ORDER BY keep_until LIMIT ?",
                    (limit, _CHUNK),
                ).fetchall()
                if old:
                    db.executemany("DELETE FROM ids WHERE key = ? AND id = ?", [row[:2] for row in old])
                    db.execute(
                        "INSERT INTO forgotten VALUES (1, ?)"
                        " ON CONFLICT DO UPDATE SET until = max(until, excluded.until)",
                        (old[-1][2],),
                    )
            removed += len(old)
            if len(old) < _CHUNK:
                return removed

    @contextmanager
    def locked(self, key: str, id: str, *, timeout: float = 0.0) -> Iterator[None]:
        """Hold one id, so that no other worker, thread or process handles it at the same time.

        For consumers with several workers: a redelivery may come while the first delivery is still being handled.
        The lock is the kernel's: it ends with the process.

        Raises:
            LockBusy: another worker held it for all of `timeout` seconds. Take the message again later.
            IdStoreError: the lock file cannot be opened.
        """
        # One byte of a sparse file for each id: far more bytes than ids, and a collision only costs a wait.
        place = int.from_bytes(hashlib.sha256(f"{len(key)}:{key}{id}".encode(errors="replace")).digest()[:7], "big")
        try:
            fd = os.open(f"{self.path}.turns", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise IdStoreError(f"cannot lock in {self.path}.turns: {error.strerror}", _REMEDY) from error
        try:
            _lock_byte(fd, place, time.monotonic() + timeout, id)
            yield
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
            self._connection = None

    # -- SQLite ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self, action: str) -> Iterator[sqlite3.Connection]:
        if self._pid != os.getpid():
            self._after_fork()
        with self._lock:
            try:
                db = self._connection
                if db is None:
                    db = self._connection = self._open()
                db.execute("BEGIN IMMEDIATE")
                try:
                    yield db
                    db.execute("COMMIT")
                finally:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
            except (sqlite3.Error, OSError, ValueError, OverflowError) as error:
                raise IdStoreError(f"cannot {action} id store {self.path}: {error}", _REMEDY) from error

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # the parent's may have been held by a thread that is not here
        if self._connection is not None:
            _inherited.append(self._connection)
        self._connection = None
        self._pid = os.getpid()

    def _open(self) -> sqlite3.Connection:
        with _opening:
            self._prepare_file()
            db = sqlite3.connect(self.path, timeout=self._busy, isolation_level=None, check_same_thread=False)
        try:
            _prepare(db, self.path, time.monotonic() + self._busy)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare_file(self) -> None:
        """Make the file before SQLite does, 0600; SQLite gives its log and index files the same mode.

        An existing file is not opened: closing it would drop the locks of another store in this process.
        """
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            except FileExistsError:
                return
            sync_directory(self.path.parent)
            return
        mode = stat.S_IMODE(found.st_mode)
        if not stat.S_ISREG(found.st_mode):
            raise IdStoreError(f"id store {self.path} is not a plain file", "name another file")
        if mode & 0o077:
            raise IdStoreError(f"id store {self.path} has mode {mode:04o}, which is too open", f"chmod 600 {self.path}")


_opening = threading.Lock()
_REMEDY: Final = "no command is obeyed until it can be written: free the disk, or correct its owner and mode"


def _each(keys: str | Sequence[str]) -> tuple[str, ...]:
    """Return the keys of an id, each once."""
    wanted = (keys,) if isinstance(keys, str) else tuple(dict.fromkeys(keys))
    if not wanted:
        raise UsageError("an id belongs to no key", "name the key that signed, or another namespace")
    return wanted


def _check_not_forgotten(db: sqlite3.Connection, id: str, until: float | None) -> None:
    forgotten = db.execute("SELECT until FROM forgotten").fetchone()
    if until is not None and forgotten is not None and until <= forgotten[0]:
        raise IdForgotten(
            f"ids that old were forgotten already, so {_shown(id)} cannot be told from a replay",
            "its expiry has passed, or this machine's clock was wrong for more than a day",
        )


def _prepare(db: sqlite3.Connection, path: Path, deadline: float) -> None:
    """Check the database's application and version; make the tables that are missing.

    SQLite does not wait for its busy timeout while a database enters or leaves WAL mode: of two processes that open a
    new one together, one gets "locked" at once. So this function waits, until `deadline` (monotonic).
    """
    while True:
        try:
            return _prepare_once(db, path)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            if db.in_transaction:
                db.execute("ROLLBACK")
            time.sleep(0.01)


def _prepare_once(db: sqlite3.Connection, path: Path) -> None:
    db.execute("BEGIN")  # one transaction for all three: another process may be making the tables
    application, version, tables = (
        db.execute(sql).fetchone()[0]
        for sql in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
    )
    db.execute("COMMIT")
    if tables and application != _APPLICATION_ID:
        raise IdStoreError(f"{path} is a database of another program", "name another file")
    if version > _VERSION:
        raise IdStoreError(f"id store {path} has format {version}, newer than {_VERSION}", "use the newer deploykit")
    if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise IdStoreError(f"id store {path} cannot use a write-ahead log", "put it on a local file system")
    db.execute("PRAGMA synchronous = FULL")
    if version < _VERSION:
        db.executescript(_SCHEMA)


def _lock_byte(fd: int, place: int, deadline: float, id: str) -> None:
    # An open file description lock: unlike flock it can hold one byte, unlike a POSIX lock it excludes threads too.
    # struct flock: type, whence, start, length, pid.
    import struct

    request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
    while True:
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, request)
        except (BlockingIOError, PermissionError):
            if time.monotonic() >= deadline:
                raise LockBusy(f"{_shown(id)} is being handled at this moment", "take it again later") from None
            time.sleep(0.02)
        else:
            return


def _seconds(when: datetime) -> float:
    if when.tzinfo is None:
        raise UsageError("the time has no time zone", "pass an aware one: datetime.now(UTC)")
    return when.timestamp()


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 80 else text[:77] + "...")
