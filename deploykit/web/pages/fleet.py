"""The fleet: what is live where, a row for each node and a column for each site."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs
from starlette.requests import Request
from starlette.responses import Response

from deploykit.web.pages.render import render
from deploykit.web.projection.views import NodeSummary, SiteOnNode, SiteSummary
from deploykit.web.requests import context_of, page_of, viewer_of

#: Nodes and sites of one page: as much as a person can read, and a browser lays out at once.
NODES: Final = 50
COLUMNS: Final = 12


@attrs.frozen(slots=True)
class FleetRow:
    """A node, and each column's site on it; None where the site is not there."""

    node: NodeSummary
    cells: tuple[SiteOnNode | None, ...]


def fleet_rows(nodes: Sequence[NodeSummary], sites: Sequence[SiteSummary]) -> tuple[FleetRow, ...]:
    """Return a row for each node, with a cell for each site."""
    rows = []
    for node in nodes:
        held = {one.site: one for one in node.sites}
        rows.append(FleetRow(node, tuple(held.get(site.site) for site in sites)))
    return tuple(rows)


def columns(
    sites: Sequence[SiteSummary], search: str, after: str, limit: int = COLUMNS
) -> tuple[tuple[SiteSummary, ...], str]:
    """Return the sites that are columns, and after which one the next page of them begins; empty for the last.

    Args:
        search: a text that the names must contain, whatever the case.
        after: the last site of the page before.
    """
    found = [site for site in sites if search.lower() in site.site.lower() and site.site > after]
    return tuple(found[:limit]), found[limit - 1].site if len(found) > limit else ""


def fleet(request: Request) -> Response:
    """Return a page of the fleet."""
    queries, viewer = context_of(request).queries, viewer_of(request)
    asked = request.query_params
    sites = queries.sites(viewer)
    shown, more = columns(sites, asked.get("sites", "")[:100], asked.get("after_site", "")[:500])
    page = queries.nodes(viewer, page_of(request, limit=NODES))
    return render(
        request,
        "fleet.html",
        sites=shown,
        site_count=len(sites),
        more_sites=more,
        page=page,
        rows=fleet_rows(page.items, shown),
    )
