"""Which deliveries were published already, on disk: a copy of one publishes nothing.

Rules:

* A delivery is known by its source and the forge's id, **and** by its source and the digest of its payload: headers are
  not signed, so a copy under a new id is a copy. Where a sender signs the id, the digest is of id and payload.
* It is marked once the outbox has it. A crash in between publishes it again, with the same message ids.
* An id counts for what was published under it. A copy that came under another id marks nothing.
* The file can be lost: then copies of old deliveries are published again. A damaged one is moved aside.
* Old marks are removed by age, and by number where there are too many.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

import attrs

from deploykit.errors import WebError

_log = logging.getLogger(__name__)

_APPLICATION_ID: Final = 0x64707764  # "dpwd": shown by file(1), and a guard against another program's database
_VERSION: Final = 1
_SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS deliveries (
    source TEXT NOT NULL,
    digest BLOB NOT NULL,       -- SHA-256 of the JSON text
    id TEXT NOT NULL,           -- the forge's; may be empty
    at REAL NOT NULL,           -- when it was published, seconds since 1970
    PRIMARY KEY (source, digest)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deliveries_by_id ON deliveries (source, id) WHERE id <> '';
CREATE INDEX IF NOT EXISTS deliveries_by_time ON deliveries (at);
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
COMMIT;
"""
#: More are not kept: some 200 MB.
MOST_DELIVERIES: Final = 1_000_000
_CHUNK: Final = 5000
#: Milliseconds for which another process may hold the file.
_BUSY: Final = 2000


@attrs.frozen(kw_only=True, slots=True)
class PublishedDelivery:
    """A delivery that was published before.

    Args:
        id: the forge's id of it.
        at: when, seconds since 1970.
        same_body: whether the payload is the same, or only the id.
    """

    id: str
    at: float
    same_body: bool


class SeenDeliveries(Protocol):
    """What the receiver asks: was this published, and remember that it was."""

    def find(self, source: str, delivery_id: str, digest: bytes) -> PublishedDelivery | None:
        """Return what was published under this id or with this payload; None for neither."""
        ...

    def mark(self, source: str, delivery_id: str, digest: bytes, now: float) -> None:
        """Remember a delivery."""
        ...


class DeliveryStore:
    """The deliveries of all sources in one SQLite file, mode 0600. Use it from any thread.

    Args:
        path: the file; its directory is made.

    Raises:
        WebError: it cannot be opened, or belongs to another program or a newer version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            self._db = self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) or not path.exists():
                raise _cannot("open", path, error) from None
            aside = path.with_name(f"{path.name}.damaged")
            path.replace(aside)
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            _log.error("%s is damaged: moved to %s; copies of old deliveries will be published again", path, aside)
            try:
                self._db = self._open()
            except sqlite3.Error as again:
                raise _cannot("open", path, again) from None
        except OSError as error:
            raise _cannot("open", path, error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def find(self, source: str, delivery_id: str, digest: bytes) -> PublishedDelivery | None:
        """Return what was published under this id or with this payload; None for neither.

        Raises:
            WebError: the file cannot be read.
        """
        with self._lock:
            try:
                row = self._db.execute(
                    "SELECT id, at FROM deliveries WHERE source = ? AND digest = ?", (source, digest)
                ).fetchone()
                if row is not None:
                    return PublishedDelivery(id=row[0], at=row[1], same_body=True)
                row = (
                    delivery_id
                    and self._db.execute(
                        "SELECT id, at FROM deliveries WHERE source = ? AND id = ? AND id <> '' LIMIT 1",
                        (source, delivery_id),
                    ).fetchone()
                )
            except sqlite3.Error as error:
                raise _cannot("read", self.path, error) from None
        return PublishedDelivery(id=row[0], at=row[1], same_body=False) if row else None

    def mark(self, source: str, delivery_id: str, digest: bytes, now: float) -> None:
        """Remember a delivery.

        Raises:
            WebError: it could not be written.
        """
        with self._lock:
            try:
                self._db.execute(
                    "INSERT INTO deliveries (source, digest, id, at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (source, digest, delivery_id, now),
                )
            except sqlite3.Error as error:
                raise _cannot("write to", self.path, error) from None

    def prune(self, before: float, *, most: int = MOST_DELIVERIES) -> int:
        """Forget deliveries from before a time (seconds since 1970), and the oldest of too many; return how many.

        Raises:
            WebError: it could not be done.
        """
        removed = 0
        while True:  # in steps: a request that waits for the lock waits for one
            with self._lock:
                try:
                    count = self._db.execute(
                        "DELETE FROM deliveries WHERE (source, digest) IN "
                        "(SELECT source, digest FROM deliveries WHERE at < ? ORDER BY at LIMIT ?)",
                        (before, _CHUNK),
                    ).rowcount
                    over = self._db.execute("SELECT count(*) FROM deliveries").fetchone()[0] - most
                    if count == 0 and over > 0:
                        count = self._db.execute(
                            "DELETE FROM deliveries WHERE (source, digest) IN "
                            "(SELECT source, digest FROM deliveries ORDER BY at LIMIT ?)",
                            (min(over, _CHUNK),),
                        ).rowcount
                except sqlite3.Error as error:
                    raise _cannot("clean", self.path, error) from None
            removed += count
            if count == 0:
                return removed

    def _open(self) -> sqlite3.Connection:
        self.path.touch(mode=0o600)
        db = sqlite3.connect(self.path, timeout=_BUSY / 1000, isolation_level=None, check_same_thread=False)
        try:
            owner = db.execute("PRAGMA application_id").fetchone()[0]
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if owner not in (0, _APPLICATION_ID) or version > _VERSION:
                raise WebError(
                    f"{self.path} is of another program, or of a newer version", "move it away: it can be lost"
                )
            db.execute("PRAGMA journal_mode = WAL")
            # A power cut may lose the last marks. Copies are then published with the ids they had.
            db.execute("PRAGMA synchronous = NORMAL")
            db.executescript(_SCHEMA)
            found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(found)
        except BaseException:
            db.close()
            raise
        return db


def _cannot(what: str, path: Path, error: Exception) -> WebError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return WebError(f"cannot {what} {path}: {reason}", "see that its directory is writable and the disk not full")


__all__ = ["MOST_DELIVERIES", "DeliveryStore", "PublishedDelivery", "SeenDeliveries"]
