"""What a bus does not show by itself: its connection (`deploykit doctor`), and a refused login (`deploykit.aio`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploykit.bus.client import Bus
    from deploykit.bus.stomp.connection import Connection
    from deploykit.errors import LoginRefused


def connection_of(bus: Bus) -> Connection | None:
    """Return the present connection of a bus; None while there is none."""
    connection = bus._supervisor.connection
    return connection if connection is not None and connection.up else None


def refused_login(bus: Bus) -> LoginRefused | None:
    """Return why every broker refused the login and none ever accepted it; None while that is not so."""
    return bus._supervisor.hopeless
