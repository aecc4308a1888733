"""What the login's own views take from a request, and how they answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from deploykit.web.login.attempts import too_many
from deploykit.web.login.console import ConsoleLogin
from deploykit.web.login.identity import RequestIdentity
from deploykit.web.login.middleware import base_of
from deploykit.web.login.peers import RequestPeer
from deploykit.web.login.refusals import AccessRefusal

if TYPE_CHECKING:
    from deploykit.web.login.passkeys import LoginPasskeys

#: Characters of what somebody calls a passkey.
MOST_LABEL: Final = 100


def login_of(request: Request) -> ConsoleLogin:
    """Return the login of the console that got a request."""
    return cast(ConsoleLogin, request.state.login)


def identity_of(request: Request) -> RequestIdentity:
    """Return who sends a request."""
    return cast(RequestIdentity, request.state.identity)


def passkeys_of(login: ConsoleLogin) -> LoginPasskeys:
    """Return the passkeys of a console. What they need is slow to import, so it is imported at the first use."""
    from deploykit.web.login.passkeys import LoginPasskeys

    return LoginPasskeys(login)


def peer_of_request(request: Request) -> RequestPeer:
    """Return the peer that limits and the audit mean."""
    return login_of(request).peer(request.scope["client"], request.headers)


def go_to(request: Request, path: str) -> Response:
    """Return a redirect to a path of ours."""
    return RedirectResponse(base_of(request.scope) + path, 303)


def own_address(request: Request, path: str) -> str:
    """Return the whole address of a path of ours, as people reach it. Only with `[web] url` is it known for certain."""
    url = login_of(request).settings.url.rstrip("/") or f"{request.url.scheme}://{request.headers['host']}"
    return f"{url}{base_of(request.scope)}{path}"


async def step_refused(request: Request) -> AccessRefusal | None:
    """Return the refusal of a step of a login that came too early; None: it may be taken, and counts."""
    login, peer = login_of(request), peer_of_request(request)
    wait = login.steps.attempt(peer.group)
    if wait <= 0:
        return None
    await login.notes.refused("login", f"too many steps of logins from {peer}")
    return too_many(wait)


def as_json(value: Mapping[str, object], status: int = 200) -> Response:
    """Return an answer to our own script."""
    return JSONResponse(dict(value), status, headers={"Cache-Control": "no-store"})


def json_refusal(refused: AccessRefusal) -> Response:
    """Return a refusal to our own script, which shows its text."""
    return JSONResponse({"problem": refused.detail}, refused.status, headers=dict(refused.headers))


__all__ = [
    "MOST_LABEL",
    "as_json",
    "go_to",
    "identity_of",
    "json_refusal",
    "login_of",
    "own_address",
    "passkeys_of",
    "peer_of_request",
    "step_refused",
]
