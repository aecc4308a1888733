"""The page of a site's lock: who holds it and why; lock and unlock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from deploykit.errors import DeploykitError
from deploykit.web.actions.asked import LockAsked
from deploykit.web.pages.acting import RefusalShown, acting_site, go, refusal_of, wait_until_heard
from deploykit.web.pages.outcomes import outcome_of
from deploykit.web.pages.render import render
from deploykit.web.requests import actions_of, context_of, fields_of, viewer_of

#: How long a lock may last, as a form offers it: what is sent, and the words.
SPANS: Final[Mapping[str, str]] = {
    "1h": "an hour",
    "4h": "4 hours",
    "1d": "a day",
    "3d": "3 days",
    "7d": "a week",
}
#: Characters of a reason.
_MOST: Final = 1000


def lock_form(request: Request) -> Response:
    """Return who holds the lock, and the form."""
    return _page(request, {"span": "1d", "allow_rollback": "yes"})


def lock(request: Request) -> Response:
    """Lock the site."""
    fields, site = fields_of(request), str(request.path_params["site"])
    asked = LockAsked(
        site=site,
        reason=fields.get("reason", "").strip(),
        until=fields.get("until", "").strip() or fields.get("span", ""),
        allow_rollback=bool(fields.get("allow_rollback")),
    )
    if len(asked.reason) > _MOST or len(asked.until) > _MOST:
        return _page(request, fields, RefusalShown(problem="That is too long.", fields={"reason": "too long"}))
    try:
        outcome = actions_of(request).locks.lock(viewer_of(request), asked)
    except DeploykitError as error:
        return _page(request, fields, refusal_of(error))
    _wait(request, site, locked=True)
    return go(request, "sites", site, "lock", outcome=outcome)


def unlock(request: Request) -> Response:
    """Lift the lock."""
    fields, site = fields_of(request), str(request.path_params["site"])
    try:
        outcome = actions_of(request).locks.unlock(viewer_of(request), site, fields.get("reason", "").strip()[:_MOST])
    except DeploykitError as error:
        return _page(request, {"span": "1d", "allow_rollback": "yes"}, refusal_of(error))
    _wait(request, site, locked=False)
    return go(request, "sites", site, "lock", outcome=outcome)


def _wait(request: Request, site: str, *, locked: bool) -> None:
    queries, viewer = context_of(request).queries, viewer_of(request)
    wait_until_heard(lambda: (found := queries.site(viewer, site)) is None or (found.lock is not None) == locked)


def _page(request: Request, values: Mapping[str, str], refusal: RefusalShown | None = None) -> Response:
    return render(
        request,
        "lock.html",
        status=refusal.status if refusal is not None else 200,
        act=acting_site(request, "lock", what="lock a site"),
        values=values,
        spans=SPANS,
        refusal=refusal,
        done=outcome_of(request),
    )


def routes() -> list[BaseRoute]:
    """Return the routes of this page."""
    return [
        Route("/sites/{site}/lock", lock_form, methods=["GET"]),
        Route("/sites/{site}/lock", lock, methods=["POST"]),
        Route("/sites/{site}/unlock", unlock, methods=["POST"]),
    ]


__all__ = ["SPANS", "routes"]
