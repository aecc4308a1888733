"""`/login/passkey` and `/invite/CODE`: logging in by a passkey, and making the first one. They need our script.

An invitation is looked at as often as one likes, and used up by the passkey that is made with it: programs that look at
links in messages spoil none.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from deploykit.web.login.credentials import set_cookie
from deploykit.web.login.failures import IdentityError
from deploykit.web.login.forms import safe_next
from deploykit.web.login.middleware import INVITE, LOGIN, base_of
from deploykit.web.login.refusals import AccessRefusal
from deploykit.web.login.requested import (
    as_json,
    go_to,
    identity_of,
    json_refusal,
    login_of,
    passkeys_of,
    peer_of_request,
    step_refused,
)
from deploykit.web.pages.errors import error_page
from deploykit.web.pages.render import render
from deploykit.web.requests import fields_of

if TYPE_CHECKING:
    from deploykit.web.login.passkeys import PasskeyStep

PASSKEY = f"{LOGIN}/passkey"


def routes() -> list[BaseRoute]:
    """Return the routes of passkeys for those who are not logged in."""
    return [
        Route(PASSKEY, options, methods=["GET"]),
        Route(PASSKEY, log_in, methods=["POST"]),
        Route(f"{INVITE}/{{code}}", show_invitation, methods=["GET"]),
        Route(f"{INVITE}/{{code}}", use_invitation, methods=["POST"]),
    ]


async def options(request: Request) -> Response:
    """Return what the browser is asked for."""
    login = login_of(request)
    if not login.takes_passkeys:
        return go_to(request, LOGIN)
    if (refused := await step_refused(request)) is not None:
        return json_refusal(refused)
    return step_answer(await run_in_threadpool(passkeys_of(login).begin_login))


async def log_in(request: Request) -> Response:
    """Begin a session for whose passkey has answered."""
    login, fields = login_of(request), fields_of(request)
    if not login.takes_passkeys:
        return json_refusal(AccessRefusal(status=404, detail="This console has no login by passkey."))
    if (refused := await step_refused(request)) is not None:
        return json_refusal(refused)
    passkeys = passkeys_of(login)
    try:
        passkey = await run_in_threadpool(passkeys.log_in, fields.get("id", ""), fields.get("answer", ""))
        if not login.proof(passkey.name, "passkey", passkey.credential):
            raise IdentityError("there is nobody of this passkey's name any more", "ask who looks after the console")
    except IdentityError as error:
        return await not_counted(request, error)
    return await _logged_in(
        request, passkey.name, passkey.credential, passkey.label, safe_next(fields.get("next", "/"))
    )


async def show_invitation(request: Request) -> Response:
    """Show whom an invitation is for, and the button that makes the passkey."""
    if (refused := await step_refused(request)) is not None:
        return _page_refusal(request, refused)
    name = await run_in_threadpool(_invited, request)
    if not name:
        peer = peer_of_request(request)
        await login_of(request).notes.refused("invitation", f"a link that does not count, from {peer}")
        return error_page(
            request,
            404,
            title="This invitation does not count",
            text="It was used, is older than a day, or was never made. Ask for another: deploykit web invite NAME.",
        )
    return render(request, "invite.html", name=name)


async def use_invitation(request: Request) -> Response:
    """Make the passkey in two steps, and begin a session."""
    if (refused := await step_refused(request)) is not None:
        return json_refusal(refused)
    login, fields, code = login_of(request), fields_of(request), str(request.path_params["code"])
    name = await run_in_threadpool(_invited, request)
    passkeys = passkeys_of(login)
    try:
        if not name:
            raise IdentityError("this invitation was used or is over", "ask for another")
        if fields.get("step") == "begin":
            return step_answer(await run_in_threadpool(passkeys.begin_adding, name, "invite"))
        passkey = await run_in_threadpool(
            lambda: passkeys.made(
                fields.get("id", ""), fields.get("answer", ""), name=name, key="invite", label=fields.get("label", "")
            )
        )
        await run_in_threadpool(passkeys.keep, passkey, code)
    except IdentityError as error:
        return await not_counted(request, error)
    peer = peer_of_request(request)
    await login.notes.done("passkey", f"{passkey.label!a} made by an invitation, from {peer}", who=name)
    return await _logged_in(request, name, passkey.credential, passkey.label, "/")


async def _logged_in(request: Request, name: str, credential: str, label: str, wanted: str) -> Response:
    login = login_of(request)
    id_ = await login.begin_session(name, identity_of(request).session, login="passkey", credential=credential)
    await login.notes.done("login", f"by the passkey {label!a}, from {peer_of_request(request)}", who=name)
    answer = as_json({"next": base_of(request.scope) + wanted})
    answer.headers.append("set-cookie", set_cookie(id_, secure=login.hosts.secure))
    return answer


def step_answer(step: PasskeyStep) -> Response:
    """Return the first step, for our script."""
    return as_json({"id": step.id, "options": json.loads(step.options)})


async def not_counted(request: Request, error: IdentityError) -> Response:
    """Return why a passkey does not count, for our script; the audit has it first."""
    peer = peer_of_request(request)
    who = identity_of(request).viewer.name
    await login_of(request).notes.refused("passkey", f"{error.problem}, from {peer}", who=who)
    return json_refusal(AccessRefusal(status=error.status, detail=f"{error}."[:1].upper() + f"{error}."[1:]))


def _invited(request: Request) -> str:
    login = login_of(request)
    return passkeys_of(login).invited(str(request.path_params["code"])) if login.takes_passkeys else ""


def _page_refusal(request: Request, refused: AccessRefusal) -> Response:
    answer = error_page(request, refused.status, title=refused.title, text=refused.detail)
    answer.headers.update(dict(refused.headers))
    return answer


__all__ = ["PASSKEY", "not_counted", "routes", "step_answer"]
