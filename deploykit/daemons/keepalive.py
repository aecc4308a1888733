"""`deploykit keepalive`: an empty line to listed destinations, once or until TERM."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from time import monotonic, sleep
from typing import Final

import attrs

from deploykit.bus import Bus
from deploykit.bus.checks import FOREVER
from deploykit.bus.keepalive import KEEPALIVE
from deploykit.daemons.service import lifecycle
from deploykit.daemons.service.metrics import Metrics
from deploykit.daemons.service.service import Service
from deploykit.errors import BusError, DialectError, UsageError, WindowFull
from deploykit.settings.node import Settings

logger = logging.getLogger(__name__)

#: How soon a stop is noticed.
_SLICE: Final = 0.2


def run(
    load: Callable[[], Settings],
    *,
    destinations: Sequence[str],
    every: float | None,
    on_ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Send keepalives until TERM. HUP reads the settings again; wrong ones change nothing.

    Args:
        load: returns the settings.
        destinations: instead of those that the settings list.
        every: seconds between two rounds, instead of the settings' value.
        on_ready: called with what it keeps alive, once it is connected.

    Raises:
        SettingsError: the first settings are wrong.
        UsageError: no destinations, here or in the settings.
        LoginRefused: the broker refuses the login.
    """

    def make(settings: Settings, metrics: Metrics) -> KeepaliveSender:
        return KeepaliveSender(settings, destinations=destinations, every=every, metrics=metrics)

    lifecycle.serve_one("keepalive", load, make, on_ready=on_ready)


class KeepaliveSender(Service):
    """Sends keepalives.

    Args:
        settings: the bus, destinations and interval.
        bus: a started bus that it shares, without keepalives of its own; None: it makes one.
        destinations, every: instead of those in the settings.
        metrics: where it counts.

    Raises:
        UsageError: no destinations, here or in the settings.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        bus: Bus | None = None,
        destinations: Sequence[str] = (),
        every: float | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.destinations = tuple(destinations) or settings.broker.keepalive
        if not self.destinations:
            raise UsageError("no destinations", "name some, or set broker.keepalive")
        self.every = every or settings.broker.keepalive_every
        super().__init__(
            f"keepalive to {', '.join(self.destinations)}",
            attrs.evolve(settings.broker, keepalive=()),
            bus=bus,
            metrics=metrics,
        )
        self.threads.add("keepalive", self._run)

    def _start(self) -> None:
        self.link.start()
        self.threads.start()

    def _run(self) -> None:
        keep_alive(self.link.bus, self.destinations, every=self.every, stop=self.ending)


def once(settings: Settings, *, destinations: Sequence[str], every: float | None) -> dict[str, str]:
    """Send one keepalive to each destination; return the problem of each, "" where there is none.

    Raises:
        UsageError: no destinations, here or in the settings.
        LoginRefused: the broker refuses the login.
    """
    sender = KeepaliveSender(settings, destinations=destinations, every=every)
    limit, ttl = settings.broker.connect_timeout, 2 * sender.every
    with sender.link.bus as bus:
        bus.wait_connected(min(1.0, limit))  # a refused login is raised here
        problems = send_once(bus, sender.destinations, timeout=limit, ttl=ttl)
    return {name: problems.get(name, "") for name in sender.destinations}


def send_once(
    bus: Bus,
    destinations: tuple[str, ...],
    *,
    timeout: float = 10.0,
    ttl: float = 120.0,
    stop: threading.Event | None = None,
) -> dict[str, str]:
    """Send one keepalive to each destination; return the problem of each that did not work, by destination.

    Args:
        bus: a started bus.
        destinations: topics and queues.
        timeout: seconds until all must be confirmed.
        ttl: seconds after which the broker may forget the message, where it can.
        stop: once it is set, nothing is waited for any more.
    """
    stop = stop or threading.Event()
    problems: dict[str, str] = {}
    deadline = monotonic() + timeout
    for lifetime in (ttl, None):
        left = [name for name in destinations if lifetime is not None or name in problems]
        futures: dict[str, Future[None]] = {}
        for name in left:
            problems.pop(name, None)
            try:
                futures[name] = _publish(bus, name, timeout=timeout, ttl=lifetime, deadline=deadline, stop=stop)
            except BusError as error:
                problems[name] = str(error)
        without_ttl = False
        for name, future in futures.items():
            while not (future.done() or stop.is_set()):
                wait_for([future], timeout=_SLICE)
            problem = future.exception() if future.done() else None
            if problem is not None:
                problems[name] = str(problem)
                without_ttl |= isinstance(problem, DialectError)
        if not without_ttl:
            break
    return problems


def keep_alive(bus: Bus, destinations: tuple[str, ...], *, every: float, stop: threading.Event) -> None:
    """Send keepalives until `stop` is set; what fails is logged, and tried again the next time."""
    while not stop.is_set():
        for name, problem in send_once(bus, destinations, timeout=min(every, 30.0), ttl=2 * every, stop=stop).items():
            logger.warning("keepalive to %s: %s", name, problem)
        stop.wait(min(every, FOREVER))


def _publish(
    bus: Bus, destination: str, *, timeout: float, ttl: float | None, deadline: float, stop: threading.Event
) -> Future[None]:
    """Publish one keepalive as soon as there is room, until a monotonic time."""
    while True:
        try:
            return bus.publish_nowait(destination, KEEPALIVE, timeout=timeout, persistent=False, ttl=ttl)
        except WindowFull:
            if monotonic() >= deadline or stop.is_set():
                raise
            sleep(_SLICE)
