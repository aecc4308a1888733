"""Pages for what went wrong: 403, 404, 405, 500, and a database that does not answer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import attrs
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from deploykit.errors import ActionRefused
from deploykit.web.loggedpath import logged_path
from deploykit.web.pages.filters import sentence
from deploykit.web.pages.render import render

logger = logging.getLogger(__name__)


@attrs.frozen(slots=True)
class ErrorWords:
    """What a page says of an error, and what to do then."""

    title: str
    text: str
    icon: str = "none"
    tone: str = "off"


_WORDS: Final[Mapping[int, ErrorWords]] = {
    400: ErrorWords("That request is not understood", "Something in the address or the form is wrong."),
    403: ErrorWords("You may not look at this", "Ask whoever looks after [[web.access]] for a role.", "lock", "hold"),
    404: ErrorWords("There is no such page", "It may have been removed, or you may not look at it."),
    405: ErrorWords("That cannot be done here", "This address only shows something."),
    409: ErrorWords("That cannot be done now", "Nothing was done.", "warn", "warn"),
    413: ErrorWords("That is too much", "Nothing was done.", "warn", "warn"),
    422: ErrorWords("That makes no sense", "Nothing was done.", "warn", "warn"),
    500: ErrorWords("The console made a mistake", "Nothing was changed on any node. Its log says more.", "bad", "bad"),
    503: ErrorWords(
        "The database of the console does not answer",
        "Nodes go on as they are; the console cannot show them now. Its log says more.",
        "away",
        "bad",
    ),
}


def error_page(request: Request, status: int, *, title: str = "", text: str = "") -> Response:
    """Return the page for an error.

    Args:
        title, text: instead of the words that belong to `status`.
    """
    words = _WORDS.get(status) or _WORDS[500 if status >= 500 else 400]
    shown = attrs.evolve(words, title=title or words.title, text=text or words.text)
    return render(request, "error.html", status=status, error=shown, code=status)


def not_found(request: Request, what: str, name: str) -> Response:
    """Return the page for a thing that does not exist, or that the viewer may not see."""
    return error_page(
        request,
        404,
        title=f"There is no {what} {name[:100]}",
        text="Nothing was heard of it, it was too long ago, or you may not look at it.",
    )


def on_http_error(request: Request, error: Exception) -> Response:
    """Return the page for an error that a view or the router raised; a handler of Starlette."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    answer = error_page(request, status)
    if isinstance(error, HTTPException) and error.headers:
        answer.headers.update(error.headers)
    return answer


def on_refused(request: Request, error: Exception) -> Response:
    """Return the page for an `ActionRefused` that no form shows beside its fields; a handler of Starlette."""
    if not isinstance(error, ActionRefused):
        return error_page(request, 500)
    return error_page(request, error.status, title=sentence(error.problem), text=sentence(error.remedy, "."))


def on_not_done(request: Request, error: Exception) -> Response:
    """Return the page for an action that failed before anything was done; a handler of Starlette.

    The error may name paths of this machine: they are for those who read its log.
    """
    logger.error("%a %a: %s", request.method, logged_path(request.url.path), error)
    return error_page(request, 503, title="It could not be done", text="The console's log says why. Try again.")


def on_database_away(request: Request, error: Exception) -> Response:
    """Return the page for a `ProjectionError` or `LedgerError`; a handler of Starlette."""
    logger.error("%a %a: %s", request.method, logged_path(request.url.path), error)
    return error_page(request, 503)


def on_mistake(request: Request, error: Exception) -> Response:
    """Return the page for an exception that nothing expected; a handler of Starlette, which logs it afterwards."""
    logger.error("%a %a: %s", request.method, logged_path(request.url.path), type(error).__name__)
    return error_page(request, 500)
