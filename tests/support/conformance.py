"""Where one run of the suite of every broker takes place.

What a broker cannot do is taken from the dialect table, never from a list of names here.
"""

from __future__ import annotations

import attrs

from deploykit.bus import Bus
from deploykit.bus.stomp.dialect import ACTIVEMQ, EMBEDDED, RABBITMQ, Dialect
from deploykit.settings import BusSettings

VERSIONS = ("1.0", "1.1", "1.2")


DIALECT_OF: dict[str, Dialect] = {"rabbitmq": RABBITMQ, "activemq": ACTIVEMQ, "embedded": EMBEDDED}


@attrs.frozen
class Place:
    """Where one run of the suite takes place."""

    kind: str
    dialect: Dialect
    settings: BusSettings
    version: str

    def bus(self, **changes: object) -> BusSettings:
        return attrs.evolve(self.settings, **changes)  # type: ignore[arg-type]


def acked(bus: Bus, count: int) -> bool:
    """Whether a bus has acknowledged so many messages."""
    return bus.counters.acked >= count
