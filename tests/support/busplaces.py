"""Brokers on which more waits than a bus may hold in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import attrs

from deploykit.bus import Bus
from deploykit.bus.events import Event
from deploykit.settings import BusSettings
from tests.support.bus import text

UNKNOWN: Final = "apache-activemq-artemis/2.31.0"


#: It is asked for `activemq.prefetchSize`, of which the embedded broker knows nothing.
BREAKS_PREFETCH: Final = "ActiveMQ/5.17.2"


#: More than a subscription may hold in memory.
FLOOD: Final = 2000


#: Seconds for what has to come. What waits for itself waits so long, and tests of that expect less.
WAIT: Final = 60.0


@attrs.frozen(kw_only=True)
class Place:
    """A broker, and names that nothing else uses there."""

    settings: BusSettings
    name: str
    durable: bool
    real: bool = False

    @property
    def flooded(self) -> str:
        return f"/queue/flooded-{self.name}"

    @property
    def out(self) -> str:
        return f"/topic/out-{self.name}"

    @property
    def other(self) -> str:
        return f"/queue/other-{self.name}"

    @contextmanager
    def bus(self, on_event: Callable[[Event], object] | None = None, **changes: object) -> Iterator[Bus]:
        with Bus(attrs.evolve(self.settings, **changes), on_event=on_event) as bus:  # type: ignore[arg-type]
            assert bus.wait_connected(WAIT)
            yield bus

    def flood(self, size: int = 0, *, persistent: bool = False) -> None:
        """Send numbers, padded to so many bytes."""
        with self.bus() as bus:
            many = [
                (self.flooded, text(str(n).ljust(size), **{"deploykit-id": f"{self.name} {n}"})) for n in range(FLOOD)
            ]
            bus.publish_many(many, persistent=persistent, timeout=60)


def full(bus: Bus, place: Place) -> bool:
    """Whether as much is in memory as may be: by prefetch, or because nothing more is read."""
    subscription = next(one for one in list(bus._services.subscriptions) if one.destination == place.flooded)
    feeds = bus._supervisor.subscriptions.dedicated
    paused = any(feed.connection is not None and feed.connection.paused for feed in feeds)  # type: ignore[attr-defined]
    return paused if feeds else subscription.queued >= subscription.spec.prefetch // 2
