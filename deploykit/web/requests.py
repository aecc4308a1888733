"""What a view takes from a request: the console's context, and who looks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from starlette.requests import Request

from deploykit.errors import ActionRefused
from deploykit.web.actions.ports import ConsoleActions
from deploykit.web.context import ConsoleContext
from deploykit.web.projection.views import MAX_LIMIT, PageRequested
from deploykit.web.viewer import Viewer


def context_of(request: Request) -> ConsoleContext:
    """Return the context of the console that got a request."""
    return cast(ConsoleContext, request.app.state.console)


def viewer_of(request: Request) -> Viewer:
    """Return who looks; the middleware of `login` has put it there before any view runs."""
    return cast(Viewer, request.state.viewer)


def logout_token_of(request: Request) -> str:
    """Return the token of the form that ends this login; empty where there is no session to end."""
    identity = getattr(request.state, "identity", None)
    return str(identity.token) if identity is not None and identity.session is not None else ""


def form_token_of(request: Request) -> str:
    """Return the token that a form of ours carries, so that no other page can send it; empty where none is needed."""
    identity = getattr(request.state, "identity", None)
    return str(identity.token) if identity is not None else ""


def fields_of(request: Request) -> Mapping[str, str]:
    """Return the fields of the form that was sent; the middleware of `login` has read them before any view runs."""
    return cast(Mapping[str, str], getattr(request.state, "form", {}))


def actions_of(request: Request) -> ConsoleActions:
    """Return what can be done from this console.

    Raises:
        ActionRefused: nothing can.
    """
    actions = context_of(request).actions
    if actions is None:
        raise ActionRefused("this console only shows", "do it by the command line", status=404)
    return actions


def page_of(request: Request, *, limit: int = 100) -> PageRequested:
    """Return which part of a list a request asks for: `after`, `limit`, `q`. What is wrong counts as not given."""
    query = request.query_params
    asked = query.get("limit", "")
    wanted = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 6 else limit
    return PageRequested(
        after=query.get("after", "")[:500], limit=min(max(wanted, 1), MAX_LIMIT), search=query.get("q", "")[:100]
    )
