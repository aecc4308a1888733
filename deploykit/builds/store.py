"""The verified build results of a node, in one SQLite file. Durable: a result is on disk when `put` returns.

Rules:

* Only who verified a result puts it here. It is verified again from these bytes when a gate is asked.
* Bounded: results are dropped when they are older than is remembered, and the oldest where there are too many: of the
  key that has most of them.
* Each call opens the file: results are few, and several processes (agent, commands) share it.
* A rollback journal, not WAL: who may read the file can read it without writing beside it.
* The file also notes which refs of which repositories owe a fetch after a success: a crash in between loses none.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import attrs

from deploykit.builds.result import SignedResult
from deploykit.errors import BuildStoreError, UsageError
from deploykit.messages import BuildFinished
from deploykit.names import ObjectId, RefName, RepoName
from deploykit.system.durable import sync_directory

_APPLICATION_ID: Final = 0x64706264  # "dpbd": shown by file(1), and a guard against another program's database
_VERSION: Final = 1
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS results (
    digest BLOB PRIMARY KEY,    -- of body and key
    repo TEXT NOT NULL,
    "commit" TEXT NOT NULL,
    job TEXT NOT NULL,
    number INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    time REAL NOT NULL,         -- that stands in the result; seconds since 1970, UTC
    signer TEXT NOT NULL,       -- fingerprint of the key
    received REAL NOT NULL,
    body BLOB NOT NULL,
    signature TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS results_by_commit ON results (repo, "commit", job, number);
CREATE INDEX IF NOT EXISTS results_by_time ON results (time);
CREATE TABLE IF NOT EXISTS owed (
    repo TEXT NOT NULL,
    ref TEXT NOT NULL,          -- empty: all
    "commit" TEXT NOT NULL,
    PRIMARY KEY (repo, ref)
) WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
"""
_NEWEST: Final = """
SELECT body, signature FROM (
    SELECT body, signature, row_number() OVER (
        PARTITION BY job, signer ORDER BY time NOT BETWEEN ? AND ?, number DESC, outcome = 'success', received
    ) AS place FROM results WHERE repo = ? AND "commit" = ? AND job IN ({jobs})
) WHERE place <= ?
"""
_FOUND: Final = """
SELECT repo, "commit", job, number, outcome, time, signer, received, body, signature FROM results
WHERE (?1 = '' OR repo = ?1) AND substr("commit", 1, length(?2)) = ?2 AND (?3 = '' OR job = ?3)
    AND (?4 IS NULL OR number = ?4)
ORDER BY time DESC, number DESC LIMIT ?5
"""
#: The oldest of the key that takes most of the room, so that no key can push out the results of another.
_DROP_OLDEST: Final = """
DELETE FROM results WHERE digest IN (
    SELECT digest FROM (
        SELECT digest, time, count(*) OVER newer / ?1 + total(length(body)) OVER newer / ?2 AS share
        FROM results WINDOW newer AS (PARTITION BY signer ORDER BY time DESC, digest ROWS UNBOUNDED PRECEDING)
    ) ORDER BY share DESC, time LIMIT ?3
)
"""
_INSERT: Final = "INSERT OR IGNORE INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_REMEDY: Final = "correct its owner or mode, free the disk, or move it away: results come again with the next builds"
#: Results of one job, commit and key that are read for a decision: the highest numbers, the worse of one number first.
_FOR_EACH_KEY: Final = 5
_MOST_ROWS: Final = 2**31


@attrs.frozen(kw_only=True, slots=True)
class StoredResult:
    """A stored result with what was read from it when it was verified, to be shown and searched for."""

    signed: SignedResult
    repo: str
    commit: str
    job: str
    number: int
    outcome: str
    time: datetime
    signer: str
    received: datetime


class BuildStore:
    """Signed build results. Use it from any thread and process.

    Args:
        path: the file; made, with mode 0640, when first written to.
        busy: seconds to wait for another process that is writing.
        most: results that are kept at most.
        most_bytes: bytes of their bodies at most.
    """

    def __init__(
        self, path: Path, *, busy: float = 10.0, most: int = 20_000, most_bytes: int = 64 * 1024 * 1024
    ) -> None:
        self.path = path
        self._busy = busy
        self._most = most
        self._most_bytes = most_bytes

    def __repr__(self) -> str:
        return f"BuildStore({str(self.path)!r})"

    # -- results -----------------------------------------------------------------------------------------------------

    def put(self, signed: SignedResult, result: BuildFinished, signer: str, now: datetime) -> bool:
        """Keep a verified result; return whether it is new.

        Args:
            signed: its exact bytes.
            result: decoded from them.
            signer: the fingerprint of its key.
            now: aware.

        Raises:
            BuildStoreError: it cannot be written.
        """
        with self._writing() as db:
            values = (
                signed.digest,
                result.repo or "",
                result.commit or "",
                result.job,
                result.number,
                result.outcome,
                _seconds(result.time),
                signer,
                _seconds(now),
                signed.body,
                signed.signature,
            )
            new = db.execute(_INSERT, values).rowcount
            if new:
                self._bound(db)
        return bool(new)

    def of(
        self, repo: RepoName, commit: ObjectId, jobs: Collection[str], *, since: datetime, until: datetime
    ) -> tuple[SignedResult, ...]:
        """Return what a gate needs to know of a commit: of each job and key the results of the highest numbers.

        Args:
            repo, commit: what would go live.
            jobs: the required ones; others cost nothing.
            since, until: aware; results from other times do not count, and come behind all that may count.

        Raises:
            BuildStoreError: it cannot be read.
        """
        sql = _NEWEST.format(jobs=", ".join("?" * len(jobs)))
        with self._reading() as db:
            rows = _all(db, sql, (_seconds(since), _seconds(until), repo, commit, *jobs, _FOR_EACH_KEY))
        return tuple(SignedResult(body=bytes(body), signature=signature) for body, signature in rows)

    def has(self, signed: SignedResult) -> bool:
        """Return whether a verified result is kept: this body by this key.

        Raises:
            BuildStoreError: it cannot be read.
        """
        with self._reading() as db:
            return bool(_all(db, "SELECT 1 FROM results WHERE digest = ?", (signed.digest,)))

    def find(
        self, *, repo: str = "", commit: str = "", job: str = "", number: int | None = None, limit: int = -1
    ) -> tuple[StoredResult, ...]:
        """Return stored results, the latest first.

        Args:
            repo, job: only of these; any when empty.
            commit: only of commits that begin so.
            number: only of this build.
            limit: at most so many; -1 for all.

        Raises:
            BuildStoreError: it cannot be read.
        """
        with self._reading() as db:
            try:
                rows = _all(db, _FOUND, (repo, commit, job, number, min(limit, _MOST_ROWS)))
            except (OverflowError, UnicodeEncodeError):
                return ()  # no result has such a number or name
        return tuple(_stored(row) for row in rows)

    def count(self) -> int:
        """Return how many results are kept.

        Raises:
            BuildStoreError: it cannot be read.
        """
        with self._reading() as db:
            rows = _all(db, "SELECT count(*) FROM results", ())
        return int(rows[0][0]) if rows else 0

    def prune(self, before: datetime) -> int:
        """Drop results from before an instant; return their number.

        Raises:
            BuildStoreError: it cannot be written.
        """
        if not self.path.exists():
            return 0
        with self._writing() as db:
            return db.execute("DELETE FROM results WHERE time < ?", (_seconds(before),)).rowcount

    def _bound(self, db: sqlite3.Connection) -> None:
        """Drop the oldest results where there are too many: a tenth more than need be, so as not to do it each time."""
        (count,) = db.execute("SELECT count(*) FROM results").fetchone()
        if count <= self._most and _bytes_used(db) <= self._most_bytes:
            return  # the bodies are not looked at each time
        (size,) = db.execute("SELECT total(length(body)) FROM results").fetchone()
        share = max(count / self._most, size / self._most_bytes)
        if share > 1:
            surplus = count - int(count / share * 0.9)
            db.execute(_DROP_OLDEST, (float(self._most), float(self._most_bytes), surplus))

    # -- fetches after a success -------------------------------------------------------------------------------------

    def owe_fetch(self, repo: RepoName, ref: RefName | None = None, commit: ObjectId | None = None) -> None:
        """Note that a repository must be fetched.

        Args:
            repo: which.
            ref, commit: what was built; None: every ref must be fetched.

        Raises:
            BuildStoreError: it cannot be written.
        """
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO owed VALUES (?, ?, ?)", (repo, ref or "", commit or ""))

    def fetched(self, repo: RepoName, refs: Iterable[RefName | None]) -> None:
        """Take back what `owe_fetch` noted of some refs.

        Raises:
            BuildStoreError: it cannot be written.
        """
        with self._writing() as db:
            db.executemany("DELETE FROM owed WHERE repo = ? AND ref = ?", [(repo, ref or "") for ref in refs])

    def owed_refs(self, repo: RepoName) -> Mapping[RefName | None, ObjectId | None]:
        """Return what must be fetched of a repository: refs, with the commit that was built; None: every ref.

        Raises:
            BuildStoreError: it cannot be read.
        """
        with self._reading() as db:
            rows = _all(db, 'SELECT ref, "commit" FROM owed WHERE repo = ?', (repo,))
        return {RefName(ref) if ref else None: ObjectId(commit) if commit else None for ref, commit in rows}

    def owed(self) -> frozenset[str]:
        """Return the repositories that must be fetched.

        Raises:
            BuildStoreError: it cannot be read.
        """
        with self._reading() as db:
            return frozenset(row[0] for row in _all(db, "SELECT DISTINCT repo FROM owed", ()))

    # -- SQLite ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            self._prepare_file()
            with closing(self._connected("rw")) as db:
                db.execute("PRAGMA synchronous = FULL")
                db.execute("BEGIN IMMEDIATE")
                try:
                    if self._version(db) < _VERSION:
                        for statement in _SCHEMA.split(";\n"):
                            db.execute(statement)
                    yield db
                    db.execute("COMMIT")
                finally:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
        except (sqlite3.Error, OSError, OverflowError) as error:
            raise self._error("write", error) from error

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """Yield a connection; None where nothing was ever stored."""
        try:
            if not self._found():
                yield None
                return
            # Who may write opens it so: what a kill left of a transaction is undone before anything is read.
            with closing(self._connected("rw" if os.access(self.path, os.W_OK) else "ro")) as db:
                yield db if self._version(db) else None
        except (sqlite3.Error, OSError) as error:
            raise self._error("read", error) from error

    def _connected(self, mode: str) -> sqlite3.Connection:
        address = f"{self.path.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(address, uri=True, timeout=self._busy, isolation_level=None)

    def _version(self, db: sqlite3.Connection) -> int:
        application, version, tables = (
            db.execute(sql).fetchone()[0]
            for sql in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
        )
        if tables and application != _APPLICATION_ID:
            raise BuildStoreError(f"{self.path} is a database of another program", "move it away")
        if version > _VERSION:
            raise BuildStoreError(f"{self.path} has format {version}, newer than {_VERSION}", "use the newer deploykit")
        return int(version)

    def _found(self) -> bool:
        """Return whether the file is there; refuse one that others can write to: they could remove a failure."""
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(found.st_mode):
            raise BuildStoreError(f"{self.path} is not a plain file", "move it away")
        if found.st_mode & 0o022:
            raise BuildStoreError(f"{self.path} can be written by other users", f"chmod 640 {self.path}")
        return True

    def _prepare_file(self) -> None:
        """Make the file with its mode before SQLite does. Made by root, it belongs to whom the directory belongs."""
        if self._found():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        except FileExistsError:
            return
        try:
            os.fchmod(file, 0o640)
            if os.geteuid() == 0:
                owner = self.path.parent.stat()
                os.fchown(file, owner.st_uid, owner.st_gid)
        finally:
            os.close(file)
        sync_directory(self.path.parent)

    def _error(self, action: str, error: Exception) -> BuildStoreError:
        return BuildStoreError(f"cannot {action} the store of build results {self.path}: {error}", _REMEDY)


def builds_of(state: Path) -> BuildStore:
    """Return the store of the node whose state directory is given."""
    return BuildStore(state / "builds.sqlite")


def _bytes_used(db: sqlite3.Connection) -> int:
    pages, free, size = (db.execute(f"PRAGMA {p}").fetchone()[0] for p in ("page_count", "freelist_count", "page_size"))
    return int((pages - free) * size)


def _all(db: sqlite3.Connection | None, sql: str, values: tuple[object, ...]) -> list[Any]:
    return [] if db is None else db.execute(sql, values).fetchall()


def _stored(row: Any) -> StoredResult:
    repo, commit, job, number, outcome, time, signer, received, body, signature = row
    return StoredResult(
        signed=SignedResult(body=bytes(body), signature=str(signature)),
        repo=str(repo),
        commit=str(commit),
        job=str(job),
        number=int(number),
        outcome=str(outcome),
        time=datetime.fromtimestamp(time, UTC),
        signer=str(signer),
        received=datetime.fromtimestamp(received, UTC),
    )


def _seconds(when: datetime) -> float:
    if when.tzinfo is None:
        raise UsageError("the time has no time zone", "pass an aware one: datetime.now(UTC)")
    return when.timestamp()
