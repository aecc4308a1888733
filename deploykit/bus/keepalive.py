"""The original's keepalive: an empty line sent to listed topics and queues, so that nothing on the way falls asleep.

A bus with `settings.keepalive` does it by itself while it runs, so every daemon can; `deploykit keepalive` does it from
cron or as a daemon of its own. The message expires soon where the broker knows expiry, so that a queue that nobody
reads does not fill. Subscribers of this library never see it; the original's ignore its body.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future

from deploykit.bus.client import KEEPALIVE, Bus
from deploykit.errors import BusError, DialectError


def send_once(bus: Bus, destinations: tuple[str, ...], *, timeout: float = 10.0, ttl: float = 120.0) -> dict[str, str]:
    """Send one keepalive to each destination; return the problem of each that did not work, by destination.

    Args:
        bus: a started bus.
        destinations: topics and queues.
        timeout: seconds until all must be confirmed.
        ttl: seconds after which the broker may forget the message, where it can.
    """
    problems: dict[str, str] = {}
    for lifetime in (ttl, None):
        left = [name for name in destinations if lifetime is not None or name in problems]
        futures: dict[str, Future[None]] = {}
        for name in left:
            problems.pop(name, None)
            try:
                futures[name] = bus.publish_soon(name, KEEPALIVE, timeout=timeout, persistent=False, ttl=lifetime)
            except BusError as error:
                problems[name] = str(error)
        without_ttl = False
        for name, future in futures.items():
            problem = future.exception()
            if problem is not None:
                problems[name] = str(problem)
                without_ttl |= isinstance(problem, DialectError)
        if not without_ttl:
            break
    return problems


def run(bus: Bus, destinations: tuple[str, ...], *, every: float, stop: threading.Event) -> None:
    """Send keepalives until `stop` is set; what fails is tried again the next time."""
    while not stop.is_set():
        send_once(bus, destinations, timeout=min(every, 30.0), ttl=2 * every)
        stop.wait(every)
