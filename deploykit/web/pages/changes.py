"""The pages of differences: a site against a chosen ref, and two operations of its history; and the history itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from deploykit.names import OBJECT_ID_PATTERN
from deploykit.web.context import ConsoleContext
from deploykit.web.pages.comparing import Comparisons
from deploykit.web.pages.errors import error_page, not_found
from deploykit.web.pages.render import render
from deploykit.web.projection.rolloutviews import HistoryView
from deploykit.web.projection.views import PageRequested
from deploykit.web.requests import context_of, page_of, viewer_of
from deploykit.web.viewer import Viewer

_ID: Final = re.compile(OBJECT_ID_PATTERN)
#: Refs that the form of a difference proposes.
_PROPOSED: Final = 100
#: In the place of an operation: what is live now on the node of the other one.
LIVE: Final = "live"


@attrs.frozen(kw_only=True, slots=True)
class DiffSide:
    """One side of a difference, as its page names it."""

    title: str
    ref: str = ""
    commit: str = ""
    operation: HistoryView | None = None


class ChangePages:
    """The views that compare; they share what was compared before."""

    def __init__(self, comparisons: Comparisons | None = None) -> None:
        self._comparisons = comparisons or Comparisons()

    def site_diff(self, request: Request) -> Response:
        """Return what lies between `?from=` (what is live, if absent) and `?to=` of a site's repository."""
        context, viewer = context_of(request), viewer_of(request)
        name = str(request.path_params["site"])
        site = context.queries.site(viewer, name)
        if site is None:
            return not_found(request, "site", name)
        old, new = (request.query_params.get(key, "").strip()[:1100] for key in ("from", "to"))
        refs = context.queries.refs(viewer, site.repo, PageRequested(limit=_PROPOSED)).items if site.repo else ()
        outcome = None
        if new:
            outcome = self._comparisons.between(context.settings, site.repo, old or site.commit, new)
        live = DiffSide(title="Live", ref=site.ref, commit=site.commit)
        return render(
            request,
            "diff.html",
            site=site,
            refs=refs,
            sides=(_named("From", old) if old else live, _named("To", new)),
            asked=(old, new),
            outcome=outcome,
        )

    def history_diff(self, request: Request) -> Response:
        """Return what lies between two operations of a site: `?site=&from=NODE:NUMBER&to=NODE:NUMBER|live`."""
        context, viewer = context_of(request), viewer_of(request)
        query = request.query_params
        name, old_id, new_id = (query.get(key, "")[:600] for key in ("site", "from", "to"))
        if not name or not old_id or not new_id:
            return error_page(request, 400, text="Choose a site, and two operations of its history.")
        site = context.queries.site(viewer, name)
        if site is None:
            return not_found(request, "site", name)
        sides = []
        for title, id, other in (("From", old_id, new_id), ("To", new_id, old_id)):
            side = _side(context, viewer, name, title, id, other)
            if side is None:
                return not_found(request, "operation", id)
            sides.append(side)
        outcome = self._comparisons.between(context.settings, site.repo, sides[0].commit, sides[1].commit)
        return render(
            request, "diff.html", site=site, refs=(), sides=tuple(sides), asked=(old_id, new_id), outcome=outcome
        )

    def routes(self) -> list[BaseRoute]:
        """Return the routes of these pages."""
        return [
            Route("/sites/{site}/diff", self.site_diff, name="site-diff"),
            Route("/history", history, name="history"),
            Route("/history/diff", self.history_diff, name="history-diff"),
        ]


def history(request: Request) -> Response:
    """Return what was done to sites, newest first; of one site with `?site=`, on one node with `?node=`."""
    context, viewer = context_of(request), viewer_of(request)
    site, node = (request.query_params.get(key, "")[:255] for key in ("site", "node"))
    found = context.queries.history(viewer, site, node, page_of(request, limit=50))
    sites = tuple(one.site for one in context.queries.sites(viewer))
    before = _before(found.items)
    return render(request, "history.html", site=site, node=node, sites=sites, entries=found, before=before)


def _named(title: str, name: str) -> DiffSide:
    """Return the side that a ref or the id of a commit names."""
    return DiffSide(title=title, commit=name) if _ID.fullmatch(name) else DiffSide(title=title, ref=name)


def _side(context: ConsoleContext, viewer: Viewer, site: str, title: str, id: str, other: str) -> DiffSide | None:
    if id != LIVE:
        operation = context.queries.operation(viewer, site, id)
        if operation is None:
            return None
        return DiffSide(title=title, ref=operation.ref, commit=operation.commit, operation=operation)
    node = context.queries.node(viewer, other.rpartition(":")[0])
    for held in node.sites if node else ():
        if held.site == site:
            return DiffSide(title=f"Live on {held.node}", ref=held.ref, commit=held.commit)
    return None


def _before(entries: Sequence[HistoryView]) -> dict[tuple[str, str], str]:
    """Return, by site and operation, the one before it on the same node that made another commit live, if listed."""
    found: dict[tuple[str, str], str] = {}
    for at, entry in enumerate(entries):
        for older in entries[at + 1 :] if entry.commit else ():
            same_place = (older.site, older.node) == (entry.site, entry.node)
            if same_place and older.outcome == "success" and older.commit not in ("", entry.commit):
                found[entry.site, entry.id] = older.id
                break
    return found


def routes() -> list[BaseRoute]:
    """Return the routes of these pages."""
    return ChangePages().routes()


__all__ = ["LIVE", "ChangePages", "DiffSide", "history", "routes"]
