"""An ASGI application behind real HTTP on loopback, in this process; and the console for one viewer, without login."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from deploykit.names import parse_node_name
from deploykit.settings.node import Settings
from deploykit.settings.service import parse_listen_address
from deploykit.web.actions.ports import ConsoleActions
from deploykit.web.api.repeats import AnswerBook
from deploykit.web.api.routes import routes
from deploykit.web.app import make_console
from deploykit.web.context import ConsoleContext
from deploykit.web.listener import SharedListener
from deploykit.web.live.broadcast import StreamLimits
from deploykit.web.live.events import EventRing
from deploykit.web.projection.queries import Queries
from deploykit.web.server import WebServer
from deploykit.web.viewer import EVERYBODY, Viewer


class SeenAs:
    """Middleware of tests: everybody is one viewer. `viewer` may be changed while the console runs."""

    def __init__(self, app: ASGIApp, viewer: Viewer) -> None:
        self._app = app
        self.viewer = viewer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["viewer"] = self.viewer
        await self._app(scope, receive, send)


def api_alone(
    queries: Queries,
    ring: EventRing | None = None,
    viewer: Viewer = EVERYBODY,
    limits: StreamLimits | None = None,
    *,
    actions: ConsoleActions | None = None,
    answers: AnswerBook | None = None,
) -> Starlette:
    """The console with nothing but its API."""
    settings = Settings(node=parse_node_name("console"))
    context = ConsoleContext(
        settings=settings, queries=queries, events=ring or EventRing(1), actions=actions, answers=answers
    )
    return make_console(context, routes=routes(limits), middleware=[Middleware(SeenAs, viewer=viewer)])


@contextmanager
def serving(app: ASGIApp, *, on_ending: Callable[[], None] = lambda: None) -> Iterator[WebServer]:
    """Serve an application as the console does, on a free port of loopback."""
    listener = SharedListener(parse_listen_address("127.0.0.1:0"), setting="[web] listen")
    with WebServer(app, listener, on_ending=on_ending) as server:
        yield server


def address_of(server: WebServer) -> tuple[str, int]:
    """Host and port of a server."""
    found = urlsplit(server.url)
    assert found.hostname is not None
    assert found.port is not None
    return found.hostname, found.port


class StreamClient:
    """A browser with an event stream, as bytes over a socket; reads when it is asked to."""

    def __init__(self, address: tuple[str, int], query: str = "", **headers: str) -> None:
        self.socket = socket.create_connection(address)
        self.socket.settimeout(30)
        lines = [f"GET /api/v1/events{query} HTTP/1.1", "Host: localhost", "Accept: text/event-stream"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.received = b""

    def read_until(self, text: bytes) -> bytes:
        """Return all that came so far, once `text` did."""
        while text not in self.received:
            more = self.socket.recv(1 << 16)
            assert more, f"the stream ended without {text!r}; its end was {self.received[-300:]!r}"
            self.received += more
        return self.received

    def read_to_end(self) -> bytes:
        """Return all that came, once the server has ended the answer or the connection."""
        while not self.received.endswith(b"0\r\n\r\n") and (more := self.socket.recv(1 << 16)):
            self.received += more
        return self.received

    def close(self) -> None:
        self.socket.close()


__all__ = ["SeenAs", "StreamClient", "address_of", "api_alone", "serving"]
