"""`/login/oidc`, which sends the browser to the provider, and `/login/oidc/callback`, to which it comes back.

Rules:

* The address of the callback is made of `[web] url` alone, never of what a request says.
* A login ends in the browser in which it began: a cookie of its own says which one. So nobody can be made to log in as
  somebody else.
* The state is good once, for ten minutes, at any console of the database.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from html import escape
from typing import TYPE_CHECKING, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from deploykit.errors import SettingsError
from deploykit.web.login.attempts import same_text
from deploykit.web.login.credentials import cookie_value, is_random_id, lax_cookie, set_cookie
from deploykit.web.login.failures import IdentityError
from deploykit.web.login.forms import safe_next
from deploykit.web.login.middleware import LOGIN, base_of
from deploykit.web.login.oidcsteps import OidcChallenge, OidcIdentity
from deploykit.web.login.refusals import AccessRefusal
from deploykit.web.login.requested import go_to, identity_of, login_of, own_address, peer_of_request, step_refused
from deploykit.web.pages.errors import error_page

if TYPE_CHECKING:
    from deploykit.web.login.oidc import OidcProvider

BEGIN: Final = "/login/oidc"
CALLBACK: Final = "/login/oidc/callback"
_PURPOSE: Final = "oidc"
_SECONDS: Final = 600
#: Characters of one value in the query of the callback.
_MOST_VALUE: Final = 4000
#: The session's cookie is SameSite=Strict: after a redirect from the provider a browser would not send it. A page of
#: ours that asks for the next one does.
_GO_ON: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Logged in - deploykit</title>'
    '<meta http-equiv="refresh" content="0;url={path}"><p><a href="{path}">Go on</a></p></html>'
)


def routes() -> list[BaseRoute]:
    """Return the routes of the login by a provider."""
    return [Route(BEGIN, begin, methods=["GET"]), Route(CALLBACK, come_back, methods=["GET"])]


async def begin(request: Request) -> Response:
    """Send the browser to the provider."""
    login = login_of(request)
    provider = login.provider
    wanted = safe_next(request.query_params.get("next", "/"))
    if provider is None:
        return go_to(request, LOGIN)
    if (refused := await step_refused(request)) is not None:
        return _refusal(request, refused)
    name = _cookie(request)
    binding = cookie_value(request.headers, name)
    if not is_random_id(binding):
        binding = secrets.token_urlsafe(32)
    value = json.dumps({"binding": _digest(binding), "next": wanted})
    state = await run_in_threadpool(login.ledger.once.put, _PURPOSE, value, _SECONDS)
    try:
        where = await provider.authorization_address(OidcChallenge.of(state, binding), own_address(request, CALLBACK))
    except IdentityError as error:
        return await _failed(request, error)
    answer = RedirectResponse(where, 303)
    answer.headers.append("set-cookie", lax_cookie(name, binding, secure=login.hosts.secure, seconds=_SECONDS))
    return answer


async def come_back(request: Request) -> Response:
    """Begin a session for whom the provider has logged in."""
    login = login_of(request)
    if login.provider is None:
        return go_to(request, LOGIN)
    if (refused := await step_refused(request)) is not None:
        return _refusal(request, refused)
    try:
        identity, wanted = await _identity(request, login.provider)
    except IdentityError as error:
        return await _failed(request, error)
    except SettingsError as error:
        return await _failed(request, IdentityError(error.problem, error.remedy, status=503))
    id_ = await login.begin_session(identity.name, identity_of(request).session, login="oidc", groups=identity.groups)
    await run_in_threadpool(login.tokens.narrow, identity.name, identity.groups)
    await login.notes.done(
        "login", f"by {login.settings.oidc.issuer}, from {peer_of_request(request)}", who=identity.name
    )
    path = escape(base_of(request.scope) + wanted)
    answer = HTMLResponse(_GO_ON.format(path=path), headers={"Cache-Control": "no-store"})
    answer.headers.append("set-cookie", set_cookie(id_, secure=login.hosts.secure))
    answer.headers.append("set-cookie", lax_cookie(_cookie(request), "", secure=login.hosts.secure, seconds=0))
    return answer


async def _identity(request: Request, provider: OidcProvider) -> tuple[OidcIdentity, str]:
    """Return who has logged in, and the page they wanted.

    Raises:
        IdentityError: nobody.
        SettingsError: the client's secret cannot be read.
    """
    pairs = request.query_params.multi_items()
    answer = dict(pairs)
    if len(answer) != len(pairs) or any(len(value) > _MOST_VALUE for value in answer.values()):
        raise IdentityError("the provider's answer cannot be read", _ANEW)
    login = login_of(request)
    state = answer.get("state", "")
    binding = cookie_value(request.headers, _cookie(request))
    # Looked at first: whoever has the address alone must not spoil the login of the browser that began it.
    kept = await run_in_threadpool(login.ledger.once.look, state, _PURPOSE)
    if kept is None:
        raise IdentityError("this login has taken too long, or was finished before", _ANEW)
    value = json.loads(kept)
    if not same_text(_digest(binding), value["binding"]):
        raise IdentityError("this login was not begun in this browser", _ANEW)
    if await run_in_threadpool(login.ledger.once.take, state, _PURPOSE) is None:
        raise IdentityError("this login was finished before", _ANEW)
    found = await provider.log_in(answer, OidcChallenge.of(state, binding), own_address(request, CALLBACK))
    return found, safe_next(value["next"])


_ANEW: Final = "begin the login anew"


async def _failed(request: Request, error: IdentityError) -> Response:
    peer = peer_of_request(request)
    await login_of(request).notes.refused("login", f"{error.problem}, from {peer}")
    detail = f"{error.problem[:1].upper()}{error.problem[1:]}. {error.remedy[:1].upper()}{error.remedy[1:]}".strip()
    return _refusal(request, AccessRefusal(status=error.status, detail=f"{detail}." if error.remedy else detail))


def _refusal(request: Request, refused: AccessRefusal) -> Response:
    answer = error_page(request, refused.status, title="You are not logged in", text=refused.detail)
    answer.headers.update(dict(refused.headers))
    return answer


def _cookie(request: Request) -> str:
    return "__Host-deploykit-oidc" if login_of(request).hosts.secure else "deploykit-oidc"


def _digest(binding: str) -> str:
    return hashlib.sha256(binding.encode(errors="surrogatepass")).hexdigest()


__all__ = ["BEGIN", "CALLBACK", "routes"]
