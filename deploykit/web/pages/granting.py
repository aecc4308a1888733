"""The page of access to protected sites: who may see what until when; grant, extend, revoke.

A password is on the page to which the form that asked for it leads, once and for that login alone. It is made by no
GET, and by no page that is loaded again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from deploykit.errors import ActionRefused, DeploykitError
from deploykit.web.actions.asked import GrantAsked
from deploykit.web.actions.shown import AccessGranted
from deploykit.web.pages.acting import RefusalShown, go, refusal_of
from deploykit.web.pages.confirming import ConfirmPage, confirm
from deploykit.web.pages.outcomes import outcome_of
from deploykit.web.pages.render import render
from deploykit.web.pages.shownonce import SHOWN_ONCE, login_of
from deploykit.web.requests import actions_of, fields_of, viewer_of

#: How long an access may last, as the form offers it; empty: what nodes take as usual.
SPANS_OF_ACCESS: Final[Mapping[str, str]] = {
    "": "as usual",
    "1d": "a day",
    "7d": "a week",
    "30d": "30 days",
    "90d": "90 days",
}
_MOST: Final = 300


def access(request: Request) -> Response:
    """Return who may see which site, and the form."""
    query = request.query_params
    values = {name: query.get(name, "")[:_MOST] for name in ("site", "user")}
    return _page(request, values, site=values["site"])


def grant(request: Request) -> Response:
    """Make a password and ask nodes to let it in; the answer leads to the page that shows it."""
    fields = fields_of(request)
    try:
        granted = actions_of(request).access.grant(viewer_of(request), _asked(fields))
    except DeploykitError as error:
        return _page(request, fields, refusal=refusal_of(error))
    return go(request, "access", "password", SHOWN_ONCE.keep(login_of(request), granted))


def password(request: Request) -> Response:
    """Return the page of a password that was just made, this once."""
    if request.method == "HEAD":
        return Response(headers={"Cache-Control": "no-store"})  # it must not count as shown
    granted = SHOWN_ONCE.take(login_of(request), str(request.path_params["id"]))
    if granted is None:
        raise ActionRefused(
            "a password is shown once, for a minute after it was made, by the console that made it",
            "it is in force: where nobody has it, make a new one on the page of access",
            status=410,
        )
    return _granted(request, granted)


def extend(request: Request) -> Response:
    """Move the end of an access."""
    fields = fields_of(request)
    try:
        outcome = actions_of(request).access.extend(viewer_of(request), _asked(fields))
    except DeploykitError as error:
        return _page(request, fields, refusal=refusal_of(error))
    return go(request, "access", outcome=outcome)


def ask_revocation(request: Request) -> Response:
    """Return the page on which somebody confirms that an access shall end."""
    site, user = (request.query_params.get(name, "")[:_MOST] for name in ("site", "user"))
    if not site or not user:
        raise ActionRefused("it is not said whose access to which site", "choose one of the list", status=422)
    viewer_sites = actions_of(request).access.sites(viewer_of(request))
    if site not in viewer_sites:
        raise ActionRefused(f"there is no protected site {site[:80]!a}", "see the list", status=404)
    return confirm(
        request,
        ConfirmPage(
            title=f"End the access of {user} to {site}",
            facts=("Nodes are asked to take the password out.", "To let them in again, a new password is made."),
            button=f"Keep {user} out",
            fields={"site": site, "user": user},
            to=("access", "revoke"),
            back=("access",),
        ),
    )


def revoke(request: Request) -> Response:
    """End an access."""
    asked = _asked(fields_of(request))
    outcome = actions_of(request).access.revoke(viewer_of(request), asked.site, asked.user)
    return go(request, "access", outcome=outcome)


def _asked(fields: Mapping[str, str]) -> GrantAsked:
    site, user, until, span = (fields.get(name, "").strip()[:_MOST] for name in ("site", "user", "until", "span"))
    return GrantAsked(site=site, user=user, until=until or span)


def _page(
    request: Request, values: Mapping[str, str], *, site: str = "", refusal: RefusalShown | None = None
) -> Response:
    viewer, actions = viewer_of(request), actions_of(request).access
    sites = actions.sites(viewer)
    if not sites and not viewer.may_somewhere("live"):
        raise ActionRefused("you may not grant access to any site", "[[web.access]] gives the role live")
    return render(
        request,
        "access.html",
        status=refusal.status if refusal is not None else 200,
        sites=sites,
        rows=actions.list(viewer, site if site in sites else ""),
        values=values,
        spans=SPANS_OF_ACCESS,
        refusal=refusal,
        done=outcome_of(request),
    )


def _granted(request: Request, granted: AccessGranted) -> Response:
    rows = actions_of(request).access.list(viewer_of(request), granted.row.site)
    return render(request, "granted.html", row=granted.row, password=granted.password, rows=rows)


def routes() -> list[BaseRoute]:
    """Return the routes of these pages."""
    return [
        Route("/access", access, methods=["GET"]),
        Route("/access", grant, methods=["POST"]),
        Route("/access/password/{id}", password, methods=["GET"]),
        Route("/access/extend", extend, methods=["POST"]),
        Route("/access/revoke", ask_revocation, methods=["GET"]),
        Route("/access/revoke", revoke, methods=["POST"]),
    ]


__all__ = ["SPANS_OF_ACCESS", "routes"]
