"""The console as an ASGI application: pages, API and login together. It can be mounted in another application."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from deploykit.web.context import ConsoleContext
from deploykit.web.live.events import EventRing

#: Answers an error that a view raised.
ErrorHandler = Callable[[Request, Exception], Response]


class EventMark:
    """Middleware: `request.state.newest` is the number of the last event before the view looks into the database.

    A page that follows the events from there misses nothing of what happens while it is drawn and sent.
    """

    def __init__(self, app: ASGIApp, events: EventRing) -> None:
        self._app, self._events = app, events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope.setdefault("state", {})["newest"] = self._events.newest
        await self._app(scope, receive, send)


def make_console(
    context: ConsoleContext,
    *,
    routes: Sequence[BaseRoute] = (),
    middleware: Sequence[Middleware] = (),
    handlers: Mapping[int | type[Exception], ErrorHandler] | None = None,
) -> Starlette:
    """Return the application.

    Args:
        context: what its views need.
        routes: of pages, API, login, and webhooks if they are to be mounted.
        middleware: the first is the outermost; one of them sets `request.state.viewer`.
        handlers: what answers errors, by status or class: `pages.routes.error_handlers`, and the API's below `/api/`.
    """
    marked = [*middleware, Middleware(EventMark, events=context.events)]
    app = Starlette(routes=list(routes), middleware=marked, exception_handlers=dict(handlers or {}))
    app.state.console = context
    return app
