"""The routes of all pages, and what answers errors."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route

from deploykit.errors import ActionRefused, DeploykitError, LedgerError, ProjectionError
from deploykit.web.app import ErrorHandler
from deploykit.web.pages import (
    activity,
    approving,
    changes,
    controlling,
    deploying,
    deploys,
    errors,
    fleet,
    granting,
    locking,
    logs,
    nodes,
    overview,
    sites,
)
from deploykit.web.pages.assets import static_file


def routes() -> list[BaseRoute]:
    """Return the routes of the pages and of the static files."""
    return [
        Route("/", overview.overview),
        Route("/find", overview.find),
        Route("/fleet", fleet.fleet),
        Route("/sites", overview.all_sites),
        Route("/sites/{site}", sites.site),
        Route("/nodes", nodes.nodes),
        Route("/nodes/{node}", nodes.node),
        Route("/static/{name}", static_file),
        *deploys.routes(),
        *logs.routes(),
        *changes.routes(),
        *activity.routes(),
        *deploying.routes(),
        *controlling.routes(),
        *approving.routes(),
        *locking.routes(),
        *granting.routes(),
    ]


def error_handlers() -> Mapping[int | type[Exception], ErrorHandler]:
    """Return what answers an error of a page; errors below `/api/` are the API's."""
    return {
        HTTPException: errors.on_http_error,
        ActionRefused: errors.on_refused,
        ProjectionError: errors.on_database_away,
        LedgerError: errors.on_database_away,
        DeploykitError: errors.on_not_done,
        500: errors.on_mistake,
    }
