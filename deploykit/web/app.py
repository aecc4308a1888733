"""The console as an ASGI application: pages, API and login together. It can be mounted in another application."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from deploykit.web.context import ConsoleContext


def make_console(
    context: ConsoleContext, *, routes: Sequence[BaseRoute] = (), middleware: Sequence[Middleware] = ()
) -> Starlette:
    """Return the application.

    Args:
        context: what its views need.
        routes: of pages, API, login, and webhooks if they are to be mounted.
        middleware: the first is the outermost; one of them sets `request.state.viewer`.
    """
    app = Starlette(routes=list(routes), middleware=list(middleware))
    app.state.console = context
    return app
