"""The packages daemon: a message announces a package, and the sources that have it are read anew.

    bus -> announcements: decode, parse -> burst -> rules: installed? listed? -> source -> report -> outbox -> Ack

Rules:

* Nothing is ever installed, and no source is read that is not in the settings.
* A second daemon on the same state directory is refused.
* The end waits for a read that runs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Final

from deploykit.bus import Bus
from deploykit.daemons.agent.reports import Reporter
from deploykit.daemons.packages.announcements import IN_HAND, LOOKS, AnnouncementHandler
from deploykit.daemons.packages.managers import manager_of
from deploykit.daemons.packages.packagereports import PackageReportMaker
from deploykit.daemons.packages.ports import PackageManager
from deploykit.daemons.packages.refresher import PackageRefresher
from deploykit.daemons.relay import make_relay, open_outbox
from deploykit.daemons.service import lifecycle
from deploykit.daemons.service.durable import forget_subscriptions, named_subscriptions
from deploykit.daemons.service.metrics import Metrics
from deploykit.daemons.service.service import Service
from deploykit.daemons.service.throttle import INTERVAL
from deploykit.errors import SettingsError
from deploykit.messages import PackagePublished
from deploykit.messages.topics import topics_of_class
from deploykit.settings.node import Settings
from deploykit.system.lock import FileLock
from deploykit.trust.keyfiles import load_signing_key

_log = logging.getLogger(__name__)

#: A message is handed over again at each look at its ticket.
_ATTEMPTS: Final = 1_000_000
_MODE: Final = 0o750
#: Seconds that the end waits beyond the deadline of a read: for what the package manager is asked after it.
_MORE: Final = 120.0


def run(load: Callable[[], Settings], *, on_ready: Callable[[str], None]) -> None:
    """Run the packages daemon until TERM. HUP reads the settings again; while those are bad, the old ones stay.

    Args:
        load: reads the settings.
        on_ready: called with `packages on NODE` once it is connected and subscribed.

    Raises:
        SettingsError: the first settings are wrong, or name no source.
        LoginRefused: no broker accepts the credentials.
        LockBusy: another packages daemon uses the state directory.
        DeploykitError: the outbox or the key cannot be opened.
    """
    lifecycle.serve_one(
        "packages", load, lambda each, metrics: PackagesDaemon(each, metrics=metrics), on_ready=on_ready
    )


def forget(settings: Settings) -> None:
    """Delete the daemon's durable subscription at the broker, for a node that reads no sources any more.

    Raises:
        LockBusy: it runs here, and would lose messages.
    """
    with (
        packages_lock(settings),
        Bus(settings.broker, client_id=f"deploykit-{settings.node}-packages") as bus,
    ):
        bus.wait_connected(settings.broker.connect_timeout)
        forget_subscriptions(bus, subscriptions_of(settings), settings.broker.connect_timeout)


def subscriptions_of(settings: Settings) -> tuple[tuple[str, str], ...]:
    """Return topic and durable name of each subscription: packages that came while the daemon was down still count."""
    return named_subscriptions(
        topics_of_class(PackagePublished, settings.topics), f"deploykit-{settings.node}-packages"
    )


def packages_lock(settings: Settings) -> FileLock:
    """Return the lock that keeps a second daemon off the same sources; its directory is made."""
    directory = settings.state / "packages"
    directory.mkdir(parents=True, exist_ok=True, mode=_MODE)
    return FileLock(
        directory / "lock",
        busy=f"another packages daemon works on state directory {settings.state}",
        remedy="stop that one",
        mode=0o644,
    )


class PackagesDaemon(Service):
    """Reads package sources anew when a package is announced. Use it as a context manager; it owns no signal handlers.

    Args:
        settings: the node's; its `[packages]` has a source at least.
        bus: a started bus that it shares; None: it makes its own.
        metrics: where it counts.
        manager: a stand-in for the package manager of the settings.

    Raises:
        SettingsError: there is no source, or another setting is wrong.
        OutboxError, KeyFileError: a file cannot be opened.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        bus: Bus | None = None,
        metrics: Metrics | None = None,
        manager: PackageManager | None = None,
    ) -> None:
        if not settings.packages.sources:
            raise SettingsError(
                "there is no [packages.sources.NAME] in the settings", "see docs/packages.md for an example"
            )
        self.settings = settings
        key = load_signing_key(settings.signing_key) if settings.signing_key else None
        self._signs = key is not None
        self._outbox = open_outbox(settings.outbox)
        self._lock = packages_lock(settings)
        name, client_id = f"packages on {settings.node}", f"deploykit-{settings.node}-packages"
        super().__init__(name, settings.broker, bus=bus, client_id=client_id, metrics=metrics)
        self.refresher = PackageRefresher(
            settings.packages,
            manager or manager_of(settings.packages),
            reports=PackageReportMaker(node=settings.node),
            report=Reporter(self._outbox, settings.topics, key, legacy=settings.legacy).report,
            on_read=self.metrics.package_source_read,
        )
        self._announcements = AnnouncementHandler(
            settings.packages, self.refresher, ending=self.ending, count=self.metrics.message_handled
        )
        self._relay = make_relay(self._outbox, self.link.bus, settings.outbox)
        self.threads.add("packages-relay", partial(self._relay.run, self.ending))
        self.threads.add("packages-refresher", partial(self.refresher.run, self.ending))
        self.threads.add("packages-upkeep", self._look_after)

    # -- life ----------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        with ExitStack() as undo:
            undo.enter_context(self._lock)
            undo.callback(self.link.stop, 0)
            self.metrics.expect(
                "packages", sources=self.settings.packages.sources, counters=("package_source_reads_total",)
            )
            self.refresher.look()
            if not self._signs:
                _log.warning("%s", _UNSIGNED)
            self.link.start()
            self.watch_outbox(self._outbox.path)
            for topic, durable in subscriptions_of(self.settings):
                self.link.subscribe(
                    topic, self._announcements.handle, durable=durable, prefetch=IN_HAND, max_attempts=_ATTEMPTS
                )
            self.threads.start()
            undo.pop_all()

    def _end(self) -> None:
        try:
            self.ending.set()
            self.refresher.wake()
            self.threads.join(time.monotonic() + self.settings.packages.deadline + _MORE)
            if self.link.connected:
                self._announcements.wait_acknowledged(time.monotonic() + 2 * LOOKS.maximum)
            super()._end()
            self._announcements.flush(float("inf"))
        finally:
            self._lock.__exit__(None, None, None)

    def _look_after(self) -> None:
        """Log what was counted."""
        while not self.ending.wait(INTERVAL):
            self._announcements.flush(time.monotonic())

    # -- what it says of itself ----------------------------------------------------------------------------------------

    @property
    def status(self) -> str:
        """Whether it is connected, and how many announcements wait."""
        waiting = self._announcements.waiting
        return f"{super().status}; {waiting} announced packages in work" if waiting else super().status

    @property
    def problems(self) -> tuple[str, ...]:
        """What keeps it from its work, sources that could not be read, and what the settings make useless."""
        return (*self.refresher.problems, *(() if self._signs else (_UNSIGNED,)))

    @property
    def blocking(self) -> tuple[str, ...]:
        """A package manager that cannot be asked, and files of sources that are not there."""
        return self.refresher.blocking

    @property
    def busy(self) -> str:
        """The read that runs."""
        return self.refresher.busy


_UNSIGNED: Final = "no signing_key is set: nobody can believe this node's reports (see `deploykit keys generate`)"


__all__ = ["PackagesDaemon", "forget", "packages_lock", "run", "subscriptions_of"]
