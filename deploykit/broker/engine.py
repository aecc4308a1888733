"""The running embedded broker: connections, core and store in one asyncio loop.

Rules kept here:

* One step: frames change the core, the journal goes to the disk, then output goes out. A receipt is never sent before
  what it confirms is on the disk, and one fsync serves every frame of the step.
* A store that fails ends the broker: nothing of that step is confirmed.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping

from deploykit.broker.connection import ClientConnection
from deploykit.broker.core import BrokerCore
from deploykit.broker.fault_state import FaultState
from deploykit.broker.frames import FrameLimits
from deploykit.broker.routing import Router
from deploykit.broker.state import BrokerLimits
from deploykit.broker.store import BrokerStore
from deploykit.errors import BrokerError

_log = logging.getLogger(__name__)

_SWEEP = 0.25  # seconds between two looks for expired messages
#: Turns of the loop from a connection that asyncio has accepted to `accept` and, being refused, to its end.
_ACCEPTING = 8
_CLOSE = 1.0  # seconds given to peers to take their last output


class Engine:
    """One run of a broker, from opening its port to closing it. Make and use it inside the loop."""

    def __init__(
        self,
        *,
        users: Mapping[str, str] | None,
        limits: BrokerLimits,
        frame_limits: FrameLimits,
        faults: FaultState,
        store: BrokerStore | None,
        epoch: str,
        server: str,
        record: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.limits = limits
        self.faults = faults
        self._clock = clock
        self.store = store
        self.connections: dict[ClientConnection, None] = {}
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.router = Router(
            limits=limits,
            faults=faults,
            keep=store is not None,
            epoch=epoch if store is None else store.epoch,
            first_seq=1 if store is None else store.first_seq,
            record=record,
        )
        if store is not None:
            self.router.restore(store.bindings(), store.entries())
        self.core = BrokerCore(router=self.router, users=users, limits=limits, faults=faults, server=server)
        self._frame_limits = frame_limits
        self._failed = False
        self._parked: deque[ClientConnection] = deque()
        self._loop = asyncio.get_running_loop()
        self._scheduled: asyncio.Handle | None = None
        self._server: asyncio.Server | None = None
        self._sweep_timer: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """Return the time in seconds since the epoch."""
        return self._clock()

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Open the port; return its number.

        Raises:
            OSError: the port or the address cannot be had.
        """
        self._server = await self._loop.create_server(
            lambda: ClientConnection(self, self._frame_limits), host, port, ssl=tls, backlog=256
        )
        self._sweep()
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    # -- connections -------------------------------------------------------------------------------------------

    def accept(self, connection: ClientConnection) -> bool:
        """Register a new connection; return False to turn it away."""
        self.connections[connection] = None
        if self.done.done():
            return False
        return not self.faults.refuse_connections and len(self.connections) <= self.limits.max_connections

    def gone(self, connection: ClientConnection) -> None:
        """Forget a connection that has ended; what it had not acknowledged goes back."""
        self.connections.pop(connection, None)
        self.core.lost(connection.session, self.now())
        self.schedule()

    def output_drained(self, connection: ClientConnection) -> None:
        """Give out what waits for a client that takes output again."""
        self.router.output_drained(connection.session, self.now())
        self.schedule()

    def park(self, connection: ClientConnection) -> None:
        """Call `retry` on a connection when there may be room for the frame it holds."""
        if connection not in self._parked:
            self._parked.append(connection)

    # -- a step ------------------------------------------------------------------------------------------------

    def schedule(self) -> None:
        """Run a step soon, if none is scheduled."""
        if self._scheduled is None:
            self._scheduled = self._loop.call_soon(self._step)

    def _step(self) -> None:
        self._scheduled = None
        if self.faults.frozen or self.done.done():
            return
        for _ in range(len(self._parked)):
            self._parked.popleft().retry()
        journal = self.router.take_journal()
        if journal and self.store is not None:
            try:
                self.store.write(journal)
            except BrokerError as error:
                self.fail(error)
                return
        limited = []
        for connection in list(self.connections):
            session = connection.session
            if session.unflushed >= session.high_water:
                limited.append(connection)
            if session.output or session.closing:
                connection.flush()
        for connection in limited:
            self.output_drained(connection)

    def _sweep(self) -> None:
        self.router.expire(self.now())
        self.schedule()
        self._sweep_timer = self._loop.call_later(_SWEEP, self._sweep)

    # -- ending ------------------------------------------------------------------------------------------------

    def fail(self, error: BrokerError) -> None:
        """End the run with an error."""
        _log.error("%s", error)
        self._failed = True
        if not self.done.done():
            self.done.set_exception(error)

    def finish(self) -> None:
        """End the run without an error."""
        if not self.done.done():
            self.done.set_result(None)

    async def close(self, *, flush: bool) -> None:
        """Close the port and every connection; with `flush`, pending output is written first."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        try:
            if self._server is not None:
                await self._stop_accepting(self._server)
            if flush and not self._failed and not self.faults.frozen:
                await self._flush_all()
        finally:
            await self._cut_all(reset=not flush or self._failed)

    async def _stop_accepting(self, server: asyncio.Server) -> None:
        """Close the port, after refusing the connections that asyncio has accepted and not handed over yet.

        asyncio would leave their sockets open: a closed server takes no more connections, not even to end them.
        """
        try:
            for listening in server.sockets:
                self._loop.remove_reader(listening.fileno())
            for _ in range(_ACCEPTING):
                await asyncio.sleep(0)
        finally:
            server.close()

    async def _flush_all(self) -> None:
        journal = self.router.take_journal()
        if journal and self.store is not None:
            self.store.write(journal)
        for connection in list(self.connections):
            connection.flush()
            connection.close()
        deadline = self._loop.time() + _CLOSE
        while self.connections and self._loop.time() < deadline:
            await asyncio.sleep(0.005)

    async def _cut_all(self, *, reset: bool) -> None:
        for connection in list(self.connections):
            connection.cut(reset=reset)
        while self.connections:
            await asyncio.sleep(0)
        if self._scheduled is not None:
            self._scheduled.cancel()
        if self.store is not None:
            self.store.close()
