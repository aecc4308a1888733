"""Headers that every answer of the console has: pages, API, static files, refusals, errors.

Rules:

* What the application sets itself wins for caching only; it can never loosen the rest.
* An error of a view is answered here, through the application's own handler, so that this answer has the headers, too.
* `Referrer-Policy` is `same-origin`: under `no-referrer` browsers send `Origin: null` with our own forms.
"""

from __future__ import annotations

import logging
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deploykit.web.loggedpath import logged_path

_log = logging.getLogger(__name__)

#: No script, style or picture but our own, nothing inline, no frame around us, forms to us alone.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
SECURITY_HEADERS: Final = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class SecurityHeadersMiddleware:
    """Adds the headers, and answers errors. The outermost middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _add(MutableHeaders(scope=message))
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            if started:
                raise
            _log.exception("%a %a failed", scope["method"], logged_path(scope["path"]))
            answer = await _error_answer(Request(scope), error)
            await answer(scope, receive, send_with_headers)


def _add(headers: MutableHeaders) -> None:
    for name, value in SECURITY_HEADERS.items():
        headers[name] = value
    if "cache-control" not in headers:
        # An ETag lets a reader ask again; without one nothing of a page stays in a cache.
        headers["cache-control"] = "private, no-cache" if "etag" in headers else "no-store"


async def _error_answer(request: Request, error: Exception) -> Response:
    """Return the application's answer to an error, or one line where it has none, or fails as well."""
    handlers = getattr(request.scope.get("app"), "exception_handlers", {})
    handler = handlers.get(500) or handlers.get(Exception)
    if handler is not None:
        try:
            answer = await run_in_threadpool(handler, request, error)
            if not isinstance(answer, Response):
                answer = await answer
            return answer if isinstance(answer, Response) else _plain_error()
        except Exception:  # noqa: BLE001 - whatever fails in it, the request still gets an answer
            _log.exception("the page for errors failed")
    return _plain_error()


def _plain_error() -> Response:
    return PlainTextResponse("The console failed. Its log says why.\n", status_code=500)


__all__ = ["CONTENT_SECURITY_POLICY", "SECURITY_HEADERS", "SecurityHeadersMiddleware"]
