"""The pages `/login` and `/logout`; they work without script, but for passkeys."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from deploykit.web.login import accountviews, oidcviews, passkeyviews
from deploykit.web.login.credentials import set_cookie
from deploykit.web.login.forms import safe_next
from deploykit.web.login.middleware import LOGIN, LOGOUT
from deploykit.web.login.oidcsteps import host_of
from deploykit.web.login.refusals import FORM_CHALLENGE, AccessRefusal
from deploykit.web.login.requested import (
    go_to,
    identity_of,
    login_of,
    own_address,
    peer_of_request,
)
from deploykit.web.pages.render import render
from deploykit.web.requests import fields_of

#: Kinds of login that the page `/login` serves.
_BY_PAGE = frozenset({"password", "oidc", "passkey"})


def routes() -> list[BaseRoute]:
    """Return the routes of the login and of the account page."""
    return [
        Route(LOGIN, show_login, methods=["GET"]),
        Route(LOGIN, log_in, methods=["POST"]),
        Route(LOGOUT, log_out, methods=["POST"]),
        *oidcviews.routes(),
        *passkeyviews.routes(),
        *accountviews.routes(),
    ]


async def show_login(request: Request) -> Response:
    """Show the ways to log in, or go on where somebody is logged in."""
    login, identity = login_of(request), identity_of(request)
    wanted = safe_next(request.query_params.get("next", "/"))
    if login.settings.login not in _BY_PAGE or identity.viewer.grants:
        return go_to(request, wanted)
    return await _form(request, wanted)


async def log_in(request: Request) -> Response:
    """Begin a session for a name and its password, and go to the page that was wanted."""
    login, fields = login_of(request), fields_of(request)
    wanted = safe_next(fields.get("next", "/"))
    if login.settings.login != "password":
        return go_to(request, wanted)
    name, password = fields.get("name", "").strip(), fields.get("password", "")
    if not name or not password:
        return await _form(
            request, wanted, name=name, refused=AccessRefusal(status=422, detail="Give a name and a password.")
        )
    peer = peer_of_request(request)
    refused = await login.passwords.attempt(name, password, peer)
    if refused is not None:
        return await _form(request, wanted, name=name, refused=refused)
    id_ = await login.begin_session(name, identity_of(request).session, login="password")
    await login.notes.done("login", f"from {peer}", who=name)
    answer = go_to(request, wanted)
    answer.headers.append("set-cookie", set_cookie(id_, secure=login.hosts.secure))
    return answer


async def log_out(request: Request) -> Response:
    """End the session of this browser. The page that follows leads to the provider's own logout."""
    login, session = login_of(request), identity_of(request).session
    by_provider = session is not None and session.login == "oidc"
    answer = go_to(request, f"{LOGIN}?out=provider" if by_provider else LOGIN)
    if session is not None:
        await run_in_threadpool(login.sessions.end, session.key)
        await login.notes.done("logout", f"from {peer_of_request(request)}", who=session.name)
        answer.headers.append("set-cookie", set_cookie("", secure=login.hosts.secure))
    return answer


async def _form(request: Request, wanted: str, *, name: str = "", refused: AccessRefusal | None = None) -> Response:
    login = login_of(request)
    status, problem = (refused.status, refused.detail) if refused is not None else (200, "")
    out = ""
    if login.provider is not None and request.query_params.get("out") == "provider":
        out = await login.provider.end_session_address(own_address(request, LOGIN))
    answer = render(
        request,
        "login.html",
        status=status,
        wanted=wanted,
        name=name[:255],
        problem=problem,
        kind=login.settings.login,
        provider=host_of(login.settings.oidc.issuer),
        takes_passkeys=login.takes_passkeys,
        logged_out=out,
    )
    if refused is not None:
        answer.headers.update(dict(refused.headers))
    if status == 401:
        answer.headers["www-authenticate"] = FORM_CHALLENGE
    return answer


__all__ = ["routes"]
