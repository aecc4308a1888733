"""The present connection of a bus, for programs that look at the broker itself, such as `deploykit doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploykit.bus.client import Bus
    from deploykit.bus.stomp.connection import Connection


def connection_of(bus: Bus) -> Connection | None:
    """Return the present connection of a bus; None while there is none."""
    connection = bus._supervisor.connection
    return connection if connection is not None and connection.up else None
