"""What the bus's tests share: waiting for conditions, collecting deliveries, settings that make faults show fast."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import attrs

from deploykit.bus import Bus, Delivery, Verdict
from deploykit.bus.events import Counters, Event
from deploykit.settings import BusSettings
from deploykit.wire.frame import Frame
from tests.support.wait import wait_until

_E = TypeVar("_E", bound=Event)

#: The heart-beat of a test that is about something else: with a short one, a machine that stops for two seconds is a
#: loss, and with it a connection and perhaps a delivery more.
UNHURRIED: Final = 60.0

#: Pauses short enough for a test. What ends because something does not come has time; a test of that says how little.
FAST = BusSettings(
    heartbeat=UNHURRIED, backoff_initial=0.05, backoff_max=0.2, connect_timeout=20.0, publish_timeout=60.0
)


def fast(address: str, **changes: object) -> BusSettings:
    """FAST settings for an address."""
    return attrs.evolve(FAST, address=address, **changes)  # type: ignore[arg-type]


def in_time(limit: float, measure: Callable[[], float], tries: int = 5) -> None:
    """Assert that something takes less than `limit` seconds, as `measure` found.

    A machine that is busy with other work delays what is quick in itself, so it is tried again, and one quick try is
    enough; what is slow by design is slow each time.
    """
    taken = []
    for _ in range(tries):
        taken.append(measure())
        if taken[-1] < limit:
            return
    raise AssertionError(f"took {', '.join(f'{seconds:.2f}' for seconds in taken)} s, wanted less than {limit:g}")


def quiet(counters: Counters, seconds: float, tries: int = 5) -> None:
    """Assert that a connection is kept for so long.

    A machine that stops for longer than heart-beats allow loses one, and one of several such times without a loss is
    enough; what loses connections by design loses one each time.
    """

    def lost() -> float:
        before = counters.losses
        time.sleep(seconds)
        return counters.losses - before

    in_time(1, lost, tries)


def text(body: str, **headers: str) -> Frame:
    """A frame with a text body."""
    return Frame(headers, body.encode())


class Collector:
    """A handler that remembers, and answers with what `says` tells it to."""

    def __init__(self, says: Callable[[Delivery], Verdict | None] | None = None) -> None:
        self.deliveries: list[Delivery] = []
        self._says = says
        self._lock = threading.Lock()

    def __call__(self, delivery: Delivery) -> Verdict | None:
        with self._lock:
            self.deliveries.append(delivery)
        return self._says(delivery) if self._says is not None else None

    def __len__(self) -> int:
        return len(self.deliveries)

    @property
    def bodies(self) -> list[str]:
        return [delivery.body.decode() for delivery in self.deliveries]

    def wait(self, count: int, timeout: float = 30.0) -> list[Delivery]:
        try:
            wait_until(lambda: len(self) >= count, f"{count} deliveries", timeout)
        except AssertionError as error:
            error.add_note(f"there are {len(self)}")
            raise
        return self.deliveries


class Events:
    """An `on_event` that remembers."""

    def __init__(self) -> None:
        self.seen: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.seen.append(event)

    def of(self, kind: type[_E]) -> list[_E]:
        return [event for event in self.seen if isinstance(event, kind)]

    def wait(self, kind: type[_E], count: int = 1, timeout: float = 30.0) -> list[_E]:
        wait_until(lambda: len(self.of(kind)) >= count, f"{count} {kind.__name__}", timeout)
        return self.of(kind)


def bus_threads() -> list[str]:
    """Names of the bus's threads that are alive."""
    return sorted(t.name for t in threading.enumerate() if t.name.startswith("deploykit-bus"))


@contextmanager
def running(settings: BusSettings, **keywords: object) -> Iterator[Bus]:
    """A connected bus; all its threads have ended after."""
    with Bus(settings, **keywords) as bus:  # type: ignore[arg-type]
        assert bus.wait_connected(30)
        yield bus
    workers = (thread for subscription in bus._services.subscriptions for thread in subscription._threads)
    mine = [bus._supervisor.thread, bus._events._thread, *workers]
    assert [thread.name for thread in mine if thread is not None and thread.is_alive()] == []
