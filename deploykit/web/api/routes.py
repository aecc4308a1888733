"""The API below `/api/v1`: each operation as a route, every error as a problem, and the event stream.

Rules:

* Only GET and HEAD. No CORS: pages of other origins read nothing.
* An unknown parameter is an error: a mistyped filter must not show everything.
* What a viewer may not see does not exist for them: 404, or an empty list.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from deploykit.errors import WebError
from deploykit.web.api.encoding import accepts, encode, same_tag, tag_of
from deploykit.web.api.openapi import openapi_text
from deploykit.web.api.operation import ApiCall, ApiOperation
from deploykit.web.api.operations import OPERATIONS
from deploykit.web.api.parameters import (
    EVENT_PARAMETERS,
    GivenParameters,
    Parameter,
    check_parameters,
    value_is_text,
)
from deploykit.web.api.problems import SHOWN, ParameterProblem, RequestRefused, problem_response
from deploykit.web.live.broadcast import StreamLimits, TooManyStreams
from deploykit.web.live.events import EventFilter
from deploykit.web.live.stream import EventStreamResponse, broadcast_of
from deploykit.web.requests import context_of, viewer_of

PREFIX = "/api/v1"
_log = logging.getLogger(__name__)


def routes(limits: StreamLimits | None = None) -> list[BaseRoute]:
    """Return the routes of the API; `limits` of event streams, None: as they are by default."""
    inner: list[BaseRoute] = [
        Route(operation.path, _endpoint(operation), methods=["GET"], name=f"api:{operation.name}")
        for operation in OPERATIONS
    ]
    inner.append(Route("/openapi.json", _openapi, methods=["GET"], name="api:openapi"))
    inner.append(Route("/events", _event_endpoint(limits), methods=["GET"], name="api:events"))
    return [Mount(PREFIX, app=_ProblemsOf(Router(routes=inner, redirect_slashes=False)), name="api")]


class _ProblemsOf:
    """Answers as problems what the router itself refuses: unknown paths, other methods."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except HTTPException as error:
            words = {404: "no such path", 405: "only GET and HEAD"}
            refused = RequestRefused(error.status_code, words.get(error.status_code, "the request cannot be answered"))
            await problem_response(refused, error.headers)(scope, receive, send)


def _endpoint(operation: ApiOperation) -> Callable[[Request], Response]:
    """Return the view of an operation, as Starlette calls it in a thread."""

    @functools.wraps(operation.view)
    def endpoint(request: Request) -> Response:
        try:
            return _answer(operation, request)
        except RequestRefused as refused:
            return problem_response(refused)
        except WebError as error:
            _log.warning("cannot answer %s: %s", operation.name, error)
            return problem_response(RequestRefused(503, "the console's database does not answer", retry_after=5))
        except Exception:  # noqa: BLE001 - a reader of the API gets a problem like any other; the log has what happened
            _log.exception("bug: %s failed", operation.name)
            return problem_response(RequestRefused(500, "the console failed; its log says why"))

    return endpoint


def _answer(operation: ApiOperation, request: Request) -> Response:
    call = _call(request, operation.query)
    media_type = _media_type(operation, request)
    newest = call.context.events.newest  # before the view: what happens meanwhile is followed, not missed
    value = operation.view(call)
    if value is None:
        named = ", ".join(f"{name} {text[:SHOWN]!a}" for name, text in call.path.items())
        raise RequestRefused(404, f"there is no {named}")
    if operation.plain_text is not None and media_type == "text/plain":
        body = operation.plain_text(value).encode(errors="replace")
    else:
        body = encode(value, functools.partial(_next_url, request))
    return _tagged(request, body, media_type, {"x-last-event-id": str(newest)})


def _tagged(request: Request, body: bytes, media_type: str, headers: Mapping[str, str]) -> Response:
    """Return a body, or that the reader has it already."""
    tag = tag_of(body)
    more = {"etag": tag, "cache-control": "private, no-cache", "vary": "Accept, Authorization, Cookie", **headers}
    if same_tag(request.headers.get("if-none-match", ""), tag):
        return Response(status_code=304, headers=more)
    return Response(body, media_type=media_type, headers=more)


def _openapi(request: Request) -> Response:
    """Answer with the description of the API; it holds nothing of the fleet."""
    try:
        check_parameters(request.query_params.multi_items(), ())
    except RequestRefused as refused:
        return problem_response(refused)
    return _tagged(request, openapi_text().encode(), "application/json", {})


def _call(request: Request, query: tuple[Parameter, ...]) -> ApiCall:
    """Return who asks for what.

    Raises:
        RequestRefused: they may look at nothing, or a part of the URL is wrong.
    """
    viewer = viewer_of(request)
    if not viewer.name:
        raise RequestRefused(401, "log in first")
    if not viewer.grants:
        raise RequestRefused(403, f"{viewer.name[:SHOWN]!a} may look at nothing here")
    path = {name: str(value) for name, value in request.path_params.items() if name != "path"}
    for name, text in path.items():
        if not value_is_text(text):
            wrong = ParameterProblem(parameter=name, detail="too long, or holds a control character")
            raise RequestRefused(422, f"{name}: {wrong.detail}", parameters=(wrong,))
    given = check_parameters(request.query_params.multi_items(), query)
    return ApiCall(context=context_of(request), viewer=viewer, path=path, query=given)


def _media_type(operation: ApiOperation, request: Request) -> str:
    header = request.headers.get("accept", "")
    if accepts(header, "application/json"):
        return "application/json"
    if operation.plain_text is not None and accepts(header, "text/plain"):
        return "text/plain"
    raise RequestRefused(406, "there is application/json" + (" and text/plain" if operation.plain_text else ""))


def _next_url(request: Request, after: str) -> str:
    """Return the path of the page after this one; it stays right behind a proxy and where the console is mounted."""
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "after"]
    return f"{request.url.path}?{urlencode([*kept, ('after', after)])}"


def _event_endpoint(limits: StreamLimits | None) -> Callable[[Request], Awaitable[Response]]:
    """Return the view that answers with a stream of what changes from now on, or from an event on."""

    async def events(request: Request) -> Response:
        try:
            return _stream(request, limits)
        except TooManyStreams as error:
            return problem_response(RequestRefused(503, str(error), retry_after=60))
        except RequestRefused as refused:
            return problem_response(refused)

    return events


def _stream(request: Request, limits: StreamLimits | None) -> EventStreamResponse:
    call = _call(request, EVENT_PARAMETERS)
    if not accepts(request.headers.get("accept", ""), "text/event-stream"):
        raise RequestRefused(406, "there is text/event-stream")
    wanted = EventFilter(viewer=call.viewer, topics=call.query.listed("topics"), site=call.query.text("site"))
    ring = call.context.events
    if ring.closed:
        raise RequestRefused(503, "the console ends", retry_after=2)
    head = request.method == "HEAD"
    return EventStreamResponse(broadcast_of(request, ring, limits), wanted, _after(request, call.query), head=head)


def _after(request: Request, query: GivenParameters) -> int | None:
    """Return the last event that a reader has; None where it has none. A header that is no number: it missed all."""
    header = request.headers.get("last-event-id", "")
    if header:
        return int(header) if header.isascii() and header.isdigit() and len(header) <= 15 else 0
    return query.number("after", 0) if query.text("after") else None


__all__ = ["PREFIX", "routes"]
