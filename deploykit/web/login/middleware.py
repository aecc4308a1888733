"""Every request passes here before a view: its host, who looks, where it comes from, how large it is.

Rules:

* `request.state.viewer` is set for every view; where nobody is logged in, it is a viewer without grants.
* Paths of webhooks are `open`: they have signatures of their own, and caps of their own.
* Static files, the login itself and invitations need no login, but the right host.
* A request that changes something needs our own page as its sender and the token of its login; only a program that
  shows its password or an API token with the request itself needs neither.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Final
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deploykit.errors import LedgerError
from deploykit.web.loggedpath import logged_path
from deploykit.web.login.askagain import ask_again
from deploykit.web.login.attempts import same_text
from deploykit.web.login.console import ConsoleLogin
from deploykit.web.login.forms import MOST_API_BODY, MOST_BODY, form_fields, length_problem, read_body, replayed
from deploykit.web.login.headers import SecurityHeadersMiddleware
from deploykit.web.login.hosts import Sender
from deploykit.web.login.identity import NOBODY, RequestIdentity
from deploykit.web.login.lasting import MOST_LOCAL_STREAMS, MOST_STREAMS, LastingAnswer, OpenStreams
from deploykit.web.login.refusals import (
    AccessRefusal,
    ledger_away,
    no_rights,
    no_text,
    not_logged_in,
    not_ours,
    wants_json,
    wrong_host,
)
from deploykit.web.pages.errors import error_page

_log = logging.getLogger(__name__)

LOGIN: Final = "/login"
LOGOUT: Final = "/logout"
INVITE: Final = "/invite"
#: How browsers log in by a page of ours.
_BY_PAGE: Final = frozenset({"password", "oidc", "passkey"})
_STATIC: Final = "/static/"
_EVENTS: Final = "/api/v1/events"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class LoginMiddleware:
    """Decides of each request who looks, or answers it.

    Args:
        app: what is protected.
        login: of this console.
        open_paths: those of webhooks, which check their requests themselves.
    """

    def __init__(self, app: ASGIApp, *, login: ConsoleLogin, open_paths: Collection[str] = ()) -> None:
        self._app = app
        self._login = login
        self._open = frozenset(open_paths)
        self._streams = OpenStreams()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {}).update(viewer=NOBODY.viewer, identity=NOBODY, login=self._login)
        path = path_of(scope)
        if path in self._open:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            judged = await self._judge(scope, receive, headers, path)
        except LedgerError as error:
            _log.error("cannot tell who is logged in: %s", error)
            judged = ledger_away()
        if isinstance(judged, AccessRefusal):
            if judged.audit:
                who = scope["state"]["viewer"].name
                await self._login.notes.refused("request", judged.audit, who=who)
            answer = await run_in_threadpool(_answer, judged, Request(scope), path)
            await answer(scope, receive, send)
        elif isinstance(judged, Response):
            await judged(scope, receive, send)
        else:
            await self._serve(scope, judged, send, path)

    async def _judge(
        self, scope: Scope, receive: Receive, headers: Headers, path: str
    ) -> AccessRefusal | Response | Receive:
        """Return what refuses or answers a request, or what gives its body to the application."""
        safe = scope["method"] in _SAFE
        sender = self._sender(scope, headers)
        if isinstance(sender, AccessRefusal) or path.startswith(_STATIC):
            return sender if isinstance(sender, AccessRefusal) else receive
        if self._login.hosts.host:
            scope["scheme"] = self._login.hosts.scheme  # redirects lead to where people reach us, not to plain http
        if not safe and sender == "foreign":
            return not_ours(f"{scope['method']} {logged_path(path)[:100]!a} from another page")
        identity = await self._login.identify(scope["client"], headers, api=wants_json(path))
        if isinstance(identity, AccessRefusal):
            return identity
        scope["state"].update(viewer=identity.viewer, identity=identity)
        if not identity.viewer.name and not needs_no_login(path):
            return _without_login(self._login, scope, headers, path)
        if not identity.viewer.grants and path != LOGOUT and not needs_no_login(path):
            return no_rights(identity.viewer.name)
        return receive if safe else await _changing(scope, receive, headers, sender)

    def _sender(self, scope: Scope, headers: Headers) -> Sender | AccessRefusal:
        """Return where a request comes from, or its refusal where it is for another host, or its address is no text."""
        hosts = headers.getlist("host")
        if not self._login.hosts.takes(hosts):
            return wrong_host(self._login.hosts)
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            return no_text()
        return self._login.hosts.sender(
            host=hosts[0], sites=headers.getlist("sec-fetch-site"), origins=headers.getlist("origin")
        )

    async def _serve(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        identity: RequestIdentity = scope["state"]["identity"]
        if identity.set_cookie:
            send = _with_cookie(send, identity.set_cookie)
        if not path.startswith("/api/"):
            await self._app(scope, receive, send)
            return
        lasting = LastingAnswer(send, lambda: self._login.goes_on(identity), clock=self._login.clock)
        most = MOST_LOCAL_STREAMS if self._login.settings.login == "none" else MOST_STREAMS
        with self._streams.one_more(identity.stream_key, most if path == _EVENTS else 1 << 30) as may:
            if not may:
                many = AccessRefusal(
                    status=429, detail="Too many event streams of one login.", headers={"Retry-After": "10"}
                )
                await many.answer(as_json=True)(scope, receive, send)
                return
            try:
                await self._app(scope, receive, lasting.send)
            except Exception:
                # Streams have tasks of their own, which wrap `AnswerEnded` in what they raise.
                if not lasting.ended:
                    raise


def _with_cookie(send: Send, line: str) -> Send:
    """Return what sends an answer with one more cookie."""

    async def send_with_cookie(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).append("set-cookie", line)
        await send(message)

    return send_with_cookie


async def _changing(scope: Scope, receive: Receive, headers: Headers, sender: Sender) -> AccessRefusal | Receive:
    """Return why a request that changes something is refused, or what gives its body to the application."""
    most = MOST_API_BODY if wants_json(path_of(scope)) else MOST_BODY
    refused = length_problem(headers, most)
    if refused is not None:
        return refused
    body = await read_body(receive, most=most)
    if isinstance(body, AccessRefusal):
        return body
    fields, identity, path = form_fields(headers, body), scope["state"]["identity"], path_of(scope)
    if any("\0" in text for pair in fields.items() for text in pair):
        return no_text()
    # A program that shows its password or token with the request itself, or one on this machine where there is no
    # login, has no page from which it could know the token, and is no browser that could be made to send something.
    if not needs_no_login(path) and (identity.ambient or (identity.token and sender == "own")):
        given = headers.getlist("x-csrf-token") or [fields.get("csrf", "")]
        good = (identity.token, identity.older_token)
        known = [same_text(given[0], each) for each in good]  # all of them, whichever fits
        if len(given) != 1 or not any(known):
            return not_ours(f"{scope['method']} {logged_path(path)[:100]!a} without the token of its login")
    scope["state"]["form"] = fields
    return replayed(body, receive)


def _without_login(login: ConsoleLogin, scope: Scope, headers: Headers, path: str) -> AccessRefusal | Response:
    """Return the answer to a request of nobody."""
    safe = scope["method"] in _SAFE
    kind, site = headers.get("sec-fetch-mode", "navigate"), headers.get("sec-fetch-site", "")
    if login.settings.login not in _BY_PAGE or wants_json(path) or not safe or kind != "navigate":
        return not_logged_in(login.settings, path, browser="sec-fetch-mode" in headers)
    if site in ("cross-site", "same-site"):
        return ask_again(scope)
    query = scope["query_string"].decode("latin-1")
    wanted = quote(quote(path) + (f"?{query}" if query else ""), safe="/")
    return RedirectResponse(f"{base_of(scope)}{LOGIN}" + (f"?next={wanted}" if wanted != "/" else ""), 303)


def _answer(refused: AccessRefusal, request: Request, path: str) -> Response:
    """Return a refusal as a page of ours, where its style can be loaded."""
    if wants_json(path) or refused.status == 421:
        return refused.answer(as_json=wants_json(path))
    answer = error_page(request, refused.status, title=refused.title, text=refused.detail)
    MutableHeaders(raw=answer.raw_headers).update(dict(refused.headers))
    return answer


def needs_no_login(path: str) -> bool:
    """Return whether a path is a step of logging in, so that nobody can be logged in before."""
    return path == LOGIN or path.startswith((f"{LOGIN}/", f"{INVITE}/"))


def base_of(scope: Scope) -> str:
    """Return the path under which the console is mounted; empty for the root."""
    return str(scope.get("root_path", "")).rstrip("/")


def path_of(scope: Scope) -> str:
    """Return the path of a request under the one where the console is mounted."""
    path, base = str(scope["path"]), base_of(scope)
    return path.removeprefix(base) if path.startswith(f"{base}/") else path


def login_middleware(login: ConsoleLogin, *, open_paths: Collection[str] = ()) -> Sequence[Middleware]:
    """Return the middleware of a console, the outermost first.

    Args:
        login: who may look; one for the whole life of the process, so that sessions outlast a reload.
        open_paths: paths of webhooks, which check their requests themselves.
    """
    return (
        Middleware(SecurityHeadersMiddleware),
        Middleware(LoginMiddleware, login=login, open_paths=open_paths),
    )


__all__ = [
    "INVITE",
    "LOGIN",
    "LOGOUT",
    "LoginMiddleware",
    "base_of",
    "login_middleware",
    "needs_no_login",
    "path_of",
]
