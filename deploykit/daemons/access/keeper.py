"""Keeps the access files of a node: makes what commands ask for, and ends each access when its time is over.

Rules:

* One thread changes files. Changes that come within `gather` seconds are one write and one reload of a site.
* The timer needs no command: it looks at the files twice a minute at least, by the wall clock, whatever that did.
* What ends by itself is reported before it is forgotten: a crash between the two costs a second report at most.
* An access that cannot be ended is tried again each minute, and stands in the status until it is.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal

import attrs

from deploykit.daemons.access.sitefile import AccessChange, ChangeOutcome, SiteAccessFile
from deploykit.daemons.access.statefile import (
    AccessEntry,
    AccessState,
    NewerStateFile,
    SiteEntries,
    encode_state,
    read_state,
    write_state,
)
from deploykit.errors import AccessError
from deploykit.names import SiteName

_log = logging.getLogger(__name__)

#: Seconds between two looks at the files, and between two tries to end an access.
_LOOK_EVERY: Final = 30.0
_RETRY_EVERY: Final = 60.0
#: Most changes in one burst.
_MOST: Final = 1000
#: How long it is remembered when an access was revoked: longer than any command can come late.
_REMEMBER: Final = timedelta(days=2)


@attrs.frozen(kw_only=True, slots=True)
class EndedAccess:
    """An access that ended without a command."""

    site: SiteName
    user: str
    outcome: Literal["expired", "revoked"]
    detail: str = ""


@attrs.frozen(kw_only=True, slots=True)
class _Waiting:
    site: SiteName
    change: AccessChange
    future: Future[ChangeOutcome]


class AccessKeeper:
    """Changes the access files of a node. `submit` may be called from any thread, while `run` runs.

    Args:
        files: of each site.
        state: the node's state directory; `access` in it is there.
        gather: seconds in which further changes are waited for.
        on_ended: called with what ended by itself; when it returns, that is queued or will be.
        now: the wall clock, aware UTC.
    """

    def __init__(
        self,
        files: Mapping[SiteName, SiteAccessFile],
        state: Path,
        *,
        gather: float,
        on_ended: Callable[[Sequence[EndedAccess]], object],
        now: Callable[[], datetime],
    ) -> None:
        self._files = files
        self._directory = state
        self._gather = gather
        self._on_ended = on_ended
        self._now = now
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._state = AccessState()
        self._written = b""
        self._broken: dict[SiteName, str] = {}
        self._retry_at: dict[SiteName, float] = {}
        self._state_problem = ""
        self._newer = ""
        self._busy = ""

    # -- for other threads ---------------------------------------------------------------------------------------------

    def submit(self, site: SiteName, change: AccessChange) -> Future[ChangeOutcome]:
        """Have a change made; the future has what became of it, or `AccessError` where the keeper ended before."""
        waiting = _Waiting(site=site, change=change, future=Future())
        with self._lock:
            if self._closed:
                waiting.future.set_exception(AccessError("the access daemon ends", "ask again"))
            else:
                self._queue.put(waiting)
        return waiting.future

    def wake(self) -> None:
        """Have `run` look at its event."""
        self._queue.put(None)

    def revoked_at(self, site: SiteName, user: str) -> datetime | None:
        """Return when an access was last asked to end, as far as that is remembered."""
        entries = self._state.sites.get(site)
        return entries.revoked.get(user) if entries is not None else None

    @property
    def problems(self) -> tuple[str, ...]:
        """What a person has to correct: files that cannot be used, accesses that cannot be ended."""
        found = [f"site {site}: {why}" for site, why in sorted(self._broken.items())]
        return (*found, *filter(None, (self._state_problem, self._newer)))

    @property
    def counts(self) -> Mapping[SiteName, int]:
        """How many users each site has."""
        return {site: len(entries.users) for site, entries in self._state.sites.items()}

    @property
    def busy(self) -> str:
        """The change that is being made now; empty for none."""
        return self._busy

    # -- its thread ----------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Finish what a crash cut off, and see what the files hold. Called once, before `run`."""
        try:
            self._state = read_state(self._directory) or AccessState()
        except NewerStateFile as error:
            self._newer = str(error)
            _log.error("%s; it is left alone", error)
        except AccessError as error:
            _log.error("%s; who asked for which access is not known any more", error)
        for site, file in self._files.items():
            try:
                file.recover()
            except AccessError as error:
                _log.error("site %s: %s", site, error)
        self._look(self._files)

    def run(self, stop: threading.Event) -> None:
        """Make changes, until `stop` is set and `wake` was called; those that wait then are made first."""
        try:
            while not (stop.is_set() and self._queue.empty()):
                if burst := self._take():
                    self._make(burst)
                self._look(self._files)
        finally:
            with self._lock:
                self._closed = True
            while not self._queue.empty():
                if (left := self._queue.get()) is not None:
                    left.future.set_exception(AccessError("the access daemon ends", "ask again"))

    def _take(self) -> list[_Waiting]:
        """Return the changes of the next burst; none where only the time has come to look."""
        try:
            first = self._queue.get(timeout=self._pause())
        except queue.Empty:
            return []
        if first is None:
            return []
        burst, end = [first], time.monotonic() + self._gather
        while len(burst) < _MOST:
            try:
                more = self._queue.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                break
            if more is None:
                break
            burst.append(more)
        return burst

    def _pause(self) -> float:
        """Return the seconds until the next access ends, at most those between two looks."""
        now = self._now()
        ends = [
            (each.until - now).total_seconds()
            for site, entries in self._state.sites.items()
            if site not in self._retry_at and not entries.problem  # what cannot be read is looked at now and then
            for each in entries.users.values()
            if each.until is not None
        ]
        return max(0.0, min([_LOOK_EVERY, *ends]))

    def _make(self, burst: Sequence[_Waiting]) -> None:
        by_site: dict[SiteName, list[_Waiting]] = {}
        for each in burst:
            by_site.setdefault(each.site, []).append(each)
        for site, waiting in by_site.items():
            try:
                outcomes = self._apply(site, self._files[site], [each.change for each in waiting])
                self._note(site, [each.change for each in waiting], outcomes)
            except BaseException as error:
                for each in waiting:
                    each.future.set_exception(error)
                raise
            for each, outcome in zip(waiting, outcomes, strict=True):
                each.future.set_result(outcome)

    def _apply(self, site: SiteName, file: SiteAccessFile, changes: Sequence[AccessChange]) -> list[ChangeOutcome]:
        self._busy = f"a change of the users of site {site}"
        try:
            return file.apply(changes)
        finally:
            self._busy = ""

    def _note(self, site: SiteName, changes: Sequence[AccessChange], outcomes: Sequence[ChangeOutcome]) -> None:
        """Keep who asked for what, before it is answered: `_look` compares with it what the file holds."""
        entries = self._state.sites.get(site, SiteEntries())
        users, revoked = dict(entries.users), dict(entries.revoked)
        for change, outcome in zip(changes, outcomes, strict=True):
            if outcome.outcome == "granted":
                by = change.requested_by or (users[change.user].requested_by if change.user in users else "")
                users[change.user] = AccessEntry(user=change.user, until=outcome.until, requested_by=by)
            elif outcome.outcome in ("revoked", "expired"):
                users.pop(change.user, None)
            if change.kind == "revoke" and outcome.outcome == "revoked":
                revoked[change.user] = max(change.asked_at, revoked.get(change.user, change.asked_at))
        self._put(site, SiteEntries(users=users, revoked=revoked, problem=entries.problem))
        self._write()

    def _look(self, files: Mapping[SiteName, SiteAccessFile]) -> None:
        """End what is over, and see what others did to the files."""
        ended: list[EndedAccess] = []
        for site, file in files.items():
            try:
                entries, gone = self._looked(site, file)
            except AccessError as error:
                entries = attrs.evolve(self._state.sites.get(site, SiteEntries()), problem=str(error))
                gone = []
                self._say(site, str(error))
            self._put(site, entries)
            ended += gone
        if ended:
            self._on_ended(ended)
        known = self._state.sites.keys() - files.keys()
        self._state = AccessState(sites={s: e for s, e in self._state.sites.items() if s not in known})
        self._write()

    def _looked(self, site: SiteName, file: SiteAccessFile) -> tuple[SiteEntries, list[EndedAccess]]:
        """Return what a site's file holds once what is over has ended, and what ended by itself.

        Raises:
            AccessError: the file cannot be read.
        """
        file.recover()
        now, gone = self._now(), list[EndedAccess]()
        before = self._state.sites.get(site, SiteEntries())
        users = {each.user: each for each in file.users()}
        over = [each.user for each in users.values() if each.until is not None and each.until <= now]
        problem = ""
        if over and time.monotonic() >= self._retry_at.get(site, float("-inf")):
            changes = [AccessChange(kind="expire", user=user, asked_at=now) for user in over]
            outcomes = self._apply(site, file, changes)
            failed = [outcome.detail for outcome in outcomes if outcome.outcome == "failed"]
            if failed:
                self._retry_at[site] = time.monotonic() + _RETRY_EVERY
                problem = f"{len(failed)} accesses are over and cannot be ended: {failed[0]}"
            else:
                self._retry_at.pop(site, None)
            users = {each.user: each for each in file.users()}
        elif over:
            problem = self._broken.get(site, "")
        else:
            self._retry_at.pop(site, None)
        for user, entry in before.users.items():
            if user in users or entry.until is None:
                continue
            expired = entry.until <= now
            why = "" if expired else "no line of ours in the file names them any more"
            gone.append(EndedAccess(site=site, user=user, outcome="expired" if expired else "revoked", detail=why))
        self._say(site, problem)
        by = {user: entry.requested_by for user, entry in before.users.items()}
        kept = {
            user: AccessEntry(user=user, until=each.until, requested_by=by.get(user, "") if each.ours else "")
            for user, each in users.items()
        }
        revoked = {user: when for user, when in before.revoked.items() if when > now - _REMEMBER}
        return SiteEntries(users=kept, revoked=revoked, problem=problem), gone

    def _say(self, site: SiteName, problem: str) -> None:
        """Log what is wrong with a site when it changes."""
        if problem and self._broken.get(site) != problem:
            _log.error("site %s: %s", site, problem)
        if problem:
            self._broken[site] = problem
        elif was := self._broken.pop(site, None):
            _log.info("site %s: no more: %s", site, was)

    def _put(self, site: SiteName, entries: SiteEntries) -> None:
        self._state = AccessState(sites={**self._state.sites, site: entries})

    def _write(self) -> None:
        """Write what is known, where it has changed. Without room it is written at the next look."""
        content = encode_state(self._state)
        if content == self._written or self._newer:
            return
        try:
            write_state(self._directory, self._state)
        except OSError as error:
            if not self._state_problem:
                _log.error("cannot write what is known of accesses: %s", error)
            self._state_problem = f"what is known of accesses cannot be written: {error.strerror}"
        else:
            if self._state_problem:
                _log.info("no more: %s", self._state_problem)
            self._written, self._state_problem = content, ""


__all__ = ["AccessKeeper", "EndedAccess"]
