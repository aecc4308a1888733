"""Builds to ask for, durably: one SQLite file, `state/jenkins.sqlite`, mode 0600.

Rules:

* An event's builds are written in one durable step; only then its message is acknowledged.
* A build's key is written once. Another copy of its event adds nothing, for as long as keys are remembered.
* A build that was refused is asked for again when its event comes again: a dead letter that is sent back does that.
* The builds of a job keep their order: none is asked for while an earlier one waits for its time.
* `asked` is written before a request, the answer after it: a crash in between is seen at the next start.
* Any thread may use it. One fsync for each write (WAL, `synchronous=FULL`).
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from deploykit.daemons.jenkins.model import (
    FOLLOWED,
    UNSETTLED,
    BuildState,
    QueuedBuild,
    answer_of,
    answer_text,
    wanted_of,
    wanted_text,
)
from deploykit.daemons.jenkins.ports import BuildAnswer
from deploykit.daemons.jenkins.queuefile import open_queue_file
from deploykit.daemons.jenkins.rules import WantedBuild
from deploykit.errors import BuildQueueError
from deploykit.wire.frame import Frame

_COLUMNS: Final = "wanted, state, created, tries, asked, asks, doubtful, answer, answered, problem"
_REMEDY: Final = "free the disk, or correct its owner and mode; messages wait at the broker meanwhile"
#: A due time further ahead than this was written by a clock that was wrong.
_FURTHEST: Final = 7200.0


@attrs.frozen(kw_only=True, slots=True)
class Backlog:
    """How many builds of a server wait, and since when the oldest does (seconds since 1970; 0: none waits)."""

    waiting: int = 0
    oldest: float = 0.0


class BuildQueue:
    """The builds to ask for. Use it as a context manager, or close it.

    Args:
        path: the file; made, with its directory, when missing.

    Raises:
        BuildQueueError: it cannot be opened, is open to other users, or belongs to another program.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        with self._transaction("open"):
            pass

    def __enter__(self) -> BuildQueue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- events ------------------------------------------------------------------------------------------------------

    def add(
        self, wanted: Sequence[WantedBuild], frame: Frame, destination: str, now: float, *, digest: bytes | None = None
    ) -> int:
        """Write the builds of an event in one durable step; return how many are to be asked for because of it.

        Args:
            wanted: the builds.
            frame: the event's own, for a dead letter.
            destination: where the event came from.
            now: seconds since 1970.
            digest: of an event that carries no id.

        Raises:
            BuildQueueError: nothing was written.
        """
        with self._transaction("write to") as db:
            states = {
                build.key: state[0] if (state := _one(db, "SELECT state FROM builds WHERE key = ?", build.key)) else ""
                for build in wanted
            }
            fresh = [build for build in wanted if states[build.key] in ("", "refused")]
            if not fresh:
                return 0
            headers = json.dumps(dict(frame.headers))
            event = db.execute(
                "INSERT INTO events (destination, headers, body) VALUES (?, ?, ?)", (destination, headers, frame.body)
            ).lastrowid
            for build in fresh:
                if states[build.key] == "refused":
                    _ask_again(db, build.key, now, build)
                    db.execute("UPDATE builds SET event = ? WHERE key = ?", (event, build.key))
                    continue
                db.execute(
                    "INSERT INTO builds (key, server, job, wanted, event, digest, state, created)"
                    " VALUES (?, ?, ?, ?, ?, ?, 'waiting', ?)",
                    (build.key, build.order.server, build.order.job, wanted_text(build), event, digest, now),
                )
            return len(fresh)

    def knows(self, digest: bytes, since: float) -> bool:
        """Return whether an event without an id and with this digest came since then, and started a build.

        Raises:
            BuildQueueError: the file cannot be read.
        """
        with self._transaction("read") as db:
            return _one(db, "SELECT 1 FROM builds WHERE digest = ? AND created >= ?", digest, since) is not None

    def is_full(self, most: int) -> bool:
        """Return whether so many builds wait.

        Raises:
            BuildQueueError: the file cannot be read.
        """
        marks = ", ".join(f"'{state}'" for state in UNSETTLED)
        query = f"SELECT 1 FROM builds WHERE state NOT IN ('done', 'refused') AND state IN ({marks}) LIMIT 1 OFFSET ?"  # noqa: S608 - our own text
        with self._transaction("read") as db:
            return _one(db, query, most - 1) is not None

    def frame_of(self, key: str) -> tuple[str, Frame] | None:
        """Return where the event of a build came from, and its frame; None where it is gone.

        Raises:
            BuildQueueError: the file cannot be read.
        """
        query = "SELECT destination, headers, body FROM events JOIN builds ON event = events.id WHERE key = ?"
        with self._transaction("read") as db:
            row = _one(db, query, key)
        return None if row is None else (row[0], Frame(json.loads(row[1]), bytes(row[2])))

    # -- the life of a build -----------------------------------------------------------------------------------------

    def next(self, server: str, states: Sequence[BuildState], now: float) -> QueuedBuild | None:
        """Return the first build of a server that is due in one of these states, and has none of its job before it.

        Raises:
            BuildQueueError: the file cannot be read.
        """
        marks, furthest = ", ".join("?" * len(states)), now + _FURTHEST
        query = (
            f"SELECT {_COLUMNS} FROM builds WHERE server = ? AND state IN ({marks})"  # noqa: S608 - question marks
            " AND state NOT IN ('done', 'refused') AND (due <= ? OR due > ?)"
            " AND (state NOT IN ('waiting', 'asked') OR job NOT IN (SELECT job FROM builds WHERE server = ? AND due > 0"
            " AND state NOT IN ('done', 'refused') AND state IN ('waiting', 'asked') AND due > ? AND due <= ?))"
            " ORDER BY number LIMIT 1"
        )
        with self._transaction("read") as db:
            row = _one(db, query, server, *states, now, furthest, server, now, furthest)
        return None if row is None else _build(row)

    def get(self, key: str) -> QueuedBuild | None:
        """Return a build by its key; None where there is none."""
        with self._transaction("read") as db:
            row = _one(db, f"SELECT {_COLUMNS} FROM builds WHERE key = ?", key)  # noqa: S608 - our own text
        return None if row is None else _build(row)

    def next_due(self, server: str, states: Sequence[BuildState], now: float) -> float | None:
        """Return when the first build in one of these states is due that is not yet; None where there is none."""
        marks = ", ".join("?" * len(states))
        query = (
            f"SELECT min(due) FROM builds WHERE server = ? AND state IN ({marks})"  # noqa: S608 - question marks
            " AND state NOT IN ('done', 'refused') AND due > 0 AND due > ?"
        )
        with self._transaction("read") as db:
            row = _one(db, query, server, *states, now)
        return None if row is None or row[0] is None else float(row[0])

    def asking(self, key: str, now: float, *, doubtful: bool) -> None:
        """Write that the server is being asked for a build, before it is."""
        self._update(
            key, "state = 'asked', asked = ?, asks = asks + 1, doubtful = max(doubtful, ?)", now, int(doubtful)
        )

    def postpone(self, key: str, state: BuildState, due: float, problem: str, *, unanswered: int) -> None:
        """Write that a build is to be tried again at `due`, and why; `unanswered` requests for it had no answer."""
        self._update(
            key, "state = ?, due = ?, problem = ?, asks = ?, tries = tries + 1", state, due, problem, unanswered
        )

    def hurry(self, server: str, states: Sequence[BuildState] = ("waiting",)) -> None:
        """Let everything that waits for a server be due now: it answers again, or the daemon was started again."""
        marks = ", ".join("?" * len(states))
        query = f"UPDATE builds SET due = 0 WHERE server = ? AND state IN ({marks}) AND due > 0"  # noqa: S608 - our own text
        with self._transaction("write to") as db:
            db.execute(query, (server, *states))

    def clock_was_set(self, server: str, seconds: float) -> None:
        """Move the times of what is not over yet with the clock, which was set by so many seconds.

        Raises:
            BuildQueueError: it was not written.
        """
        query = (
            "UPDATE builds SET due = CASE WHEN due > 0 THEN max(1, due + ?1) ELSE 0 END,"
            " created = CASE WHEN state IN ('waiting', 'asked') THEN created + ?1 ELSE created END,"  # else in an id
            " answered = CASE WHEN state = 'queued' THEN answered + ?1 ELSE answered END, asked = asked + ?1"
            " WHERE server = ?2 AND state NOT IN ('done', 'refused')"
        )
        with self._transaction("write to") as db:
            db.execute(query, (seconds, server))

    def answered(self, key: str, state: BuildState, answer: BuildAnswer, now: float) -> None:
        """Write the server's answer; a report is due. Of the requests without an answer it is none."""
        self._update(
            key,
            "state = ?, due = 0, tries = 0, problem = '', answer = ?, answered = ?, asks = max(0, asks - ?)",
            state,
            answer_text(answer),
            now,
            int(answer.kind != "unanswered"),
        )

    def reported(self, key: str, state: BuildState, due: float = 0.0) -> None:
        """Write that the report of a build is in the outbox, and its state from now on.

        Raises:
            BuildQueueError: it was not written. The report goes out again, under the same ids.
        """
        keeps_event = state == "refused"
        with self._transaction("write to") as db:
            row = _one(db, "SELECT event FROM builds WHERE key = ?", key)
            db.execute(
                "UPDATE builds SET state = ?, due = ?, tries = 0, event = CASE WHEN ? THEN event END WHERE key = ?",
                (state, due, keeps_event, key),
            )
            if row is not None and row[0] is not None and not keeps_event:
                _drop_event(db, row[0])

    def retry(self, wanted: WantedBuild, now: float) -> bool:
        """Let a refused build be asked for again, as it is `wanted` now; return whether there is such a one.

        Raises:
            BuildQueueError: it was not written.
        """
        with self._transaction("write to") as db:
            return _ask_again(db, wanted.key, now, wanted)

    def drop(self, key: str) -> bool:
        """Give up a build that waits, without asking for it; return whether there is such a one."""
        with self._transaction("write to") as db:
            row = _one(db, "SELECT event FROM builds WHERE key = ? AND state IN ('waiting', 'asked', 'refused')", key)
            if row is None:
                return False
            db.execute("UPDATE builds SET state = 'done', event = NULL WHERE key = ?", (key,))
            if row[0] is not None:
                _drop_event(db, row[0])
            return True

    def prune(self, before: float) -> int:
        """Forget what came before then and is over; return how many builds that were."""
        with self._transaction("write to") as db:
            gone = db.execute("DELETE FROM builds WHERE created < ? AND state IN ('done', 'refused')", (before,))
            db.execute("DELETE FROM events WHERE id NOT IN (SELECT event FROM builds WHERE event IS NOT NULL)")
            return gone.rowcount

    # -- what people ask ---------------------------------------------------------------------------------------------

    def backlog(self) -> dict[str, Backlog]:
        """Return what waits for each server."""
        marks = ", ".join(f"'{state}'" for state in UNSETTLED)
        query = f"SELECT server, count(*), min(created) FROM builds WHERE state IN ({marks}) GROUP BY server"  # noqa: S608 - our own text
        with self._transaction("read") as db:
            return {row[0]: Backlog(waiting=row[1], oldest=row[2]) for row in db.execute(query)}

    def count(self, state: BuildState) -> int:
        """Return how many builds are in a state."""
        with self._transaction("read") as db:
            return int(db.execute("SELECT count(*) FROM builds WHERE state = ?", (state,)).fetchone()[0])

    def builds(self, *, states: Sequence[BuildState] = (*UNSETTLED, "refused"), limit: int = 1000) -> list[QueuedBuild]:
        """Return the newest builds in some states, the oldest first."""
        marks = ", ".join("?" * len(states))
        query = f"SELECT {_COLUMNS} FROM builds WHERE state IN ({marks}) ORDER BY number DESC LIMIT ?"  # noqa: S608 - our own text
        with self._transaction("read") as db:
            return [_build(row) for row in reversed(db.execute(query, (*states, limit)).fetchall())]

    # -- SQLite ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._db is not None:
                self._db.close()
            self._db = None

    def _update(self, key: str, changes: str, *values: object) -> None:
        with self._transaction("write to") as db:
            db.execute(f"UPDATE builds SET {changes} WHERE key = ?", (*values, key))  # noqa: S608 - our own text

    @contextmanager
    def _transaction(self, action: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                db = self._db
                if db is None:
                    db = self._db = open_queue_file(self.path)
                db.execute("BEGIN" if action == "read" else "BEGIN IMMEDIATE")
                try:
                    yield db
                    db.execute("COMMIT")
                finally:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
            except (sqlite3.Error, OSError, ValueError, OverflowError) as error:
                raise BuildQueueError(f"cannot {action} build queue {self.path}: {error}", _REMEDY) from error


def _one(db: sqlite3.Connection, query: str, *values: object) -> tuple[Any, ...] | None:
    row: tuple[Any, ...] | None = db.execute(query, values).fetchone()
    return row


def _ask_again(db: sqlite3.Connection, key: str, now: float, wanted: WantedBuild) -> bool:
    """Let a refused build be asked for again. Where a request had no answer, it is looked for before."""
    changed = (
        "UPDATE builds SET state = CASE WHEN asks > 0 THEN 'asked' ELSE 'waiting' END, asks = min(asks, 1), due = 0,"
        " tries = 0, answer = '', job = ?, wanted = ?, created = ? WHERE key = ? AND state = 'refused'"
    )
    return db.execute(changed, (wanted.order.job, wanted_text(wanted), now, key)).rowcount > 0


def _drop_event(db: sqlite3.Connection, event: int) -> None:
    db.execute(
        "DELETE FROM events WHERE id = ? AND id NOT IN (SELECT event FROM builds WHERE event = ?)", (event, event)
    )


def _build(row: Sequence[Any]) -> QueuedBuild:
    wanted, state, created, tries, asked, asks, doubtful, answer, answered, problem = row
    return QueuedBuild(
        wanted=wanted_of(wanted),
        state=state,
        created=created,
        tries=tries,
        asked=asked,
        asks=asks,
        doubtful=bool(doubtful),
        answer=answer_of(answer),
        answered=answered,
        problem=problem,
    )


__all__ = ["FOLLOWED", "UNSETTLED", "Backlog", "BuildQueue"]
