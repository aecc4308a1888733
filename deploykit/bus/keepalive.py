"""The original's keepalive: an empty line sent to listed topics and queues, so that nothing on the way falls asleep.

A bus with `settings.keepalive` does it by itself while it runs, so every daemon can; `deploykit keepalive` does it from
cron or as a daemon of its own. The message expires soon where the broker knows expiry, so that a queue that nobody
reads does not fill. Subscribers of this library never see it; the original's ignore its body.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final, Protocol

from deploykit.bus.checks import FOREVER
from deploykit.bus.delivery import KEEPALIVE_HEADER
from deploykit.errors import BusClosed, BusError, DialectError, PublishError, WindowFull
from deploykit.wire.frame import Frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploykit.bus.client import Bus

logger = logging.getLogger(__name__)

#: The original's body, and a header by which this library knows to ignore it.
KEEPALIVE: Final = Frame({KEEPALIVE_HEADER: "true", "content-type": "text/plain"}, b"\n")
#: How soon a stop is noticed.
_SLICE: Final = 0.2


class Take(Protocol):
    """`Bus`'s way of putting a message into the line."""

    def __call__(
        self,
        destination: str,
        frame: Frame,
        *,
        timeout: float,
        persistent: bool,
        ttl: float | None,
        done: Callable[[BusError | None], None],
    ) -> None: ...


class Keeper:
    """What `settings.keepalive` asks for. It works on the supervisor's thread, so nothing here may wait.

    Args:
        bus: a started bus.
        take: its way of taking messages in.
    """

    def __init__(self, bus: Bus, take: Take) -> None:
        self._bus = bus
        self._take = take

    def begin(self) -> None:
        """Send the first round after one interval, and go on."""
        self._bus.later(self._bus.settings.keepalive_every, self._round)

    def _round(self) -> None:
        connection, settings = self._bus.connection, self._bus.settings
        with contextlib.suppress(BusClosed):
            for destination in settings.keepalive if connection is not None else ():
                ttl = 2 * settings.keepalive_every if connection is not None and connection.dialect.ttl else None
                with contextlib.suppress(PublishError):  # no room: there is traffic enough
                    self._take(
                        destination,
                        KEEPALIVE,
                        timeout=min(settings.keepalive_every, settings.publish_timeout),
                        persistent=False,
                        ttl=ttl,
                        done=partial(_told, destination),
                    )
        self.begin()


def _told(destination: str, problem: BusError | None) -> None:
    if problem is not None:
        logger.info("keepalive to %s: %s", destination, problem)


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
    problems: dict[str, str] = {}
    deadline = monotonic() + timeout
    for lifetime in (ttl, None):
        left = [name for name in destinations if lifetime is not None or name in problems]
        futures: dict[str, Future[None]] = {}
        for name in left:
            problems.pop(name, None)
            try:
                while True:
                    try:
                        futures[name] = bus.publish_nowait(
                            name, KEEPALIVE, timeout=timeout, persistent=False, ttl=lifetime
                        )
                        break
                    except WindowFull:
                        if monotonic() >= deadline or (stop is not None and stop.is_set()):
                            raise
                        sleep(_SLICE)
            except BusError as error:
                problems[name] = str(error)
        without_ttl = False
        for name, future in futures.items():
            while not (future.done() or (stop is not None and stop.is_set())):
                wait_for([future], timeout=_SLICE)
            problem = future.exception() if future.done() else None
            if problem is not None:
                problems[name] = str(problem)
                without_ttl |= isinstance(problem, DialectError)
        if not without_ttl:
            break
    return problems


def run(bus: Bus, destinations: tuple[str, ...], *, every: float, stop: threading.Event) -> None:
    """Send keepalives until `stop` is set; what fails is logged, and tried again the next time."""
    while not stop.is_set():
        for name, problem in send_once(bus, destinations, timeout=min(every, 30.0), ttl=2 * every, stop=stop).items():
            logger.warning("keepalive to %s: %s", name, problem)
        stop.wait(min(every, FOREVER))
