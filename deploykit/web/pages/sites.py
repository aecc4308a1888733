"""A site: what is live on each node, who holds it, what was done to it."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from deploykit.web.pages.errors import not_found
from deploykit.web.pages.render import render
from deploykit.web.projection.views import PageRequested
from deploykit.web.requests import context_of, page_of, viewer_of

#: Rollouts and operations beside the nodes.
LATEST: Final = 5


def site(request: Request) -> Response:
    """Return the page of a site."""
    queries, viewer = context_of(request).queries, viewer_of(request)
    name = str(request.path_params["site"])
    found = queries.site(viewer, name)
    if found is None:
        return not_found(request, "site", name)
    actions = context_of(request).actions
    stages = actions is not None and viewer.may(name, "stage")
    return render(
        request,
        "site.html",
        site=found,
        may_stage=stages,
        may_live=stages and viewer.may(name, "live"),
        waiting=len(actions.rollouts.proposals(viewer, name)) if actions is not None and stages else 0,
        page=queries.site_nodes(viewer, name, page_of(request)),
        rollouts=queries.rollouts(viewer, name, PageRequested(limit=LATEST)).items,
        audit=queries.audit(viewer, name, PageRequested(limit=LATEST)).items,
    )
