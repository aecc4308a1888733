"""The console put together: pages, API, login, and the webhooks of this machine, in one application."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from deploykit.daemons.service.metrics import Metrics
from deploykit.errors import SettingsError
from deploykit.settings.webhook import WebhookSettings
from deploykit.web.api.routes import routes as api_routes
from deploykit.web.app import make_console
from deploykit.web.context import ConsoleContext
from deploykit.web.counting import RequestCounter
from deploykit.web.login.console import ConsoleLogin
from deploykit.web.login.middleware import login_middleware
from deploykit.web.login.views import routes as login_routes
from deploykit.web.pages.routes import error_handlers
from deploykit.web.pages.routes import routes as page_routes
from deploykit.web.signing.views import routes as signing_routes

#: First words of paths that are the console's, now or later.
_RESERVED: Final = frozenset({"api", "static"})


def console_routes() -> list[BaseRoute]:
    """Return every route of the console itself."""
    return [*api_routes(), *login_routes(), *signing_routes(), *page_routes()]


def hook_paths(settings: WebhookSettings, routes: Iterable[BaseRoute]) -> tuple[str, ...]:
    """Return the paths at which the console takes webhooks.

    Args:
        settings: the sources.
        routes: of the console itself.

    Raises:
        SettingsError: the console has pages of its own there.
    """
    words = {_first(getattr(route, "path", "")) for route in routes} | _RESERVED
    taken = {name: path for name in settings.sources if _first(path := settings.path_of(name)) in words}
    if taken:
        lines = tuple(f"webhook.sources.{name}.path: {path} is a page of the console" for name, path in taken.items())
        raise SettingsError(lines[0], "set a path below /hook/", problems=lines)
    return tuple(settings.path_of(name) for name in settings.sources)


def _first(path: str) -> str:
    return path.lstrip("/").partition("/")[0]


def assemble(
    context: ConsoleContext, login: ConsoleLogin, metrics: Metrics, *, hooks: Sequence[BaseRoute] = ()
) -> Starlette:
    """Return the application.

    Args:
        context: what its views need.
        login: who may look; one for the whole life of the process.
        metrics: where requests are counted.
        hooks: routes of webhooks.

    Raises:
        SettingsError: a webhook's path is a page of the console.
    """
    routes = console_routes()
    paths = hook_paths(context.settings.webhook, routes) if hooks else ()
    return make_console(
        context,
        routes=[*routes, *hooks],
        middleware=[
            Middleware(RequestCounter, metrics=metrics, hooks=paths),
            *login_middleware(login, open_paths=paths),
        ],
        handlers=error_handlers(),
    )


__all__ = ["assemble", "console_routes", "hook_paths"]
