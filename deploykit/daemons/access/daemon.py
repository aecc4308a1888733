"""The access daemon: who may see the protected sites of this node.

    bus -> commands: trust.check -> authorize -> ids.claim -> audit -> keeper -> access file -> report -> outbox -> Ack

Rules:

* It needs no agent and no checkout: it runs beside the server whose password file it keeps.
* A second daemon on the same state directory is refused.
* The end waits for a test or a reload that runs: the next daemon would take its change for one that was cut off.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from typing import Final

from deploykit.audit import open_audit
from deploykit.bus import Bus
from deploykit.daemons.access.accessaudit import AccessAudit
from deploykit.daemons.access.accessreports import AccessReportMaker
from deploykit.daemons.access.commands import AccessCommandHandler
from deploykit.daemons.access.haproxymaster import RELOAD_SECONDS
from deploykit.daemons.access.keeper import AccessKeeper, EndedAccess
from deploykit.daemons.access.servercommand import COMMAND_SECONDS
from deploykit.daemons.access.sitefile import SiteAccessFile
from deploykit.daemons.agent.pending_reports import PendingReports
from deploykit.daemons.agent.reports import Reporter
from deploykit.daemons.relay import make_relay, open_outbox
from deploykit.daemons.service import lifecycle
from deploykit.daemons.service.auditing import AuditWriter
from deploykit.daemons.service.durable import forget_subscriptions, named_subscriptions
from deploykit.daemons.service.metrics import Metrics
from deploykit.daemons.service.service import Service
from deploykit.daemons.service.throttle import INTERVAL
from deploykit.errors import IdStoreError, SettingsError
from deploykit.ids import IdStore
from deploykit.messages import AccessGrantRequested, AccessRevokeRequested, utc_now
from deploykit.messages.topics import topics_of_class
from deploykit.settings.node import Settings
from deploykit.system.lock import FileLock
from deploykit.trust.check import Trust
from deploykit.trust.keyfiles import load_signing_key

_log = logging.getLogger(__name__)

#: Commands that may wait for one burst.
WORKERS: Final = 32
#: How often the broker hands over what cannot be recorded here: for as long as that takes.
_ATTEMPTS: Final = 1_000_000
_DAY: Final = 86400.0
_MODE: Final = 0o750
#: Seconds for the last change: test, reload and what haproxy's master says, and all again with the old content.
_LAST_CHANGE: Final = 2 * (2 * COMMAND_SECONDS + RELOAD_SECONDS)


def run(load: Callable[[], Settings], *, on_ready: Callable[[str], None]) -> None:
    """Run the access daemon until TERM. HUP reads the settings again; while those are bad, the old ones stay in force.

    Args:
        load: reads the settings.
        on_ready: called with `access on NODE` once it is connected and subscribed.

    Raises:
        SettingsError: the first settings are wrong, or name no protected site.
        LoginRefused: no broker accepts the credentials.
        LockBusy: another access daemon uses the state directory.
        DeploykitError: outbox, ids or a key cannot be opened.
    """
    lifecycle.serve_one("access", load, lambda each, metrics: AccessDaemon(each, metrics=metrics), on_ready=on_ready)


def forget(settings: Settings) -> None:
    """Delete the daemon's durable subscription at the broker, for a node that protects no site any more.

    Raises:
        LockBusy: it runs here, and would lose commands.
    """
    with (
        access_lock(settings),
        Bus(settings.broker, client_id=f"deploykit-{settings.node}-access") as bus,
    ):
        bus.wait_connected(settings.broker.connect_timeout)
        forget_subscriptions(bus, subscriptions_of(settings), settings.broker.connect_timeout)


def subscriptions_of(settings: Settings) -> tuple[tuple[str, str], ...]:
    """Return topic and durable name of each subscription: commands that came while the daemon was down still count."""
    kinds = (AccessGrantRequested, AccessRevokeRequested)
    topics = (topic for kind in kinds for topic in topics_of_class(kind, settings.topics))
    return named_subscriptions(topics, f"deploykit-{settings.node}-access")


def access_lock(settings: Settings) -> FileLock:
    """Return the lock that keeps a second daemon off the same files; its directory is made."""
    directory = settings.state / "access"
    directory.mkdir(parents=True, exist_ok=True, mode=_MODE)
    return FileLock(
        directory / "lock",
        busy=f"another access daemon works on state directory {settings.state}",
        remedy="stop that one",
        mode=0o644,
    )


class AccessDaemon(Service):
    """Keeps who may see protected sites. Use it as a context manager; it owns threads, no signal handlers.

    Args:
        settings: the node's; its `[access]` has a site at least.
        bus: a started bus that it shares; None: it makes its own.
        metrics: where it counts.
        now: the wall clock, aware UTC.

    Raises:
        SettingsError: there is no protected site, or another setting is wrong.
        OutboxError, IdStoreError, AuditError, KeyFileError: a file cannot be opened.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        bus: Bus | None = None,
        metrics: Metrics | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        if not settings.access.sites:
            raise SettingsError("there is no [access.sites.NAME] in the settings", "see docs/access.md for an example")
        self.settings = settings
        self._now = now
        key = load_signing_key(settings.signing_key) if settings.signing_key else None
        self._signs = key is not None
        self._outbox = open_outbox(settings.outbox)
        self._lock = access_lock(settings)
        trust = Trust.from_settings(settings.trust, settings.node, repos=settings.site_repos)
        name, client_id = f"access on {settings.node}", f"deploykit-{settings.node}-access"
        super().__init__(name, settings.broker, bus=bus, client_id=client_id, metrics=metrics)
        directory = settings.state / "access"
        self._ids = IdStore(directory / "ids.sqlite")
        self._ids.close()  # it can be opened; the next use opens it again
        log = open_audit(settings, on_record=self.metrics.audit_recorded)
        self._audit = AccessAudit(AuditWriter(log, f"access/{settings.node}", now), settings.node)
        reporter = Reporter(self._outbox, settings.topics, key, legacy=settings.legacy)
        self._reports = AccessReportMaker(node=settings.node)
        self._pending = PendingReports(reporter)
        self.keeper = AccessKeeper(
            {name: SiteAccessFile(name, site, directory) for name, site in settings.access.sites.items()},
            settings.state,
            gather=settings.access.gather,
            on_ended=self._ended,
            now=now,
        )
        self._commands = AccessCommandHandler(
            settings.node,
            settings.access,
            trust=trust,
            ids=self._ids,
            keeper=self.keeper,
            reporter=reporter,
            audit=self._audit,
            ending=self.ending,
            now=now,
        )
        self._relay = make_relay(self._outbox, self.link.bus, settings.outbox)
        self.threads.add("access-relay", partial(self._relay.run, self.ending))
        self.threads.add("access-keeper", partial(self.keeper.run, self.ending))
        self.threads.add("access-upkeep", self._look_after)

    # -- life --------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        with ExitStack() as undo:
            undo.enter_context(self._lock)
            undo.callback(self._ids.close)
            undo.callback(self.link.stop, 0)
            self.metrics.expect("access", sites=self.settings.access.sites, counters=("audit_records_total",))
            self.metrics.watch_access(lambda: {str(site): count for site, count in self.keeper.counts.items()})
            for problem in self._settled:
                _log.warning("%s", problem)
            self.keeper.prepare()
            self.link.start()
            self.watch_outbox(self._outbox.path)
            handle = self.metrics.counted(self._commands.handle)
            for topic, durable in subscriptions_of(self.settings):
                self.link.subscribe(
                    topic, handle, durable=durable, workers=WORKERS, prefetch=2 * WORKERS, max_attempts=_ATTEMPTS
                )
            self.threads.start()
            undo.pop_all()

    def _end(self) -> None:
        try:
            self.ending.set()
            self.keeper.wake()
            super()._end()
            if self.keeper.busy:
                self.threads.join(time.monotonic() + _LAST_CHANGE)
            self._pending.stop()
            self._commands.flush(float("inf"))
            self._ids.close()
        finally:
            self._lock.__exit__(None, None, None)

    def _ended(self, ended: Sequence[EndedAccess]) -> None:
        """Record and report what ended by itself."""
        for each in ended:
            _log.info(
                "site %s: the access of %s has ended: %s", each.site, each.user, each.detail or "its time was over"
            )
            self._audit.over(each)
        self._pending.add([self._reports.of_ended(each, self._now()) for each in ended])

    def _look_after(self) -> None:
        """Record what was counted, and forget old ids once a day."""
        pruned = float("-inf")
        while not self.ending.wait(INTERVAL):
            self._commands.flush(time.monotonic())
            if time.monotonic() - pruned >= _DAY:
                pruned = time.monotonic()
                try:
                    self._ids.prune(self._now())
                except IdStoreError as error:
                    _log.warning("cannot prune what is remembered of commands: %s", error)

    # -- what it says of itself ----------------------------------------------------------------------------------------

    @property
    def status(self) -> str:
        """Whether it is connected, and how many users the sites have."""
        users = sum(self.keeper.counts.values())
        return f"{super().status}; {users} user{'' if users == 1 else 's'} on {len(self.settings.access.sites)} sites"

    @property
    def problems(self) -> tuple[str, ...]:
        """Files that cannot be used, accesses that cannot be ended, and what the settings make unsafe."""
        return (*self.keeper.problems, *self._settled)

    @property
    def blocking(self) -> tuple[str, ...]:
        """Files that cannot be used, and accesses that cannot be ended."""
        return self.keeper.problems

    @property
    def busy(self) -> str:
        """The change that is being made: its test and its reload have a minute each."""
        return self.keeper.busy

    @property
    def _settled(self) -> tuple[str, ...]:
        settings, found = self.settings, []
        if settings.access.legacy:
            found.append("access.legacy is on: whoever can publish on the bus may grant access, in clear text")
        if not self._signs:
            found.append(
                "no signing_key is set: nobody can believe this node's reports (see `deploykit keys generate`)"
            )
        if settings.trust.allowed_signers is None:
            found.append("no trust.allowed_signers is set: no command is obeyed (see `deploykit keys trust`)")
        return tuple(found)


__all__ = ["AccessDaemon", "access_lock", "forget", "run", "subscriptions_of"]
