"""An event stream as an ASGI response: `text/event-stream`, ended by the browser, the console or the reader's delay."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from deploykit.web.live.broadcast import Broadcast, StreamLimits
from deploykit.web.live.events import EventFilter, EventRing
from deploykit.web.protocol import ABORT

#: Milliseconds until a browser comes back, and how many more at most: not all at once after a restart.
RETRY: Final = (1000, 3000)
_HEADERS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store, no-transform",
    "x-accel-buffering": "no",
}


class EventStreamResponse(Response):
    """The answer to a browser that wants events.

    Args:
        after: number of the last event that the browser has; None: only what comes now.

    Raises:
        TooManyStreams: there are as many as there may be. Nothing was sent.
    """

    def __init__(self, broadcast: Broadcast, wanted: EventFilter, after: int | None, *, head: bool = False) -> None:
        super().__init__(headers=_HEADERS)
        self._broadcast = broadcast
        self._scope = anyio.CancelScope()
        self._head = head
        self._abort: Callable[[], None] = self._scope.cancel
        self._reader = broadcast.open(wanted, after, cut=self._cut)
        self._first = broadcast.ring.newest if after is None else after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until somebody ends it. What `send` raises comes out as it is, for the middleware around it."""
        # Under a server of another kind its task is ended, and the server lets go of the connection when it can.
        self._abort = scope.get("state", {}).get(ABORT, self._abort)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self._stream_headers()})
            if not self._head:
                await self._until_its_end(receive, send)
            if not self._scope.cancel_called:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._broadcast.close_reader(self._reader)

    async def _until_its_end(self, receive: Receive, send: Send) -> None:
        failed: OSError | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch, receive)
            with self._scope:
                try:
                    await self._send_all(send)
                except OSError as error:  # the server's, or the login's, for a reader that is gone
                    failed = error
            group.cancel_scope.cancel()
        if failed is not None:
            raise failed

    def _stream_headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers without a length: nobody knows how long it gets."""
        return [(name, value) for name, value in self.raw_headers if name != b"content-length"]

    def _cut(self) -> None:
        self._abort()

    async def _send_all(self, send: Send) -> None:
        least, more = RETRY
        retry = random.randint(least, least + more)  # noqa: S311 - spreads load, is no secret
        await send(_part(f"retry: {retry}\nid: {self._first}\n\n".encode()))
        while blocks := await self._reader.next():
            await send(_part(blocks))

    async def _watch(self, receive: Receive) -> None:
        """End the stream when the browser is gone."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._scope.cancel()


def _part(body: bytes) -> dict[str, object]:
    return {"type": "http.response.body", "body": body, "more_body": True}


def broadcast_of(request: Request, ring: EventRing, limits: StreamLimits | None = None) -> Broadcast:
    """Return the broadcast of the running event loop; made on first use, kept in the application's state."""
    state = request.app.state
    found = getattr(state, "broadcast", None)
    if isinstance(found, Broadcast) and found.ring is ring and found.belongs_here():
        return found
    state.broadcast = made = Broadcast(ring, limits)
    return made


__all__ = ["EventStreamResponse", "broadcast_of"]
