"""The relay as a process of its own: a bus, an outbox, and the signals that end it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from deploykit.bus import Bus
from deploykit.daemons.service import lifecycle
from deploykit.daemons.service.logs import set_up_from
from deploykit.daemons.service.metrics import Metrics
from deploykit.daemons.service.service import STOP_SECONDS, Service
from deploykit.errors import LockBusy
from deploykit.outbox import Outbox, RelayLock
from deploykit.outbox.relay import DrainReport, Relay
from deploykit.settings.node import Settings
from deploykit.settings.outbox import OutboxSettings

#: Added to the niceness of a relay that a hook started: the next push must not wait for it.
_NICER = 10
#: What is left to another relay.
_SENT_BY_ANOTHER: Final = DrainReport(sent=0, dead_letters=(), complete=True, problem="another relay is at work")


def step_back() -> None:
    """Lower this process' priority, and leave the directory it was started in: a repository that may be removed."""
    os.nice(_NICER)
    os.chdir("/")


def open_outbox(settings: OutboxSettings) -> Outbox:
    """Open the spool that the settings name.

    Raises:
        OutboxError: it cannot be opened.
    """
    return Outbox(settings.path, create=settings.create, group=settings.group)


def make_relay(outbox: Outbox, bus: Bus, settings: OutboxSettings) -> Relay:
    """Return a relay with the limits of the settings."""
    return Relay(
        outbox,
        bus,
        window=settings.window,
        max_attempts=settings.max_attempts,
        pause_max=settings.pause_max,
        rescan=settings.rescan,
    )


def run(load: Callable[[], Settings], *, on_ready: Callable[[str], None]) -> None:
    """Relay until TERM or INT. HUP reads the settings again; while they are wrong, the old ones stay in force.

    Args:
        load: reads the settings.
        on_ready: called with `relay of SPOOL` once it sends what waits there.

    Raises:
        SettingsError: the first settings are wrong.
        OutboxError: the spool cannot be opened.
        LockBusy: another relay is at work.
        LoginRefused: every broker refused the login.
    """
    outbox: Outbox | None = None

    def make(settings: Settings, metrics: Metrics) -> RelayService:
        nonlocal outbox
        opened, first = open_outbox(settings.outbox), outbox is None
        if outbox is None or outbox.path != opened.path:
            outbox = opened  # else keep the old one: it remembers what was sent and could not be marked on a full disk
        # A relay that started between two runs of this process ends soon: after HUP, wait for it.
        return RelayService(settings, outbox=outbox, stand_by=not first, metrics=metrics)

    lifecycle.serve_one("relay", load, make, on_ready=on_ready)


class RelayService(Service):
    """The relay of a spool. On a shared bus it stands by while another relay is at work there.

    Args:
        settings: the bus, and the spool.
        bus: a started bus that it shares; None: it makes its own.
        outbox: the spool, already open.
        stand_by: wait where another relay is at work at the start, instead of raising `LockBusy`; default: on a shared
            bus.
        metrics: where it counts.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        bus: Bus | None = None,
        outbox: Outbox | None = None,
        stand_by: bool | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._outbox = open_outbox(settings.outbox) if outbox is None else outbox
        super().__init__(f"relay of {self._outbox.path}", settings.broker, bus=bus, metrics=metrics)
        self._stand_by = self.link.shared if stand_by is None else stand_by
        self._relay = make_relay(self._outbox, self.link.bus, settings.outbox)
        self.threads.add("relay", partial(self._relay.run, self.ending, stand_by=self._stand_by))

    def _start(self) -> None:
        if not self._stand_by:
            with RelayLock(self._outbox.path):
                pass  # fail before anything is connected
        self.link.start()
        self.threads.start()
        self.watch_outbox(self._outbox.path)

    def _end(self) -> None:
        self.ending.set()
        self.threads.join(time.monotonic() + STOP_SECONDS)  # before the bus: it waits for the last receipts
        super()._end()

    @property
    def working(self) -> bool:
        """Whether it sends what the spool holds, or would: a broker that is away changes nothing."""
        return self._relay.at_work

    @property
    def problems(self) -> tuple[str, ...]:
        """Another relay that is at work there."""
        return () if self.working else (f"standing by: another relay works on spool {self._outbox.path}",)

    @property
    def blocking(self) -> tuple[str, ...]:
        """Nothing: while it stands by, the other relay sends what the spool holds."""
        return ()


def once(settings: Settings, deadline: float) -> DrainReport:
    """Send what waits, within `deadline` seconds; leave it to another relay where one is at work.

    Raises:
        OutboxError: the spool cannot be opened or read.
        LoginRefused: every broker refused the login.
    """
    set_up_from(settings)
    outbox = open_outbox(settings.outbox)
    try:
        with RelayLock(outbox.path):
            pass
        with Bus(settings.broker) as bus:
            return drain(outbox, bus, settings.outbox, deadline)
    except LockBusy:
        return _SENT_BY_ANOTHER


def drain(outbox: Outbox, bus: Bus, settings: OutboxSettings, deadline: float) -> DrainReport:
    """Send what waits over a started bus, within `deadline` seconds; leave it to another relay where one is at work.

    Raises:
        OutboxError: the spool cannot be read.
        LoginRefused: every broker refused the login.
    """
    try:
        return make_relay(outbox, bus, settings).drain_once(deadline)
    except LockBusy:
        return _SENT_BY_ANOTHER
