"""What all services have in common. A service is a daemon as a class, for `serve` or for a program that embeds it.

    with Agent(settings) as agent:
        agent.wait_connected(30)

Rules:

* It is a context manager. Leaving it waits for what must not be cut off, and hands the rest back.
* With `bus=` it uses that started bus; see `link`.
* It owns threads and no signal handlers.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from deploykit.bus import Bus
from deploykit.bus.events import Event
from deploykit.daemons.service.link import BusLink
from deploykit.daemons.service.metrics import Metrics
from deploykit.daemons.service.threads import ServiceThreads
from deploykit.errors import DeploykitError, ServiceFailed
from deploykit.messages import one_line
from deploykit.settings.bus import BusSettings

#: Seconds a bus has to hand back what is not finished.
STOP_SECONDS: Final = 10.0


class Service(ABC):
    """A daemon. A subclass starts its work in `_start`, after `self.link.start()`, and ends it in `_end`.

    Args:
        name: what people call it: `agent on web1`.
        broker: settings of a bus of its own.
        bus: a started bus that it shares with others; None: it makes its own.
        client_id: of a bus of its own, where the settings have none.
        on_event: called with each event of the bus.
        metrics: where it counts; one for the whole process.
    """

    def __init__(
        self,
        name: str,
        broker: BusSettings,
        *,
        bus: Bus | None = None,
        client_id: str = "",
        on_event: Callable[[Event], object] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.name = name
        self.metrics = metrics or Metrics()
        self._watches = ExitStack()
        self.link = BusLink(broker, bus=bus, client_id=client_id, on_event=on_event)
        self.threads = ServiceThreads()
        #: Set once the service is to end; its threads look at it.
        self.ending = threading.Event()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._watches.close()
            self.link.stop(0)
            raise
        self._watches.callback(self.metrics.watch_bus(self.link.bus))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with self._watches:
            self._end()

    def discard(self) -> None:
        """Free what was made and is not, or no more, started: the descriptors of a bus. It may have ended already."""
        self.link.stop(0)

    def watch_outbox(self, path: Path | str) -> None:
        """Have the metrics show how much waits in a spool, until the service ends."""
        self._watches.callback(self.metrics.watch_outbox(str(path)))

    @abstractmethod
    def _start(self) -> None:
        """Start to work; where that fails, leave nothing behind."""

    def _end(self) -> None:
        """End the work: let the threads end, hand back what the bus delivered and nobody finished."""
        self.ending.set()
        end = time.monotonic() + STOP_SECONDS
        self.link.stop(STOP_SECONDS)
        self.threads.join(end)

    def wait_connected(self, timeout: float) -> bool:
        """Wait until the bus is connected and subscribed; return whether it is.

        Raises:
            LoginRefused: no broker accepts the credentials.
        """
        return self.link.bus.wait_connected(timeout)

    @property
    def connected(self) -> bool:
        """Whether it has the connection it needs, or one of them."""
        return self.link.connected

    @property
    def working(self) -> bool:
        """Whether it does its work now. Called after `wait_connected`, whose answer it is where nothing else counts."""
        return self.wait_connected(0)

    @property
    def status(self) -> str:
        """What it is doing, in a few words for people; while it is not connected, why."""
        if self.link.connected:
            return "connected"
        problem = self.link.bus.problem
        return one_line("waiting for a broker" if problem is None else f"waiting for a broker: {problem.problem}")

    @property
    def problems(self) -> tuple[str, ...]:
        """What a person should know and may have to correct."""
        return ()

    @property
    def blocking(self) -> tuple[str, ...]:
        """Those of the problems that keep it from its work: all, unless a subclass knows better."""
        return self.problems

    @property
    def busy(self) -> str:
        """What its end waits for, however long that takes; empty: it ends within seconds."""
        return ""

    @property
    def finished(self) -> bool:
        """Whether it has done all it was made for, and is to be ended."""
        return False

    def check(self) -> None:
        """Make sure that it can still do its work.

        Raises:
            DeploykitError: one of its threads, or its bus, has failed for good.
        """
        if self.threads.error is not None:
            thread, error = self.threads.error
            if isinstance(error, DeploykitError):
                raise error
            raise ServiceFailed(f"the thread {thread} has failed: {type(error).__name__}: {error}") from error
        if failure := self.link.failure:
            raise ServiceFailed(failure)

    def stuck(self, now: float) -> str:
        """Return what does not go on though it should; empty while all does.

        Args:
            now: monotonic.
        """
        return self.link.stuck(now)
