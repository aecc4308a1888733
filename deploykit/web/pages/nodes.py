"""Nodes: who was heard when, and what one of them holds."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from deploykit.web.pages.errors import not_found
from deploykit.web.pages.render import render
from deploykit.web.pages.words import worst
from deploykit.web.projection.views import NodeSummary
from deploykit.web.requests import context_of, page_of, viewer_of


def site_counts(node: NodeSummary) -> dict[str, int]:
    """Return how many sites of a node stand how."""
    counts: dict[str, int] = {}
    for one in node.sites:
        counts[one.standing] = counts.get(one.standing, 0) + 1
    return counts


def nodes(request: Request) -> Response:
    """Return a page of the list of nodes."""
    page = context_of(request).queries.nodes(viewer_of(request), page_of(request))
    return render(request, "nodes.html", page=page, counts={one.node: site_counts(one) for one in page.items})


def node(request: Request) -> Response:
    """Return the page of a node."""
    queries, viewer = context_of(request).queries, viewer_of(request)
    name = str(request.path_params["node"])
    found = queries.node(viewer, name)
    if found is None:
        return not_found(request, "node", name)
    return render(
        request,
        "node.html",
        node=found,
        tone=worst(one.standing for one in found.sites),
        mirrors=queries.node_mirrors(viewer, name, page_of(request, limit=20)),
    )
