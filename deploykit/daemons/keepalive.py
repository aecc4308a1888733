"""`deploykit keepalive`: an empty line to listed destinations, once or for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import attrs

from deploykit.bus import Bus, keepalive
from deploykit.bus.passcode import secrets_of
from deploykit.daemons.service import lifecycle, logs
from deploykit.errors import UsageError
from deploykit.settings.node import Settings


def run(load: Callable[[], Settings], *, destinations: Sequence[str], every: float | None) -> None:
    """Send keepalives until TERM. HUP reads the settings again; while those are bad, the old ones stay in force.

    Args:
        load: reads the settings.
        destinations: instead of those that the settings list.
        every: seconds between two rounds, instead of what the settings say.

    Raises:
        SettingsError: the first settings are wrong.
        UsageError: they list no destinations either.
        LoginRefused: no broker takes us.
    """

    def work(keeping: _Keeping, end: threading.Event) -> None:
        with keeping.bus as bus:
            bus.wait_connected(keeping.patience)  # a refused login ends it here
            keepalive.run(bus, keeping.destinations, every=keeping.every, stop=end)

    def make(settings: Settings) -> _Keeping:
        return _Keeping(settings, destinations, every)

    lifecycle.serve(load, make, work, set_up=lambda s: logs.set_up(s.log, secrets=secrets_of(s.broker)))


def once(settings: Settings, *, destinations: Sequence[str], every: float | None) -> dict[str, str]:
    """Send one keepalive to each destination; return the problem of each, "" where there is none.

    Raises:
        UsageError: no destinations, here or in the settings.
        LoginRefused: no broker takes us.
    """
    keeping = _Keeping(settings, destinations, every)
    with keeping.bus as bus:
        bus.wait_connected(keeping.patience)
        limit, ttl = settings.broker.connect_timeout, 2 * keeping.every
        problems = keepalive.send_once(bus, keeping.destinations, timeout=limit, ttl=ttl)
    return {name: problems.get(name, "") for name in keeping.destinations}


class _Keeping:
    """What is to be sent by some settings, and a bus for it, not started."""

    def __init__(self, settings: Settings, destinations: Sequence[str], every: float | None) -> None:
        self.destinations = tuple(destinations) or settings.broker.keepalive
        if not self.destinations:
            raise UsageError("no destinations", "name some, or set broker.keepalive")
        self.every = every or settings.broker.keepalive_every
        self.patience = min(1.0, settings.broker.connect_timeout)
        self.bus = Bus(attrs.evolve(settings.broker, keepalive=()))
