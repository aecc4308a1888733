"""The API below `/api/v1`: each operation as a route, every error as a problem, and the event stream.

Rules:

* No CORS: pages of other origins read nothing. What they send to change something is refused before it comes here.
* An unknown parameter is an error: a mistyped filter must not show everything.
* What a viewer may not see does not exist for them: 404, or an empty list.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from deploykit.errors import WebError
from deploykit.web.api.calls import api_call, problem_of
from deploykit.web.api.encoding import accepts, encode, same_tag, tag_of
from deploykit.web.api.openapi import openapi_text
from deploykit.web.api.operation import ApiOperation
from deploykit.web.api.operations import OPERATIONS
from deploykit.web.api.parameters import EVENT_PARAMETERS, GivenParameters, check_parameters
from deploykit.web.api.problems import SHOWN, RequestRefused, problem_response
from deploykit.web.api.writeroutes import Endpoint, WriteEndpoints
from deploykit.web.api.writes import WRITES
from deploykit.web.live.broadcast import StreamLimits, TooManyStreams
from deploykit.web.live.events import EventFilter
from deploykit.web.live.stream import EventStreamResponse, broadcast_of

PREFIX = "/api/v1"
_log = logging.getLogger(__name__)


def routes(limits: StreamLimits | None = None) -> list[BaseRoute]:
    """Return the routes of the API; `limits` of event streams, None: as they are by default."""
    views: dict[str, dict[str, Endpoint]] = {}
    writing = WriteEndpoints()
    for read in OPERATIONS:
        views.setdefault(read.path, {})["GET"] = _in_thread(_endpoint(read))
    for write in WRITES:
        views.setdefault(write.path, {})[write.method] = writing.of(write)
    inner: list[BaseRoute] = [
        Route(path, _by_method(by_method), methods=list(by_method), name=f"api:{path}")
        for path, by_method in views.items()
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
            words = {404: "no such path", 405: "this method does nothing here; see the header Allow"}
            refused = RequestRefused(error.status_code, words.get(error.status_code, "the request cannot be answered"))
            await problem_response(refused, error.headers)(scope, receive, send)


def _by_method(views: Mapping[str, Endpoint]) -> Endpoint:
    """Return the view of a path, which has one for each method."""

    async def endpoint(request: Request) -> Response:
        return await views["GET" if request.method == "HEAD" else request.method](request)

    return endpoint


def _in_thread(view: Callable[[Request], Response]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(view, request)

    return endpoint


def _endpoint(operation: ApiOperation) -> Callable[[Request], Response]:
    """Return the view of an operation; it may block."""

    @functools.wraps(operation.view)
    def endpoint(request: Request) -> Response:
        try:
            return _answer(operation, request)
        except WebError as error:
            return problem_response(problem_of(error, operation.name))
        except Exception:  # noqa: BLE001 - a reader of the API gets a problem like any other; the log has what happened
            _log.exception("bug: %s failed", operation.name)
            return problem_response(RequestRefused(500, "the console failed; its log says why"))

    return endpoint


def _answer(operation: ApiOperation, request: Request) -> Response:
    call = api_call(request, operation.query)
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
    call = api_call(request, EVENT_PARAMETERS)
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
