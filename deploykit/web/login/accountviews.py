"""`/account`: what somebody has here: sessions, passkeys for the login, API tokens. All but making a passkey works
without script.

Rules:

* Everybody sees and ends only their own; an `admin` of every site also revokes the tokens of others.
* Only who is logged in by a browser comes here: a token makes no token, and adds no passkey.
* Where people log in by passkeys alone, the last one stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from deploykit.errors import ActionRefused
from deploykit.settings.web import ROLES
from deploykit.web.ledger.tokens import KeptToken
from deploykit.web.login.apitokens import token_asked
from deploykit.web.login.failures import IdentityError
from deploykit.web.login.passkeyviews import not_counted, step_answer
from deploykit.web.login.requested import (
    MOST_LABEL,
    as_json,
    go_to,
    identity_of,
    login_of,
    passkeys_of,
    peer_of_request,
)
from deploykit.web.login.rights import highest_role, rules_everything
from deploykit.web.pages.errors import error_page
from deploykit.web.pages.render import render
from deploykit.web.requests import fields_of

ACCOUNT: Final = "/account"
#: Offered for a token, before the longest that the settings let it last cuts it.
_DAYS: Final = 90


def routes() -> list[BaseRoute]:
    """Return the routes of the account page."""
    return [
        Route(ACCOUNT, show_account, methods=["GET"]),
        Route(f"{ACCOUNT}/tokens", make_token, methods=["POST"]),
        Route(f"{ACCOUNT}/tokens/revoke", revoke_token, methods=["POST"]),
        Route(f"{ACCOUNT}/sessions/end", end_session, methods=["POST"]),
        Route(f"{ACCOUNT}/passkeys", add_passkey, methods=["POST"]),
        Route(f"{ACCOUNT}/passkeys/rename", rename_passkey, methods=["POST"]),
        Route(f"{ACCOUNT}/passkeys/remove", remove_passkey, methods=["POST"]),
    ]


async def show_account(request: Request) -> Response:
    """Show what somebody has here."""
    return await run_in_threadpool(_page, request)


async def make_token(request: Request) -> Response:
    """Make an API token, and show it this once."""
    login, identity, fields = login_of(request), identity_of(request), fields_of(request)
    if login.settings.login == "none":
        return _nothing_here(request)
    who = identity.viewer.name
    try:
        asked = token_asked(fields, identity.viewer, login.settings.token_days)
        text, token = await run_in_threadpool(login.tokens.make, asked, who, identity.groups)
    except ActionRefused as error:
        await login.notes.refused("token", f"{error.problem}, from {peer_of_request(request)}", who=who)
        status, problems = error.status, error.problems or {"label": f"{error}."}
        return await run_in_threadpool(lambda: _page(request, status, fields=fields, problems=problems))
    detail = f"{token.id} {token.label!a}: {token.role} on {' '.join(token.sites)} until {_at(token.expires):%Y-%m-%d}"
    await login.notes.done("token", f"made {detail}, from {peer_of_request(request)}", who=who)
    return await run_in_threadpool(lambda: _page(request, made=token, secret=text))


async def revoke_token(request: Request) -> Response:
    """Revoke a token of one's own; an `admin` of every site revokes anybody's."""
    login, identity = login_of(request), identity_of(request)
    id_, who = fields_of(request).get("id", "")[:40], identity.viewer.name
    owner = "" if rules_everything(identity.viewer) else who
    if login.settings.login == "none" or not await run_in_threadpool(lambda: login.tokens.end(id_, owner=owner)):
        await login.notes.refused("token", f"no token {id_!a} of theirs to revoke", who=who)
        return error_page(
            request, 404, title="There is no such token", text="It was revoked before, or is somebody else's."
        )
    await login.notes.done("token", f"revoked {id_!a}, from {peer_of_request(request)}", who=who)
    return go_to(request, f"{ACCOUNT}#tokens")


async def end_session(request: Request) -> Response:
    """End a session of one's own, or all but this one."""
    login, session, key = login_of(request), identity_of(request).session, fields_of(request).get("key", "")
    if session is None:
        return _nothing_here(request)
    if key == "others":
        count = await run_in_threadpool(lambda: login.sessions.end_all_of(session.name, but=session.key))
    else:
        own = {each.key for each in await run_in_threadpool(login.sessions.list_of, session.name)}
        count = int(key in own and await run_in_threadpool(login.sessions.end, key))
    await login.notes.done("logout", f"{count} sessions ended, from {peer_of_request(request)}", who=session.name)
    return go_to(request, f"{ACCOUNT}#sessions")


async def add_passkey(request: Request) -> Response:
    """Make a passkey in two steps, for our script."""
    login, fields, session = login_of(request), fields_of(request), identity_of(request).session
    if session is None or not login.takes_passkeys:
        return _nothing_here(request)
    passkeys, name = passkeys_of(login), session.name
    try:
        if fields.get("step") == "begin":
            return step_answer(await run_in_threadpool(passkeys.begin_adding, name, "account"))
        passkey = await run_in_threadpool(
            lambda: passkeys.made(
                fields.get("id", ""), fields.get("answer", ""), name=name, key="account", label=fields.get("label", "")
            )
        )
        await run_in_threadpool(passkeys.keep, passkey)
    except IdentityError as error:
        return await not_counted(request, error)
    await login.notes.done("passkey", f"{passkey.label!a} added, from {peer_of_request(request)}", who=name)
    return as_json({"next": f"{request.scope.get('root_path', '').rstrip('/')}{ACCOUNT}#passkeys"})


async def rename_passkey(request: Request) -> Response:
    """Give a passkey of one's own another name."""
    login, fields, session = login_of(request), fields_of(request), identity_of(request).session
    label = " ".join(fields.get("label", "").split())
    if session is None:
        return _nothing_here(request)
    if not label or len(label) > MOST_LABEL or not label.isprintable():
        problems = {"rename": f"Give the passkey a name of at most {MOST_LABEL} characters."}
        return await run_in_threadpool(lambda: _page(request, 422, problems=problems))
    found = await run_in_threadpool(_own_passkey, request)
    if not found or not await run_in_threadpool(login.ledger.passkeys.rename, found, session.name, label):
        return await _no_such_passkey(request)
    await login.notes.done("passkey", f"one is called {label!a} now", who=session.name)
    return go_to(request, f"{ACCOUNT}#passkeys")


async def remove_passkey(request: Request) -> Response:
    """Remove a passkey of one's own; the sessions that it began end."""
    login, session = login_of(request), identity_of(request).session
    if session is None:
        return _nothing_here(request)
    credential = await run_in_threadpool(_own_passkey, request)
    theirs = await run_in_threadpool(login.ledger.passkeys.list, session.name, "login")
    if credential and login.settings.login == "passkey" and len(theirs) == 1:
        problems = {"remove": "This is your last passkey: without it you could not log in. Add another first."}
        return await run_in_threadpool(lambda: _page(request, 409, problems=problems))
    if not credential or not await run_in_threadpool(login.ledger.passkeys.remove, credential, session.name):
        return await _no_such_passkey(request)
    await login.notes.done("passkey", f"one removed, from {peer_of_request(request)}", who=session.name)
    return go_to(request, f"{ACCOUNT}#passkeys")


async def _no_such_passkey(request: Request) -> Response:
    who = identity_of(request).viewer.name
    await login_of(request).notes.refused("passkey", f"none of theirs, from {peer_of_request(request)}", who=who)
    return error_page(request, 404, title="There is no such passkey", text="It was removed, or is not yours.")


def _own_passkey(request: Request) -> str:
    """Return the credential that a form names, where it is one's own and for the login; else empty."""
    login, session = login_of(request), identity_of(request).session
    wanted = fields_of(request).get("credential", "")
    theirs = login.ledger.passkeys.list(session.name, "login") if session is not None else ()
    return next((each.credential for each in theirs if each.credential == wanted), "")


def _page(
    request: Request,
    status: int = 200,
    *,
    fields: Mapping[str, str] | None = None,
    problems: Mapping[str, str] | None = None,
    made: KeptToken | None = None,
    secret: str = "",
) -> Response:
    login, identity = login_of(request), identity_of(request)
    kind, name, session = login.settings.login, identity.viewer.name, identity.session
    ledger = login.ledger if kind != "none" else None
    everybody = rules_everything(identity.viewer)
    longest = int(login.settings.token_days)
    highest = highest_role(identity.viewer)
    return render(
        request,
        "account.html",
        status=status,
        kind=kind,
        csrf=identity.token,
        groups=identity.groups,
        at=_at,
        session=session,
        sessions=login.sessions.list_of(name) if session is not None else (),
        takes_passkeys=login.takes_passkeys and session is not None,
        passkeys=ledger.passkeys.list(name, "login") if ledger is not None else (),
        signing=ledger.passkeys.list(name, "signing") if ledger is not None else (),
        tokens=login.tokens.list("" if everybody else name) if ledger is not None else (),
        expired=login.now().timestamp(),
        everybody=everybody,
        roles=ROLES[: ROLES.index(highest) + 1] if highest is not None else (),
        longest=longest,
        days=min(_DAYS, longest),
        fields=fields or {},
        problems=problems or {},
        made=made,
        secret=secret,
    )


def _nothing_here(request: Request) -> Response:
    return error_page(
        request, 404, title="There is nothing of that kind here", text="This console's kind of login has none."
    )


def _at(seconds: float | None) -> datetime | None:
    """Return a time of the ledger."""
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None


__all__ = ["ACCOUNT", "routes"]
