"""The relay as a process of its own: a bus, an outbox, and the signals that end it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from deploykit.bus import Bus
from deploykit.bus.passcode import secrets_of
from deploykit.daemons.service import lifecycle, logs
from deploykit.errors import LockBusy
from deploykit.outbox import Outbox, RelayLock
from deploykit.outbox.relay import DrainReport, Relay
from deploykit.settings.node import Settings
from deploykit.settings.outbox import OutboxSettings

#: Added to the niceness of a relay that a hook started: the next push must not wait for it.
_NICER = 10


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
        on_ready: called with the spool's path once it listens there.

    Raises:
        SettingsError: the first settings are wrong.
        OutboxError: the spool cannot be opened.
        LockBusy: another relay is at work.
        LoginRefused: every broker refused the login.
    """

    first = True
    outbox: Outbox | None = None

    def make(settings: Settings) -> _RelayRun:
        nonlocal outbox
        opened = open_outbox(settings.outbox)
        if outbox is None or outbox.path != opened.path:
            outbox = opened  # else keep the old one: it remembers what was sent and could not be marked on a full disk
        return _RelayRun(settings, outbox)

    def work(run: _RelayRun, end: threading.Event) -> None:
        nonlocal first
        alone, first = first, False
        run.work(end, on_ready, alone=alone)

    lifecycle.serve(load, make, work, set_up=_set_up_logs)


def _set_up_logs(settings: Settings) -> None:
    logs.set_up(settings.log, secrets=secrets_of(settings.broker))


class _RelayRun:
    """One run of the relay, by one reading of the settings."""

    def __init__(self, settings: Settings, outbox: Outbox) -> None:
        self._settings = settings
        self._outbox = outbox
        self._bus = Bus(settings.broker)

    def work(self, end: threading.Event, on_ready: Callable[[str], None], *, alone: bool) -> None:
        """Relay until `end` is set.

        Args:
            alone: end at once where another relay is at work. Not after HUP: a relay that started between two runs of
                this process ends soon.
        """
        if alone:
            with RelayLock(self._outbox.path):
                pass  # fail before anything is connected
        with self._bus as bus:
            bus.wait_connected(min(1.0, self._settings.broker.connect_timeout))  # a refused login raises here
            lifecycle.notify("READY=1")
            announce = threading.Thread(target=_when_listening, args=(self._outbox, end, on_ready), daemon=True)
            announce.start()
            make_relay(self._outbox, bus, self._settings.outbox).run(end, stand_by=not alone)
            lifecycle.notify("STOPPING=1")


def _when_listening(outbox: Outbox, stop: threading.Event, on_ready: Callable[[str], None]) -> None:
    while not outbox.relay_listens():
        if stop.wait(0.02):
            return
    on_ready(outbox.path)


def once(settings: Settings, deadline: float) -> DrainReport:
    """Send what waits, within `deadline` seconds; leave it to another relay where one is at work.

    Raises:
        OutboxError: the spool cannot be opened or read.
        LoginRefused: every broker refused the login.
    """
    _set_up_logs(settings)
    outbox = open_outbox(settings.outbox)
    try:
        with RelayLock(outbox.path):
            pass
        with Bus(settings.broker) as bus:
            return make_relay(outbox, bus, settings.outbox).drain_once(deadline)
    except LockBusy:
        return DrainReport(sent=0, dead_letters=(), complete=True, problem="another relay is at work")
