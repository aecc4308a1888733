"""The projection: what the bus has told, in a database; folded by one thread, asked by many.

Rules:

* A batch is one transaction. Applying it again changes nothing.
* A message that cannot be kept is logged and left out; it does not hold up those behind it.
* An SQLite file that is damaged or gone is replaced by an empty one: `began_empty` says so, and nodes are asked anew.
* Sites are compared after a batch, or before somebody looks, but each for at most a third of the time.
* Who looks does not wait for all of that: a large fleet that just answered is compared by the thread that folds.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, Engine, select, update
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from deploykit.errors import DeploykitError, ProjectionError
from deploykit.messages import utc_now
from deploykit.names import NodeName
from deploykit.settings.web import WebSettings
from deploykit.web import database
from deploykit.web.projection.activityviews import AuditView
from deploykit.web.projection.cells import clean, digest, micros
from deploykit.web.projection.drifting import compare_site
from deploykit.web.projection.fold import fold
from deploykit.web.projection.heard import Heard
from deploykit.web.projection.pruning import prune_some
from deploykit.web.projection.queries import Queries
from deploykit.web.projection.refforms import count_forms
from deploykit.web.projection.rows import WorkingRows, new_row
from deploykit.web.projection.storedqueries import StoredQueries
from deploykit.web.projection.tables import AUDIT, LOCKED, LOCKS, NODES, SITE_NODES, SITES
from deploykit.web.projection.views import ProjectionHealth

_log = logging.getLogger(__name__)

#: A site is compared again after so many times what the last comparison took.
_SPARING: Final = 2.0
#: Seconds for which those who look wait for comparisons. A page asks several times: they share these, and so much comes
#: back as has passed since, times `_SPARING`.
_WAIT: Final = 0.15
#: Seconds after which sites are compared although nothing was heard: locks end by themselves.
_LOCKS_EVERY: Final = 30.0


class Store:
    """The database of what was heard. Use it from any thread; batches are applied one at a time."""

    def __init__(self, url: URL, settings: WebSettings, *, now: Callable[[], datetime] = utc_now) -> None:
        self._url = url
        self._settings = settings
        self._now = now
        self._writing = threading.RLock()
        self._engine: Engine | None = None
        self._file: tuple[int, int] | None = None
        self._touched: set[str] = set()
        self._compare_after: dict[str, float] = {}
        self._locks_looked_at = 0.0
        self._patience, self._waited_at = _WAIT, 0.0
        #: The database was new, damaged or gone, and holds only what was heard since: whoever feeds it resets this.
        self.began_empty = False
        #: Why it was moved aside; empty where it was not.
        self.set_aside_because = ""

    @classmethod
    def open(cls, settings: WebSettings, state: Path, *, now: Callable[[], datetime] = utc_now) -> Store:
        """Open the database, and make or migrate it.

        Args:
            settings: of the console.
            state: the machine's directory, for the default database.
            now: the wall clock, aware UTC.

        Raises:
            ProjectionError: it cannot be used.
            SettingsError: its password cannot be read.
        """
        store = cls(database.database_url(settings, state), settings, now=now)
        store._open()
        return store

    def close(self) -> None:
        """Close all connections."""
        with self._writing:
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None

    @property
    def description(self) -> str:
        """Where the database is, without a password."""
        return self._url.render_as_string(hide_password=True)

    # -- writing -----------------------------------------------------------------------------------------------

    def apply(self, batch: Sequence[Heard]) -> None:
        """Keep messages, in one transaction.

        Raises:
            ProjectionError: the database cannot be used now; try the same batch again.
        """
        with self._writing:
            self._look_for_file()
            try:
                self._fold(batch)
            except ProjectionError:
                if not self._replace_damaged():
                    raise
                self._fold(batch)
        self.settle()

    def settle(self) -> None:
        """Compare the sites that changed, those that are due.

        Raises:
            ProjectionError: the database cannot be used now.
        """
        at = time.monotonic()
        if at - self._locks_looked_at > _LOCKS_EVERY:
            with self._writing:
                self._locks_looked_at = at
                self._touched |= self._locked_sites()
        for site in self._due(at):
            with self._writing:  # each by itself: whoever else writes need not wait for all of them
                if site in self._touched:
                    self._compare(site)

    def _due(self, at: float) -> list[str]:
        return [site for site in sorted(self._touched) if self._compare_after.get(site, 0.0) <= at]

    def _compare(self, site: str) -> None:
        began = time.thread_time()  # what it costs: on a busy machine it lasts longer
        with self._transaction() as connection:
            rows = WorkingRows(connection)
            compare_site(rows, site, self._now())
            rows.flush()
        self._compare_after[site] = time.monotonic() + (time.thread_time() - began) * _SPARING
        self._touched.discard(site)

    def answered(self, nodes: Collection[NodeName], asked_at: datetime) -> int:
        """Note which nodes answered a question to all: those that were not heard since are silent.

        Args:
            nodes: those that answered.
            asked_at: when they were asked, aware.

        Returns:
            How many did not answer; those that were heard since are among them: an answer shows more.
        """
        with self._writing, self._transaction() as connection:
            asked = micros(asked_at)
            rows = WorkingRows(connection)
            count = 0
            for node, seen, silent in connection.execute(select(NODES.c.node, NODES.c.seen, NODES.c.silent)).all():
                is_silent = node not in nodes and (seen or 0) < asked
                count += node not in nodes
                if is_silent != silent:
                    connection.execute(update(NODES).where(NODES.c.node == node).values(silent=is_silent))
                    self._touched.update(row["site"] for row in rows.select(SITE_NODES, node=node))
        self.settle()
        return count

    def note(self, entry: AuditView) -> None:
        """Keep a decision of the console itself.

        Raises:
            ProjectionError: the database cannot be used now.
        """
        with self._writing, self._transaction() as connection:
            rows = WorkingRows(connection)
            key = digest("console", entry.id, entry.action, entry.decision)
            row = new_row(AUDIT, key=key, at=micros(entry.time), place=clean(entry.where))
            texts = ("id", "action", "decision", "who", "signer", "site", "rollout", "detail")
            rows.put(AUDIT, row | {name: clean(getattr(entry, name), 1000) for name in texts})
            rows.flush()

    def prune(self, now: datetime) -> int:
        """Remove some of what is too old or too much; return how many rows went. Call it again while it is not 0.

        Raises:
            ProjectionError: the database cannot be used now.
        """
        oldest = micros(now - timedelta(days=self._settings.keep_days))
        with self._writing, self._transaction() as connection:
            removed, sites = prune_some(connection, oldest, self._settings.keep_rows)
            self._touched |= sites
        return removed

    # -- reading -----------------------------------------------------------------------------------------------

    def queries(self, health: Callable[[], ProjectionHealth]) -> Queries:
        """Return what answers the questions of pages and API.

        Args:
            health: returns whether what is kept can be relied on.
        """
        return StoredQueries(self.reading, health, now=self._now)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection that sees one state of the database, after sites that changed were compared.

        Raises:
            ProjectionError: the database cannot be used now.
        """
        if self._touched:
            # Where it cannot be written now, what was compared before is shown: a full disk takes no page away.
            with suppress(ProjectionError):
                self._settle_for_reader()
        try:
            with database.reading(self._connected()) as connection:
                yield connection
        except SQLAlchemyError as error:
            raise _unusable(error) from error

    def _settle_for_reader(self) -> None:
        """Compare sites that changed, or wait for that; but not for long: what is left is compared by who writes."""
        began = time.monotonic()
        patience = min(_WAIT, self._patience + (began - self._waited_at) * _SPARING)
        while self._touched and (left := began + patience - time.monotonic()) > 0:
            if not self._writing.acquire(timeout=left):
                break
            try:
                due = self._due(time.monotonic())
                if due:
                    self._compare(due[0])
            finally:
                self._writing.release()
            if not due:
                soonest = min((self._compare_after.get(site, 0.0) for site in tuple(self._touched)), default=0.0)
                left = began + patience - time.monotonic()
                # A page's own thread, until a site may be compared again: 0.15 s in all, and nothing announces it.
                time.sleep(max(0.0, min(left, max(soonest - time.monotonic(), 0.001))))
        self._waited_at = time.monotonic()
        self._patience = max(0.0, began + patience - self._waited_at)

    # -- the database ------------------------------------------------------------------------------------------

    def _fold(self, batch: Sequence[Heard]) -> None:
        try:
            self._fold_all(batch)
        except ProjectionError as error:
            if not isinstance(error.__cause__, DataError | IntegrityError):
                raise
        except (DeploykitError, ValueError, TypeError, KeyError, ArithmeticError) as error:
            _log.debug("a batch of %d messages cannot be kept at once: %r", len(batch), error)
        else:
            return
        for heard in batch:
            try:
                self._fold_all([heard])
            except ProjectionError as error:
                if not isinstance(error.__cause__, DataError | IntegrityError):
                    raise
                _log.error("cannot keep a %s from %r: %s", heard.message.TYPE, heard.message.source, error)
            except (DeploykitError, ValueError, TypeError, KeyError, ArithmeticError):
                _log.exception("cannot keep a %s from %r", heard.message.TYPE, heard.message.source)

    def _fold_all(self, batch: Iterable[Heard]) -> None:
        with self._transaction() as connection:
            rows = WorkingRows(connection)
            for heard in batch:
                fold(rows, heard)
            count_forms(rows)
            rows.flush()
        self._touched |= rows.touched

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with database.writing(self._connected()) as connection:
                yield connection
        except SQLAlchemyError as error:
            raise _unusable(error) from error

    def _connected(self) -> Engine:
        if self._engine is None:
            raise ProjectionError("the console's database is closed")
        return self._engine

    def _open(self) -> None:
        path = database.file_of(self._url)
        if path is not None:
            database.prepare_file(path)
        engine = database.make_engine(self._url, self._settings.database_password_file)
        try:
            if path is not None and (damage := database.check_file(engine, path)):
                engine.dispose()
                self._set_aside(path, damage)
                database.prepare_file(path)
            try:
                self.began_empty |= database.migrate(engine)
            except SQLAlchemyError as error:
                if path is None or not database.is_damaged(error):
                    raise _unusable(error) from error
                engine.dispose()
                self._set_aside(path, database.cause(error))
                database.prepare_file(path)
                self.began_empty |= database.migrate(engine)
        except BaseException:
            engine.dispose()
            raise
        self._engine = engine
        self._file = database.file_identity(path)
        with self._transaction() as connection:
            self._touched = set(connection.execute(select(SITES.c.site)).scalars())
        self.settle()

    def _set_aside(self, path: Path, why: str) -> None:
        aside = database.set_aside(path)
        self.began_empty, self.set_aside_because = True, why
        _log.error("the console's database %s is damaged (%s): moved to %s, rebuilt from the nodes", path, why, aside)

    def _look_for_file(self) -> None:
        """Begin anew where somebody has removed or replaced the file: what is written to it would be lost."""
        path = database.file_of(self._url)
        if path is None or database.file_identity(path) == self._file:
            return
        _log.error("the console's database %s was removed: rebuilt from the nodes", path)
        self._reopen("it was removed")

    def _replace_damaged(self) -> bool:
        path = database.file_of(self._url)
        if path is None or self._engine is None:
            return False
        try:
            damage = database.check_file(self._engine, path)
        except ProjectionError:
            return False
        if not damage:
            return False
        self._engine.dispose()
        self._set_aside(path, damage)
        self._reopen(damage)
        return True

    def _reopen(self, why: str) -> None:
        self.close()
        self._compare_after.clear()
        self._open()
        self.began_empty, self.set_aside_because = True, why

    def _locked_sites(self) -> set[str]:
        with self._transaction() as connection:
            shown = connection.execute(select(SITE_NODES.c.site).where(LOCKED).distinct()).scalars()
            return {*shown, *connection.execute(select(LOCKS.c.site)).scalars()}


def _unusable(error: SQLAlchemyError) -> ProjectionError:
    return ProjectionError(f"the console's database cannot be used: {database.cause(error)}")
