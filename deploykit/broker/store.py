"""The embedded broker's storage: one SQLite file in the data directory.

Rules kept here:

* New messages and durable subscriptions are on the disk (fsync) when `write` returns.
* Deliveries and settlements survive the process, but a power cut may lose them; then the message is delivered again.
* One process at a time: the file stays locked while it is open. The file is for its owner alone (0600).
* `meta.format` names the version of this format.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from deploykit.broker.routing import durable_key
from deploykit.broker.state import Add, Bind, Count, JournalEntry, QueueEntry, Remove, StoredMessage, Unbind
from deploykit.errors import BrokerError, UsageError

FORMAT: Final = 1
_FILE: Final = "broker.sqlite3"
_LOCK_WAIT: Final = 2.0  # seconds; a killed broker's lock is gone at once, a stopping broker takes a moment
_BOOT_SHIFT: Final = 40  # each start numbers its messages after those of the previous start
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS binding (
    name TEXT NOT NULL, destination TEXT NOT NULL, PRIMARY KEY (name, destination)) STRICT;
CREATE TABLE IF NOT EXISTS entry (
    seq INTEGER PRIMARY KEY, queue TEXT NOT NULL, destination TEXT NOT NULL, headers TEXT NOT NULL,
    body BLOB NOT NULL, expires REAL, deliveries INTEGER NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS entry_queue ON entry (queue);
"""


class BrokerStore:
    """The open data directory. Use it only in the thread that opened it.

    Args:
        directory: made when missing.

    Raises:
        UsageError: another broker uses the directory, or it is of another format, or not writable.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        path = directory / _FILE
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):  # not opened: closing it would drop the locks of a store in this process
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(path, timeout=_LOCK_WAIT, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise UsageError(
                f"the broker's data directory {directory} cannot be used: {error}", "choose another with data="
            ) from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._db.close()
            remedy = "stop the other broker, or choose another directory"
            if "locked" in str(error):
                raise UsageError(f"the broker's data directory {directory} is in use", remedy) from error
            raise UsageError(f"{path} is not a broker's data: {error}", "choose another directory") from error
        except UsageError:
            self._db.close()
            raise

    def _prepare(self) -> None:
        db = self._db
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA.split(";"):
            db.execute(statement)
        meta = dict(db.execute("SELECT name, value FROM meta"))
        if meta.setdefault("format", str(FORMAT)) != str(FORMAT):
            db.execute("ROLLBACK")
            raise UsageError(
                f"{self.directory} holds format {meta['format']}, this broker writes {FORMAT}",
                "choose another directory",
            )
        boot = int(meta.get("boot", "0")) + 1
        meta["boot"] = str(boot)
        #: Part of every message-id, so that two brokers never use the same id.
        self.epoch = meta.setdefault("epoch", secrets.token_hex(4))
        self.first_seq = boot << _BOOT_SHIFT
        db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())
        db.execute("COMMIT")

    def bindings(self) -> list[tuple[str, str]]:
        """Return (name, destination) of each durable subscription."""
        return list(self._db.execute("SELECT name, destination FROM binding"))

    def entries(self) -> Iterable[tuple[str, QueueEntry]]:
        """Yield (queue key, message) in the order they came."""
        rows = self._db.execute(
            "SELECT seq, queue, destination, headers, body, expires, deliveries FROM entry ORDER BY seq"
        )
        for seq, queue, destination, headers, body, expires, deliveries in rows:
            message = StoredMessage(
                destination=destination, headers=json.loads(headers), body=body, persistent=True, expires=expires
            )
            yield queue, QueueEntry(seq=seq, message=message, deliveries=deliveries)

    def write(self, journal: Sequence[JournalEntry]) -> None:
        """Make the changes durable, all or none.

        Raises:
            BrokerError: the disk failed.
        """
        removed = {change.seq for change in journal if isinstance(change, Remove)}
        fresh = {change.entry.seq for change in journal if isinstance(change, Add)}
        passing = removed & fresh  # added and removed within this step: never on the disk
        changes = [change for change in journal if _seq(change) not in passing]
        if not changes:
            return
        safe = any(isinstance(change, Add | Bind | Unbind) for change in changes)
        try:
            self._db.execute(f"PRAGMA synchronous={'FULL' if safe else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for change in changes:
                    self._apply(change)
                self._db.execute("COMMIT")
            except sqlite3.Error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise BrokerError(
                f"cannot write to the broker's data directory {self.directory}: {error}",
                "free the disk, start it again",
            ) from error

    def _apply(self, change: JournalEntry) -> None:
        db = self._db
        match change:
            case Add(queue=queue, entry=entry):
                message = entry.message
                headers = json.dumps(dict(message.headers))
                db.execute(
                    "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (entry.seq, queue, message.destination, headers, message.body, message.expires, entry.deliveries),
                )
            case Remove(seq=seq):
                db.execute("DELETE FROM entry WHERE seq = ?", (seq,))
            case Count(seq=seq, deliveries=deliveries):
                db.execute("UPDATE entry SET deliveries = ? WHERE seq = ?", (deliveries, seq))
            case Bind(name=name, destination=destination):
                db.execute("INSERT OR REPLACE INTO binding VALUES (?, ?)", (name, destination))
            case Unbind(name=name, destination=destination):
                db.execute("DELETE FROM binding WHERE name = ? AND destination = ?", (name, destination))
                db.execute("DELETE FROM entry WHERE queue = ?", (durable_key(name, destination),))

    def close(self) -> None:
        """Close the database, which unlocks the directory."""
        self._db.close()


def _seq(change: JournalEntry) -> int | None:
    match change:
        case Add(entry=entry):
            return entry.seq
        case Remove(seq=seq) | Count(seq=seq):
            return seq
        case _:
            return None
