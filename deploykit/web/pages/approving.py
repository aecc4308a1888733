"""The pages of rollouts that wait for people: the list, and one with what its bytes say and who has signed."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from deploykit.errors import ActionRefused, DeploykitError
from deploykit.web.actions.rights import require
from deploykit.web.pages.acting import RefusalShown, go, refusal_of
from deploykit.web.pages.confirming import ConfirmPage, confirm
from deploykit.web.pages.filters import counted, ref_words
from deploykit.web.pages.outcomes import outcome_of
from deploykit.web.pages.render import render
from deploykit.web.projection.views import PageRequested
from deploykit.web.requests import actions_of, context_of, fields_of, viewer_of
from deploykit.web.rolloutlookup import find_rollout
from deploykit.web.signing.views import offer_of

#: Rollouts that wait, in the list.
_LISTED: Final = 100


def approvals(request: Request) -> Response:
    """Return the list of rollouts that wait for people."""
    viewer, actions = viewer_of(request), actions_of(request)
    waiting = actions.rollouts.proposals(viewer, request.query_params.get("site", "")[:255])
    return render(request, "approvals.html", waiting=waiting[:_LISTED], count=len(waiting), done=outcome_of(request))


def approve(request: Request) -> Response:
    """Return what the bytes say, who has signed, what is missing, and how to sign."""
    return _page(request)


def sign(request: Request) -> Response:
    """Add a signature that was made elsewhere."""
    id_ = str(request.path_params["id"])
    signature = "".join(fields_of(request).get("signature", "").split())
    if not signature:
        fields = {"signature": "paste the signature, or use one of the ways above"}
        return _page(request, RefusalShown(problem="There is no signature.", fields=fields))
    try:
        outcome = actions_of(request).rollouts.sign(viewer_of(request), id_, signature)
    except DeploykitError as error:
        return _page(request, refusal_of(error))
    where = () if outcome.state == "started" else ("approve",)
    return go(request, "deploys", id_, *where, outcome=outcome)


def ask_withdrawal(request: Request) -> Response:
    """Return the page on which somebody confirms that a rollout shall not wait any longer."""
    id_ = str(request.path_params["id"])
    found = actions_of(request).rollouts.proposal(viewer_of(request), id_)
    if found is None:
        raise _nothing_waits(id_)
    require(viewer_of(request), found.site, "stage", "withdraw a proposal")
    signed = f"{counted(len(found.signatures), 'signature')} will be of no use." if found.signatures else ""
    return confirm(
        request,
        ConfirmPage(
            title=f"Withdraw the {found.kind} of {ref_words(found.ref) or found.site}",
            facts=tuple(fact for fact in ("Nothing was sent to any node, and nothing will be.", signed) if fact),
            button="Withdraw it",
            to=("deploys", id_, "withdraw"),
            back=("deploys", id_, "approve"),
            site=found.site,
        ),
    )


def withdraw(request: Request) -> Response:
    """Remove a rollout that waits."""
    id_ = str(request.path_params["id"])
    outcome = actions_of(request).rollouts.withdraw(viewer_of(request), id_)
    return go(request, "approvals", outcome=outcome)


def _page(request: Request, refusal: RefusalShown | None = None) -> Response:
    viewer, id_ = viewer_of(request), str(request.path_params["id"])
    found = actions_of(request).rollouts.proposal(viewer, id_)
    if found is None:
        if find_rollout(context_of(request), viewer, id_, PageRequested(limit=1)) is not None:
            return go(request, "deploys", id_)  # it has begun
        raise _nothing_waits(id_)
    return render(
        request,
        "approve.html",
        status=refusal.status if refusal is not None else 200,
        one=found,
        digest=_digest(found.body),
        signs=viewer.may(found.site, "stage"),
        refusal=refusal,
        done=outcome_of(request),
        signing=offer_of(request, found),
    )


def _nothing_waits(id_: str) -> ActionRefused:
    return ActionRefused(
        f"no rollout {id_[:80]!a} waits for people", "it was withdrawn, has begun, or it is too late for it", status=404
    )


def _digest(body: str) -> str:
    """Return the SHA-256 of the bytes to sign, for whoever compares it elsewhere; empty where they are none."""
    try:
        return hashlib.sha256(base64.b64decode(body, validate=True)).hexdigest()
    except (binascii.Error, ValueError):
        return ""


def routes() -> list[BaseRoute]:
    """Return the routes of these pages."""
    return [
        Route("/approvals", approvals, methods=["GET"]),
        Route("/deploys/{id}/approve", approve, methods=["GET"]),
        Route("/deploys/{id}/approve", sign, methods=["POST"]),
        Route("/deploys/{id}/withdraw", ask_withdrawal, methods=["GET"]),
        Route("/deploys/{id}/withdraw", withdraw, methods=["POST"]),
    ]


__all__ = ["routes"]
