"""HTTP/1.1 of one connection: uvicorn's, with a deadline for each request, and an end of streams at shutdown.

Rules:

* A request must have arrived whole within some seconds of its first byte, and the first one after connecting.
* What still arrives of a request that was answered already has the same deadline.
* A peer that takes nothing for half a minute is dropped.
* A request beyond the most connections is answered with 503, far beyond them none is. Both are logged, once a minute: a
  sender that does not try again has lost what it sent.
* At shutdown an answer that is being made is finished; a stream is ended, and its application hears of a disconnect.
* A connection that was just made at shutdown has its first request answered: a forge does not send it again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from typing import Final

import h11
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from deploykit.daemons.service.throttle import LogThrottle

_log = logging.getLogger(__name__)

#: Seconds in which a request must arrive, its body included.
ARRIVAL: Final = 20.0
#: Milliseconds for which a peer may leave what was sent unacknowledged.
_UNREAD: Final = 30_000
#: Seconds that a stream may go on after the shutdown began.
_STREAM_END: Final = 0.3
#: Seconds that a connection may use after the shutdown began, if it has asked nothing yet.
_FIRST: Final = 0.5
#: Bytes of a head that are parsed at once.
_PIECE: Final = 4096
_MAPPED: Final = "::ffff:"
#: In the state of a request's scope: drops its connection at once. A peer that reads nothing cannot be ended otherwise.
ABORT: Final = "abort_connection"
#: Seconds after which a peer may try again that was one too many.
_RETRY_AFTER: Final = 30
_FULL: Final = json.dumps(
    {"type": "about:blank", "title": "Service Unavailable", "status": 503, "detail": "too many connections at a time"}
)


class DeadlineProtocol(H11Protocol):
    """A connection. uvicorn makes it.

    Attributes:
        arrival: seconds for a request to arrive.
        refused: counts what is too much; of all connections of a server.
    """

    arrival: float = ARRIVAL
    refused = LogThrottle()

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # uvicorn's own arguments, handed through
        self._deadline: asyncio.TimerHandle | None = None
        self._ending = False
        self._served: ASGIApp = self.app
        self.app = self._answer
        self.limit_concurrency = None  # uvicorn's answer to one too many has no Retry-After, and leaves no trace

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self.config.limit_concurrency
        if limit is None or len(self.connections) < limit:
            await self._served(scope, receive, send)
            return
        self._count_refused()
        headers = {"retry-after": str(_RETRY_AFTER), "connection": "close", "cache-control": "no-store"}
        await Response(_FULL, 503, headers, "application/problem+json")(scope, receive, send)

    def _count_refused(self) -> None:
        count = self.refused.add("", time.monotonic())
        if count:
            _log.warning(
                "too many connections at a time, at most %s are served: %d refused or dropped since the last such line",
                self.config.limit_concurrency,
                count,
            )

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Take a connection."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, ABORT: transport.abort}
        if self.client is not None and self.client[0].startswith(_MAPPED):  # an IPv4 peer of an IPv6 socket
            self.client = (self.client[0].removeprefix(_MAPPED), self.client[1])
        peer: socket.socket | None = transport.get_extra_info("socket")
        if peer is not None and peer.family in (socket.AF_INET, socket.AF_INET6):
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD)
            # asyncio sets this only where the listening socket names its protocol. Without it an answer's body waits
            # for the peer to acknowledge its head: 40 ms.
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        limit = self.config.limit_concurrency
        if limit is not None and len(self.connections) > limit + limit // 4:
            self._count_refused()
            transport.abort()  # up to there 503 says why; beyond it even that costs too much
            return
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request: a head in small pieces, so that its limit holds whatever came at once."""
        rest = memoryview(data)
        while rest and self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            piece, rest = rest[:_PIECE], rest[_PIECE:]
            super().data_received(bytes(piece))
        if rest and not self.transport.is_closing():
            super().data_received(bytes(rest))
        if self._ending and self._asked is not None:
            self._asked.keep_alive = False
        state = self.conn.their_state
        if state is h11.SEND_BODY or (state is h11.IDLE and self.conn.trailing_data[0]):
            self._expect()
        else:
            self._arrived()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._arrived()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Begin to end: at once where nothing more is asked, soon where a stream is open or nothing was asked yet."""
        self._ending = True
        if self._asked is None:
            self.loop.call_later(_FIRST, self._end_unused)
        else:
            super().shutdown()
        self.loop.call_later(_STREAM_END, self._end_stream)

    @property
    def _asked(self) -> RequestResponseCycle | None:
        """The last request, if there was one: uvicorn's own type leaves out that there may be none."""
        return self.cycle

    def _end_unused(self) -> None:
        if self._asked is None and not self.transport.is_closing():
            super().shutdown()

    def _end_stream(self) -> None:
        cycle = self._asked
        if cycle is None or not cycle.response_started or cycle.response_complete:
            return
        cycle.disconnected = True
        cycle.message_event.set()
        self.transport.close()

    def _expect(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.arrival, self._late)

    def _arrived(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        self.transport.abort()
