"""The first page: is something wrong, what changed last, by whom; then every site."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from deploykit.web.pages.filters import path_of
from deploykit.web.pages.headline import headline, problem_tone
from deploykit.web.pages.render import render
from deploykit.web.projection.views import PageRequested, SiteSummary
from deploykit.web.requests import context_of, viewer_of

#: Problems and changes on the first page.
MOST_PROBLEMS: Final = 12
MOST_CHANGES: Final = 8
#: Kinds of problems that the lines above every page tell.
ABOVE: Final = frozenset({"broker", "database", "distrust"})
#: Sites on the first page; the fleet page shows the rest.
MOST_SITES: Final = 40


def overview(request: Request) -> Response:
    """Return the first page."""
    queries, viewer = context_of(request).queries, viewer_of(request)
    sites = queries.sites(viewer)
    found = queries.problems(viewer, MOST_PROBLEMS + len(ABOVE))
    problems = [one for one in found if one.kind not in ABOVE][:MOST_PROBLEMS]
    count = queries.nodes(viewer, PageRequested(limit=1)).total
    return render(
        request,
        "overview.html",
        headline=headline(problems, queries.health(viewer), len(sites), count, MOST_PROBLEMS),
        problems=[(one, problem_tone(one)) for one in problems],
        changes=queries.changes(viewer, MOST_CHANGES),
        sites=shown_sites(sites, MOST_SITES),
        site_count=len(sites),
        waiting=waiting_count(request),
    )


def waiting_count(request: Request) -> int:
    """Return how many rollouts wait for people, of those that a viewer may sign."""
    actions, viewer = context_of(request).actions, viewer_of(request)
    if actions is None or not viewer.may_somewhere("stage"):
        return 0
    return sum(1 for one in actions.rollouts.proposals(viewer) if viewer.may(one.site, "stage"))


def shown_sites(sites: tuple[SiteSummary, ...], limit: int) -> tuple[SiteSummary, ...]:
    """Return so many sites by name; where there are more, those in which nodes differ or fail come first."""
    if len(sites) <= limit:
        return sites
    uneasy = [site for site in sites if set(site.counts) - {"current"}]
    chosen = [*uneasy, *(site for site in sites if not set(site.counts) - {"current"})][:limit]
    return tuple(sorted(chosen, key=lambda site: site.site))


def find(request: Request) -> Response:
    """Return a redirect to what a person looks for: a site or a node of just this name, or the fleet filtered."""
    queries, viewer = context_of(request).queries, viewer_of(request)
    wanted = request.query_params.get("q", "").strip()[:100]
    base = str(request.scope.get("root_path", "")).rstrip("/")
    if wanted and queries.site(viewer, wanted) is not None:
        target = path_of(base, ("sites", wanted), {})
    elif wanted and queries.node(viewer, wanted) is not None:
        target = path_of(base, ("nodes", wanted), {})
    elif wanted in queries.repositories(viewer):
        target = path_of(base, ("refs", wanted), {})
    elif any(wanted.lower() in site.site.lower() for site in queries.sites(viewer)) and not (
        queries.nodes(viewer, PageRequested(limit=1, search=wanted)).items
    ):
        target = path_of(base, ("fleet",), {"sites": wanted})
    else:
        target = path_of(base, ("fleet",), {"q": wanted})
    return RedirectResponse(target, status_code=303)


def all_sites(request: Request) -> Response:
    """Return a redirect to the fleet: `/sites` is what people type."""
    base = str(request.scope.get("root_path", "")).rstrip("/")
    return RedirectResponse(path_of(base, ("fleet",), {}), status_code=303)
