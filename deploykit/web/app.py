"""The console as an ASGI application: pages, API and login together. It can be mounted in another application."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from deploykit.web.context import ConsoleContext

#: Answers an error that a view raised.
ErrorHandler = Callable[[Request, Exception], Response]


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
    app = Starlette(routes=list(routes), middleware=list(middleware), exception_handlers=dict(handlers or {}))
    app.state.console = context
    return app
