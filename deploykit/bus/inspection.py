"""What a bus does not show by itself, for other rooms.

The present connection (`deploykit doctor`), a refused login (`deploykit.aio`), and whether its threads live and go on
(`deploykit.daemons.service`).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from deploykit.bus.events import BusState
from deploykit.system.threads import has_ended

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


def thread_that_ended(bus: Bus) -> str:
    """Return the name of a thread of a started bus that has ended before it was stopped; empty while all live."""
    supervisor, ended = bus._supervisor, ""
    closed = supervisor.state is BusState.CLOSED  # it ends, though its thread may live for a moment
    if supervisor.thread.ident is not None and (closed or has_ended(supervisor.thread)):
        ended = supervisor.thread.name
    for subscription in list(bus._services.subscriptions):
        if (name := subscription.ended_worker) and not subscription.stopping:
            ended = ended or name
    return "" if bus._stopped else ended  # asked last: who stops a bus says so before its threads end


class Pulse:
    """Asks the bus's own thread for a sign of life, one question at a time. Use it from one thread.

    That thread answers within a second whatever the network does, also while it connects.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._asked: float | None = None
        self._answered = threading.Event()

    def silence(self, now: float) -> float:
        """Return for how many seconds the present question waits for its answer; 0 where there is one, and ask again.

        Args:
            now: monotonic.
        """
        if self._asked is not None and not self._answered.is_set():
            return now - self._asked
        self._asked = now
        self._answered.clear()
        self._bus._supervisor.call_later(0, self._answered.set)
        return 0.0
