"""The pages of a person's own passkeys that sign: the list, a new one, and what operators distribute."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from deploykit.errors import ActionRefused
from deploykit.web.actions.shown import ProposalShown
from deploykit.web.pages.filters import path_of
from deploykit.web.pages.render import render
from deploykit.web.requests import context_of, fields_of, viewer_of
from deploykit.web.signing.desk import SigningDesk
from deploykit.web.signing.offers import SigningOffer

_PARTS = ("account", "signing")


def routes() -> list[BaseRoute]:
    """Return the routes of these pages."""
    return [
        Route("/account/signing", show_keys, methods=["GET"]),
        Route("/account/signing/new", show_new, methods=["GET"]),
        Route("/account/signing/new", enrol, methods=["POST"]),
        Route("/account/signing/remove", remove, methods=["POST"]),
        Route("/account/signing/{credential}", show_key, methods=["GET"]),
    ]


def offer_of(request: Request, proposal: ProposalShown) -> SigningOffer | None:
    """Return what a passkey of the viewer needs to sign a proposal, for the template `passkeysign.html`; None: nothing.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    desk, viewer = context_of(request).signing, viewer_of(request)
    if desk is None or not viewer.may(proposal.site, "stage"):
        return None
    return desk.offer(viewer, proposal, _address(request))


def show_keys(request: Request) -> Response:
    """Return the viewer's signing keys, and the form for another one."""
    return _list(request)


def show_new(request: Request) -> Response:
    """Return the page that makes a passkey, here or by a link to the page where people sign."""
    query, viewer = request.query_params, viewer_of(request)
    sites, principal = query.get("sites", ""), query.get("principal", "")
    try:
        begun = _desk(request).begin(viewer, sites, principal, _address(request))
    except ActionRefused as error:
        return _list(request, error, sites=sites, principal=principal)
    wanted, place = begun.wanted, begun.place
    asked = {"enrol": begun.challenge, "sites": wanted.sites, "who": wanted.who, "principal": wanted.principal}
    link = f"{place.origin}/#{urlencode(asked)}" if place.elsewhere else ""
    return render(request, "signingnew.html", begun=begun, link=link)


def enrol(request: Request) -> Response:
    """Keep the passkey that the browser has made, and show what operators distribute."""
    try:
        kept = _desk(request).finish(viewer_of(request), fields_of(request).get("registration", ""), _address(request))
    except ActionRefused as error:
        return _list(request, error)
    return _go(request, kept.credential)


def show_key(request: Request) -> Response:
    """Return a signing key, with the line and the settings for the operators."""
    credential = str(request.path_params["credential"])
    key = _desk(request).key(viewer_of(request), credential, _address(request))
    if key is None:
        raise ActionRefused("there is no such signing key of yours", "see the list", status=404)
    return render(request, "signingkey.html", key=key)


def remove(request: Request) -> Response:
    """Forget a signing key."""
    try:
        _desk(request).remove(viewer_of(request), fields_of(request).get("credential", ""))
    except ActionRefused as error:
        return _list(request, error)
    return _go(request)


def _list(request: Request, refused: ActionRefused | None = None, *, sites: str = "", principal: str = "") -> Response:
    viewer, desk = viewer_of(request), _desk(request)
    address = _address(request)
    return render(
        request,
        "signingkeys.html",
        status=refused.status if refused is not None else 200,
        keys=desk.keys(viewer, address),
        place=desk.place(address),
        may=any(grant.role != "look" for grant in viewer.grants),
        sites=sites[:200],
        principal=principal[:255] or viewer.name,
        refused=refused,
    )


def _go(request: Request, *more: str) -> Response:
    base = str(request.scope.get("root_path", "")).rstrip("/")
    return RedirectResponse(path_of(base, (*_PARTS, *more), {}), 303)


def _desk(request: Request) -> SigningDesk:
    desk = context_of(request).signing
    if desk is None:
        raise ActionRefused("this console only shows", "sign by the command line: deploykit approve", status=404)
    return desk


def _address(request: Request) -> str:
    return f"{request.url.scheme}://{request.headers.get('host', '')}"


__all__ = ["offer_of", "routes"]
