"""The routes of all pages, and what answers errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from deploykit.errors import ProjectionError
from deploykit.web.pages import errors
from deploykit.web.pages.assets import static_file

ErrorHandler = Callable[[Request, Exception], Response]


def routes() -> list[BaseRoute]:
    """Return the routes of the pages and of the static files."""
    return [
        Route("/static/{name}", static_file, name="static"),
    ]


def error_handlers() -> Mapping[int | type[Exception], ErrorHandler]:
    """Return what answers an error of a page; errors below `/api/` are the API's."""
    return {
        HTTPException: errors.on_http_error,
        ProjectionError: errors.on_database_away,
        500: errors.on_mistake,
    }
