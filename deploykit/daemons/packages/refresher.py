"""The thread that looks at announcements and reads sources: one at a time, as the lock of the package lists allows.

Rules:

* An announcement is done when its report is in the outbox, or when it is of no interest. Only then its message may be
  acknowledged.
* The package manager is asked about all names of a window at once: a flood of messages is no flood of processes.
* A package manager that cannot be asked makes the announcements wait; so does an outbox without room.
* A read that runs when the daemon ends is waited for. If it failed then, its announcements are left to the next daemon:
  whoever ended us may have ended it, too.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from deploykit.daemons.packages.burst import RefreshSchedule
from deploykit.daemons.packages.packagenames import AnnouncedPackage
from deploykit.daemons.packages.packagereports import PackageReportMaker
from deploykit.daemons.packages.packagerules import matters
from deploykit.daemons.packages.ports import PackageManager, PackageVersions, SourceRead
from deploykit.errors import MessageError, OutboxError, PackageError
from deploykit.messages import PackageReported, one_line
from deploykit.settings.packages import PackagesSettings

_log = logging.getLogger(__name__)

#: Seconds until something is tried again that depends on this machine alone: the package manager, the outbox.
_AGAIN_AFTER: Final = 5.0
#: Seconds between two looks whether the tool and the sources' files are there.
_LOOK_EVERY: Final = 30.0


@attrs.define(eq=False, slots=True)
class AnnouncementTicket:
    """An announcement in work.

    Args:
        package: what was announced.
        sources: that are to be read.
        done: its message may be acknowledged.
    """

    package: AnnouncedPackage
    sources: tuple[str, ...]
    done: bool = False


class PackageRefresher:
    """Reads sources for announcements, and reports. `run` is its thread; the rest may be used from any.

    Args:
        settings: which sources there are, and how patient to be.
        manager: asks and reads.
        reports: makes the reports.
        report: queues reports in one durable step; raises OutboxError or MessageError.
        on_read: called with a source's name and the outcome of each read.
        chance: returns a number from 0 to 1.
    """

    def __init__(
        self,
        settings: PackagesSettings,
        manager: PackageManager,
        *,
        reports: PackageReportMaker,
        report: Callable[..., object],
        on_read: Callable[[str, str], object] = lambda _source, _outcome: None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._manager = manager
        self._reports = reports
        self._report = report
        self._on_read = on_read
        self._chance = chance
        self._schedule = RefreshSchedule[AnnouncementTicket](settings)
        self._queue: queue.SimpleQueue[tuple[AnnouncementTicket, float] | None] = queue.SimpleQueue()
        self._unreported: list[tuple[tuple[PackageReported, ...], list[AnnouncementTicket]]] = []
        self._own = ""
        self._report_at = float("-inf")
        self._looked = float("-inf")
        self._unusable: tuple[str, ...] = ()
        self._unasked = ""
        self._unread: dict[str, str] = {}
        self._full = ""
        self._busy = ""

    # -- for other threads ---------------------------------------------------------------------------------------------

    def submit(self, package: AnnouncedPackage, sources: Sequence[str]) -> AnnouncementTicket:
        """Have a package looked at, and sources read if it is of interest; the ticket says when that is done."""
        ticket = AnnouncementTicket(package, tuple(sources))
        self._queue.put((ticket, time.monotonic()))
        return ticket

    def wake(self) -> None:
        """Have `run` look at its event."""
        self._queue.put(None)

    @property
    def blocking(self) -> tuple[str, ...]:
        """What keeps it from its work: a package manager that cannot be asked, files that are not there."""
        return (*self._unusable, *filter(None, (self._unasked,)))

    @property
    def problems(self) -> tuple[str, ...]:
        """What a person should know: what keeps it from its work, sources that could not be read, a full outbox."""
        unread = tuple(f"source {source}: {why}" for source, why in sorted(self._unread.items()))
        return (*self.blocking, *unread, *filter(None, (self._full,)))

    @property
    def busy(self) -> str:
        """The read, or the question to the package manager, that runs now; empty for none."""
        return self._busy

    # -- its thread ----------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """See whether the tool and the sources' files are there."""
        self._looked = time.monotonic()
        found = [self._manager.problem()]
        if self._settings.tool == "apt":
            for name, source in self._settings.sources.items():
                if source.file is not None and (why := _why_not_there(source.file)):
                    found.append(f"source {name}: {why}")
        unusable = tuple(filter(None, found))
        for problem in unusable:
            if problem not in self._unusable:
                _log.error("%s", problem)
        for problem in self._unusable:
            if problem not in unusable:
                _log.info("no more: %s", problem)
        self._unusable = unusable

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set and `wake` was called."""
        while not stop.is_set():
            self._take()
            if stop.is_set():
                break
            self._step(stop)
        self._send(float("inf"))

    def _take(self) -> None:
        """Wait for an announcement, or for the time of the next step."""
        now = time.monotonic()
        due = min(self._schedule.next_due(), self._looked + _LOOK_EVERY)
        if self._unreported:
            due = min(due, self._report_at)
        try:
            first = self._queue.get(timeout=max(0.0, due - now))
        except queue.Empty:
            return
        if first is not None:
            self._schedule.arrived(*first)
        self._drain()

    def _drain(self) -> None:
        while not self._queue.empty():  # only this thread takes from it
            if (more := self._queue.get()) is not None:
                self._schedule.arrived(*more)

    def _step(self, stop: threading.Event) -> None:
        if time.monotonic() >= self._looked + _LOOK_EVERY:
            self.look()
        if gathered := self._schedule.take_gathered(time.monotonic()):
            self._look_at(gathered)
        source = self._schedule.begin(time.monotonic())
        if source is not None:
            self._read(source, stop)
        self._settle()
        self._send(time.monotonic())

    def _look_at(self, gathered: Sequence[AnnouncementTicket]) -> None:
        """Let the sources be read for what is of interest; the rest is done."""
        names = tuple(dict.fromkeys(ticket.package.name for ticket in gathered))
        try:
            with self._doing("the package manager, which is being asked"):
                self._own = self._own or self._manager.architecture()
                held = self._manager.installed(names)
        except PackageError as error:
            if not self._unasked:
                _log.error("announcements wait: %s", error)
            self._unasked = str(error)
            self._schedule.put_back(gathered, time.monotonic(), _AGAIN_AFTER)
            return
        if self._unasked:
            _log.info("announcements go on, no more: %s", self._unasked)
        self._unasked = ""
        for ticket in gathered:
            package = ticket.package
            if matters(package, held.get(package.name), self._settings, self._own):
                self._schedule.wanted(ticket, ticket.sources, time.monotonic())
                continue
            _log.debug("package %s (%s): of no interest here", package.name, package.architecture or "any")
            ticket.done = True

    def _read(self, source: str, stop: threading.Event) -> None:
        settings = self._settings.sources[source]
        try:
            with self._doing(f"source {source}, which is being read"):
                read = self._manager.read_source(source, settings, deadline=self._settings.deadline)
        except Exception as error:  # noqa: BLE001 -- a defect in reading one source must not keep the others from it
            _log.exception("source %s", source)
            read = SourceRead(outcome="failed", detail=f"{type(error).__name__}; see the log of the packages daemon")
        if stop.is_set() and read.outcome != "read":
            _log.info("source %s: %s: left to the next start", source, read.detail or read.outcome)
            return
        self._on_read(source, read.outcome)
        self._note(source, read)
        self._drain()  # what came meanwhile opens its window after this read
        self._schedule.ended(read, time.monotonic(), self._chance())

    @contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        """Let `busy` say what runs: a service manager gives the end more time while something does."""
        self._busy = what
        try:
            yield
        finally:
            self._busy = ""

    def _note(self, source: str, read: SourceRead) -> None:
        if read.outcome == "read":
            _log.info("source %s: read", source)
            self._unread.pop(source, None)
            return
        why = one_line(read.detail or read.outcome)
        level = logging.INFO if read.outcome == "locked" else logging.WARNING
        if self._unread.get(source) != why:
            _log.log(level, "source %s: not read: %s", source, why)
        self._unread[source] = why

    def _settle(self) -> None:
        """Make the reports about announcements whose sources are over."""
        settled = self._schedule.take_settled()
        if not settled:
            return
        problem, versions = "", dict[str, PackageVersions]()
        try:
            with self._doing("the package manager, which is being asked"):
                versions |= self._manager.versions(tuple(dict.fromkeys(each.item.package.name for each in settled)))
        except PackageError as error:
            problem = str(error)
        pairs = [(each.item.package, _in_order(each.ends, each.item.sources)) for each in settled]
        made = self._reports.reports(pairs, versions, problem)
        self._unreported.append((made, [each.item for each in settled]))

    def _send(self, now: float) -> None:
        """Queue the reports that are not in the outbox yet."""
        while self._unreported and now >= self._report_at:
            reports, tickets = self._unreported[0]
            try:
                self._put(reports)
            except OutboxError as error:
                if not self._full:
                    _log.error("reports wait: %s", error)
                self._full, self._report_at = f"reports wait: {error}", time.monotonic() + _AGAIN_AFTER
                return
            del self._unreported[0]
            if self._full:
                _log.info("no more: %s", self._full)
            self._full = ""
            for ticket in tickets:
                ticket.done = True

    def _put(self, reports: Sequence[PackageReported]) -> None:
        """Queue reports; one that no reader would accept is given up alone.

        Raises:
            OutboxError: there is no room for them.
        """
        try:
            self._report(*reports)
        except MessageError as error:
            if len(reports) > 1:
                for each in reports:
                    self._put([each])
                return
            _log.error("cannot queue a report, given up: %s: %s", reports[0].summary, error)


def _why_not_there(file: Path) -> str:
    """Return why a source's file is not there, or cannot be looked at; empty where it is there."""
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return f"there is no {file}"
    except OSError as error:
        return f"cannot read {file}: {error.strerror}"
    return ""


def _in_order(ends: Mapping[str, SourceRead], sources: Sequence[str]) -> Mapping[str, SourceRead]:
    return {source: ends[source] for source in sources}


__all__ = ["AnnouncementTicket", "PackageRefresher"]
