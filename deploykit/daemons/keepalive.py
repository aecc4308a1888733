"""`deploykit keepalive`: an empty line to listed destinations, once or until TERM."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import ExitStack
from functools import partial
from time import monotonic, sleep
from typing import Final

from deploykit.bus import Bus
from deploykit.bus.checks import FOREVER
from deploykit.bus.keepalive import KEEPALIVE
from deploykit.daemons.keepaliveplan import KeepaliveLogin, KeepaliveTarget, logins_of
from deploykit.daemons.service import lifecycle
from deploykit.daemons.service.link import BusLink
from deploykit.daemons.service.metrics import Metrics
from deploykit.daemons.service.service import STOP_SECONDS, Service
from deploykit.errors import (
    BusClosed,
    BusError,
    DialectError,
    LoginRefused,
    ServiceFailed,
    UsageError,
    WindowFull,
)
from deploykit.messages import one_line
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
        LoginRefused: the broker refuses every login.
    """

    def make(settings: Settings, metrics: Metrics) -> KeepaliveSender:
        return KeepaliveSender(settings, destinations=destinations, every=every, metrics=metrics)

    lifecycle.serve_one("keepalive", load, make, on_ready=on_ready)


class KeepaliveSender(Service):
    """Sends keepalives, over a connection for each login. What one login is refused does not stop the others.

    Args:
        settings: the bus, destinations and interval.
        bus: a started bus that it shares, without keepalives of its own, with the login of `[broker]`; None: it makes
            one.
        destinations, every: instead of those in the settings.
        metrics: where it counts.

    Raises:
        UsageError: no destinations, here or in the settings.
        SettingsError: a passcode file cannot be used.
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
        logins = logins_of(settings, destinations)
        if not logins:
            raise UsageError(
                "no destinations", "name some, or set broker.keepalive or [keepalive.destinations.NAME] in the settings"
            )
        self.every = every or settings.broker.keepalive_every
        name = f"keepalive to {', '.join(map(str, logins))}"
        super().__init__(name, logins[0].broker, bus=bus, metrics=metrics)
        self._senders: list[_LoginSender] = []
        try:
            for at, login in enumerate(logins):
                shared = not login.own or (at == 0 and bus is None)
                self._senders.append(_LoginSender(login, self.link if shared else BusLink(login.broker), self.every))
        except BaseException:
            self.discard()
            raise
        for at, sender in enumerate(self._senders, 1):
            self.threads.add(f"keepalive-{at}", partial(sender.run, self.ending))

    def _start(self) -> None:
        with ExitStack() as undo:
            for link in self._links:
                undo.callback(link.stop, 0)
                link.start()
            self.metrics.expect("keepalive", destinations=self._alive())
            self.metrics.watch_keepalive(self._alive)
            self.threads.start()
            undo.pop_all()

    def _end(self) -> None:
        self.ending.set()
        end = monotonic() + STOP_SECONDS
        for link in self._links:
            if link is not self.link:
                link.stop(max(0.0, end - monotonic()))
        super()._end()

    def discard(self) -> None:
        """Free the descriptors of all its buses."""
        for link in self._links:
            link.stop(0)

    @property
    def _links(self) -> tuple[BusLink, ...]:
        return tuple(dict.fromkeys((self.link, *(sender.link for sender in self._senders))))

    def once(self, timeout: float) -> dict[KeepaliveTarget, str]:
        """Connect, send one keepalive to each destination and end; return the problem of each, "" where there is none.

        Args:
            timeout: seconds for a connection, and again for what goes over it.

        Raises:
            LoginRefused: the broker refuses the login, and there is no other one.
        """
        with ExitStack() as stack:
            for link in self._links:
                stack.callback(link.stop, STOP_SECONDS)
                link.start()
            if len(self._senders) == 1:
                self.wait_connected(min(1.0, timeout))  # a refused login is raised here
            with ThreadPoolExecutor(len(self._senders)) as pool:
                sent = pool.map(lambda sender: sender.once(timeout=timeout, stop=self.ending), self._senders)
                return {target: problem for each in sent for target, problem in each.items()}

    def _alive(self) -> Mapping[str, bool]:
        return {name: alive for sender in self._senders for name, alive in sender.alive.items()}

    # -- what it says of itself ----------------------------------------------------------------------------------------

    def wait_connected(self, timeout: float) -> bool:
        """Wait until a broker accepts a login at least; return whether one does.

        Raises:
            LoginRefused: every login is refused.
        """
        if len(self._senders) == 1:
            return self._senders[0].link.bus.wait_connected(timeout)
        end = monotonic() + timeout
        while True:
            refused: list[LoginRefused] = []
            for sender in self._senders:
                try:
                    if sender.link.bus.wait_connected(0):
                        return True
                except LoginRefused as error:
                    refused.append(error)
            if len(refused) == len(self._senders):
                raise refused[0]
            if (left := end - monotonic()) <= 0:
                return False
            sleep(min(left, _SLICE))

    @property
    def connected(self) -> bool:
        """Whether one of its connections stands."""
        return any(sender.link.connected for sender in self._senders)

    @property
    def status(self) -> str:
        """Whether it is connected, and where several connections are needed, how many stand."""
        up, all_of_them = sum(sender.link.connected for sender in self._senders), len(self._senders)
        return super().status if all_of_them == 1 else f"{up} of {all_of_them} connections"

    @property
    def problems(self) -> tuple[str, ...]:
        """Which destinations are not kept alive, and why."""
        return tuple(line for lines in self._lines() for line in lines)

    @property
    def blocking(self) -> tuple[str, ...]:
        """The problems, where there is one with every connection."""
        return self.problems if all(self._lines()) else ()

    def _lines(self) -> list[tuple[str, ...]]:
        alone = len(self._senders) == 1
        return [tuple(sender.problems(alone=alone)) for sender in self._senders]

    def check(self) -> None:
        """Make sure that it can still do its work; see the base class."""
        super().check()
        for sender in self._senders:
            if failure := sender.link.failure:
                raise ServiceFailed(f"{sender.login}: {failure}")

    def stuck(self, now: float) -> str:
        """Return what does not go on though it should; empty while all does."""
        return "; ".join(filter(None, (link.stuck(now) for link in self._links)))


class _LoginSender:
    """Sends what goes over one connection.

    Args:
        login: where to.
        link: its bus.
        every: seconds between two rounds.
    """

    def __init__(self, login: KeepaliveLogin, link: BusLink, every: float) -> None:
        self.login = login
        self.link = link
        self._every = every
        self._failed: Mapping[str, str] = {each.destination: "" for each in login.targets}
        self._sent = False

    def run(self, stop: threading.Event) -> None:
        """Send keepalives until `stop` is set; what fails is logged, and tried again the next time."""
        while not stop.is_set():
            for target, problem in self.once(timeout=min(self._every, 30.0), stop=stop).items():
                if problem and not stop.is_set():
                    logger.warning("keepalive to %s: %s", target, problem)
            stop.wait(min(self._every, FOREVER))

    def once(self, *, timeout: float, stop: threading.Event) -> dict[KeepaliveTarget, str]:
        """Send one keepalive to each destination; return the problem of each, empty where there is none."""
        end = monotonic() + timeout
        refused = _refused(self.link.bus, timeout, stop)
        names = tuple(dict.fromkeys(each.destination for each in self.login.targets))
        if refused:
            failed = dict.fromkeys(names, refused)
        else:
            left = max(1.0, end - monotonic())
            failed = send_once(self.link.bus, names, timeout=left, ttl=2 * self._every, stop=stop)
        if not stop.is_set():
            self._failed, self._sent = failed, True
        return {target: failed.get(target.destination, "") for target in self.login.targets}

    @property
    def alive(self) -> Mapping[str, bool]:
        """Of each destination with a name whether the last keepalive arrived."""
        failed, sent = self._failed, self._sent
        return {each.name: sent and not failed.get(each.destination) for each in self.login.targets if each.name}

    def problems(self, *, alone: bool) -> Iterator[str]:
        """Yield what is wrong; `alone`: there is no other connection, and its status says that it is not there."""
        if self.link.connected:
            failed = self._failed
            for target in self.login.targets:
                if problem := failed.get(target.destination):
                    yield one_line(f"{target}: {problem}")
        elif not alone and (lost := self.link.bus.problem) is not None:
            yield one_line(f"{self.login}: {lost}")


def once(settings: Settings, *, destinations: Sequence[str], every: float | None) -> dict[KeepaliveTarget, str]:
    """Send one keepalive to each destination; return the problem of each, "" where there is none.

    Raises:
        UsageError: no destinations, here or in the settings.
        SettingsError: a passcode file cannot be used.
        LoginRefused: the broker refuses the login, and there is no other one.
    """
    sender = KeepaliveSender(settings, destinations=destinations, every=every)
    return sender.once(settings.broker.connect_timeout)


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


def _refused(bus: Bus, seconds: float, stop: threading.Event) -> str:
    """Return why the bus's login is refused; empty where it is not, or nobody answers in time."""
    end = monotonic() + seconds
    while not stop.is_set() and monotonic() < end:
        try:
            if bus.wait_connected(_SLICE):
                break
        except LoginRefused as error:
            return str(error)
        except BusClosed:
            break
    return ""


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
