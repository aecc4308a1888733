"""`deploykit keepalive`: an empty line to listed destinations, once or until TERM."""

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
    """Send keepalives until TERM. HUP reads the settings again; wrong ones change nothing.

    Args:
        load: returns the settings.
        destinations: instead of those that the settings list.
        every: seconds between two rounds, instead of the settings' value.

    Raises:
        SettingsError: the first settings are wrong.
        UsageError: no destinations, here or in the settings.
        LoginRefused: the broker refuses the login.
    """

    def work(sender: _Sender, end: threading.Event) -> None:
        with sender.bus as bus:
            bus.wait_connected(sender.patience)  # a refused login is raised here
            keepalive.run(bus, sender.destinations, every=sender.every, stop=end)

    def make(settings: Settings) -> _Sender:
        return _Sender(settings, destinations, every)

    lifecycle.serve(load, make, work, set_up=lambda s: logs.set_up(s.log, secrets=secrets_of(s.broker)))


def once(settings: Settings, *, destinations: Sequence[str], every: float | None) -> dict[str, str]:
    """Send one keepalive to each destination; return the problem of each, "" where there is none.

    Raises:
        UsageError: no destinations, here or in the settings.
        LoginRefused: the broker refuses the login.
    """
    sender = _Sender(settings, destinations, every)
    with sender.bus as bus:
        bus.wait_connected(sender.patience)
        limit, ttl = settings.broker.connect_timeout, 2 * sender.every
        problems = keepalive.send_once(bus, sender.destinations, timeout=limit, ttl=ttl)
    return {name: problems.get(name, "") for name in sender.destinations}


class _Sender:
    """Destinations and interval by the settings, and a bus that is not started."""

    def __init__(self, settings: Settings, destinations: Sequence[str], every: float | None) -> None:
        self.destinations = tuple(destinations) or settings.broker.keepalive
        if not self.destinations:
            raise UsageError("no destinations", "name some, or set broker.keepalive")
        self.every = every or settings.broker.keepalive_every
        self.patience = min(1.0, settings.broker.connect_timeout)
        self.bus = Bus(attrs.evolve(settings.broker, keepalive=()))
