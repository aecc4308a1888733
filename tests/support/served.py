"""The console on a loopback port, for a real browser or client; ended when the block is left."""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final

import anyio
import attrs
import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deploykit.names import parse_node_name
from deploykit.settings import Settings
from deploykit.web.actions.ports import ConsoleActions
from deploykit.web.app import make_console
from deploykit.web.context import ConsoleContext
from deploykit.web.live.events import EventKind, EventRing, LiveEvent
from deploykit.web.login.forms import form_fields, read_body
from deploykit.web.pages.routes import error_handlers, routes
from deploykit.web.projection.queries import Queries
from deploykit.web.viewer import EVERYBODY, Viewer
from tests.support.consoleworld import NOW
from tests.support.wait import wait_until

#: As every answer of the console has it: a page that breaks it must fail here, too.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


class AsViewer:
    """Middleware: everybody looks as one viewer, and every answer has the content security policy."""

    def __init__(self, app: ASGIApp, viewer: Viewer) -> None:
        self._app, self._viewer = app, viewer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        if scope["type"] == "http":
            scope.setdefault("state", {})["viewer"] = self._viewer
            if scope["method"] == "POST":
                body = await read_body(receive)
                assert isinstance(body, bytes)
                scope["state"]["form"] = form_fields(Headers(scope=scope), body)
        await self._app(scope, receive, with_policy)


@attrs.define(kw_only=True)
class EventFeed:
    """A stream of events that a test writes by hand; it counts its readers."""

    readers: list[queue.SimpleQueue[LiveEvent | None]] = attrs.Factory(list)
    ever: int = 0
    open: bool = True
    status: int = 200
    _number: int = 1

    def send(self, kind: EventKind, *, site: str = "", time: datetime = NOW) -> None:
        """Send an event to whoever listens."""
        event = LiveEvent(number=self._number, kind=kind, time=time, site=site)
        self._number += 1
        for reader in tuple(self.readers):
            reader.put(event)

    async def stream(self, request: Request) -> Response:
        """Answer `/api/v1/events`."""
        if self.status != 200:
            return PlainTextResponse(status_code=self.status)
        reader: queue.SimpleQueue[LiveEvent | None] = queue.SimpleQueue()
        self.readers.append(reader)  # before the headers: a page is "live" from then on
        self.ever += 1

        async def blocks() -> AsyncIterator[bytes]:
            try:
                yield b"retry: 200\n\n"
                while self.open and not await request.is_disconnected():
                    try:
                        event = reader.get_nowait()
                    except queue.Empty:
                        await anyio.sleep(0.01)
                        continue
                    if event is None:
                        return
                    yield event.encoded()
            finally:
                self.readers.remove(reader)

        return StreamingResponse(blocks(), media_type="text/event-stream")

    def cut(self) -> None:
        """End every stream; browsers come back."""
        for reader in tuple(self.readers):
            reader.put(None)


@attrs.frozen(kw_only=True)
class Served:
    """A console that runs. `url` has no slash at its end."""

    url: str
    context: ConsoleContext
    feed: EventFeed


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Serve an application on a loopback port, and return its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="served")
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), "uvicorn started")
        yield f"http://localhost:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()


def console_app(
    queries: Queries,
    *,
    viewer: Viewer = EVERYBODY,
    now: datetime = NOW,
    more: tuple[BaseRoute, ...] = (),
    actions: ConsoleActions | None = None,
    middleware: Sequence[Middleware] = (),
) -> Starlette:
    """Return the console's pages over a projection, without a login but for what `middleware` does."""
    context = ConsoleContext(
        settings=Settings(node=parse_node_name("ops-1")),
        queries=queries,
        events=EventRing(1),
        now=lambda: now,
        actions=actions,
    )
    return make_console(
        context,
        routes=[*routes(), *more],
        middleware=middleware or [Middleware(AsViewer, viewer=viewer)],
        handlers=error_handlers(),
    )


def answer_of(app: ASGIApp, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """Return the answer to a GET, unpacked; an exception of the application is the answer 500, as on a server.

    Args:
        path: as it is sent, percent-encoded.
    """

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path, headers=dict(headers or {}))

    return asyncio.run(ask())


@contextmanager
def console_of(
    queries: Queries,
    *,
    viewer: Viewer = EVERYBODY,
    now: datetime = NOW,
    more: tuple[BaseRoute, ...] = (),
    actions: ConsoleActions | None = None,
) -> Iterator[Served]:
    """Serve the console's pages over a projection."""
    feed = EventFeed()
    more = (Route("/api/v1/events", feed.stream), *more)
    app = console_app(queries, viewer=viewer, now=now, more=more, actions=actions)
    with serving(app) as url:
        try:
            yield Served(url=url, context=app.state.console, feed=feed)
        finally:
            feed.open = False
