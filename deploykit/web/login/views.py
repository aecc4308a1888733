"""The pages `/login` and `/logout`; they work without script."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from deploykit.web.login.console import ConsoleLogin, RequestIdentity
from deploykit.web.login.credentials import set_cookie
from deploykit.web.login.forms import safe_next
from deploykit.web.login.middleware import LOGIN, LOGOUT, base_of
from deploykit.web.login.refusals import FORM_CHALLENGE, AccessRefusal
from deploykit.web.pages.render import render


def routes() -> list[BaseRoute]:
    """Return the routes of the login."""
    return [
        Route(LOGIN, show_login, methods=["GET"]),
        Route(LOGIN, log_in, methods=["POST"]),
        Route(LOGOUT, log_out, methods=["POST"]),
    ]


async def show_login(request: Request) -> Response:
    """Show the form, or go on where somebody is logged in."""
    login, identity = _login_of(request), _identity_of(request)
    wanted = safe_next(request.query_params.get("next", "/"))
    if login.settings.login != "password" or identity.viewer.grants:
        return _go(request, wanted)
    return _form(request, wanted)


async def log_in(request: Request) -> Response:
    """Begin a session for a name and its password, and go to the page that was wanted."""
    login, fields = _login_of(request), _fields_of(request)
    wanted = safe_next(fields.get("next", "/"))
    if login.settings.login != "password":
        return _go(request, wanted)
    name, password = fields.get("name", "").strip(), fields.get("password", "")
    if not name or not password:
        return _form(
            request, wanted, name=name, refused=AccessRefusal(status=422, detail="Give a name and a password.")
        )
    peer = login.peer(request.scope["client"], request.headers)
    refused = await login.passwords.attempt(name, password, peer)
    if refused is not None:
        return _form(request, wanted, name=name, refused=refused)
    id_ = login.begin_session(name, _identity_of(request).session)
    await login.notes.done("login", f"from {peer}", who=name)
    answer = _go(request, wanted)
    answer.headers.append("set-cookie", set_cookie(id_, secure=login.hosts.secure))
    return answer


async def log_out(request: Request) -> Response:
    """End the session of this browser."""
    login, session = _login_of(request), _identity_of(request).session
    answer = _go(request, LOGIN)
    if session is not None:
        login.sessions.end(session.key)
        await login.notes.done(
            "logout", f"from {login.peer(request.scope['client'], request.headers)}", who=session.name
        )
        answer.headers.append("set-cookie", set_cookie("", secure=login.hosts.secure))
    return answer


def _form(request: Request, wanted: str, *, name: str = "", refused: AccessRefusal | None = None) -> Response:
    status, problem = (refused.status, refused.detail) if refused is not None else (200, "")
    answer = render(request, "login.html", status=status, wanted=wanted, name=name[:255], problem=problem)
    if refused is not None:
        answer.headers.update(dict(refused.headers))
    if status == 401:
        answer.headers["www-authenticate"] = FORM_CHALLENGE
    return answer


def _go(request: Request, path: str) -> Response:
    return RedirectResponse(base_of(request.scope) + path, 303)


def _login_of(request: Request) -> ConsoleLogin:
    return cast(ConsoleLogin, request.state.login)


def _identity_of(request: Request) -> RequestIdentity:
    return cast(RequestIdentity, request.state.identity)


def _fields_of(request: Request) -> Mapping[str, str]:
    return cast(Mapping[str, str], request.state.form)


__all__ = ["routes"]
