"""The pages of what was heard: repositories and their refs, pushes, builds, notices, and the audit."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from deploykit.web.pages.errors import not_found
from deploykit.web.pages.render import render
from deploykit.web.requests import context_of, page_of, viewer_of


def repositories(request: Request) -> Response:
    """Return the list of repositories."""
    context, viewer = context_of(request), viewer_of(request)
    sites: dict[str, list[str]] = {}
    for site in context.queries.sites(viewer):
        sites.setdefault(site.repo, []).append(site.site)
    found = context.queries.repositories(viewer)
    return render(request, "repositories.html", repositories=found, sites=sites)


def refs(request: Request) -> Response:
    """Return the refs of a repository; those that not every node holds are marked."""
    context, viewer = context_of(request), viewer_of(request)
    repo = str(request.path_params["repo"])
    if repo not in context.queries.repositories(viewer):
        return not_found(request, "repository", repo)
    found = context.queries.refs(viewer, repo, page_of(request))
    sites = tuple(site.site for site in context.queries.sites(viewer) if site.repo == repo)
    deploys = tuple(one for one in sites if context.actions is not None and viewer.may(one, "stage"))
    return render(request, "refs.html", repo=repo, refs=found, sites=sites, deploys=deploys)


def pushes(request: Request) -> Response:
    """Return pushes, newest first; of one repository with `?repo=`."""
    context, viewer = context_of(request), viewer_of(request)
    repo = request.query_params.get("repo", "")[:255]
    found = context.queries.pushes(viewer, repo, page_of(request, limit=50))
    names = context.queries.repositories(viewer)
    return render(request, "pushes.html", repo=repo, repositories=names, pushes=found)


def builds(request: Request) -> Response:
    """Return builds, newest first; of one repository with `?repo=`."""
    context, viewer = context_of(request), viewer_of(request)
    repo = request.query_params.get("repo", "")[:255]
    found = context.queries.builds(viewer, repo, page_of(request, limit=50))
    names = context.queries.repositories(viewer)
    return render(request, "builds.html", repo=repo, repositories=names, builds=found)


def notices(request: Request) -> Response:
    """Return lines for people, newest first."""
    context, viewer = context_of(request), viewer_of(request)
    found = context.queries.notices(viewer, page_of(request))
    return render(request, "notices.html", notices=found)


def audit(request: Request) -> Response:
    """Return who asked for what and what was decided, newest first; of one site with `?site=`."""
    context, viewer = context_of(request), viewer_of(request)
    site = request.query_params.get("site", "")[:255]
    found = context.queries.audit(viewer, site, page_of(request))
    sites = tuple(one.site for one in context.queries.sites(viewer))
    return render(request, "audit.html", site=site, sites=sites, records=found)


def routes() -> list[BaseRoute]:
    """Return the routes of these pages."""
    return [
        Route("/repositories", repositories, name="repositories"),
        Route("/refs/{repo:path}", refs, name="refs"),
        Route("/pushes", pushes, name="pushes"),
        Route("/builds", builds, name="builds"),
        Route("/notices", notices, name="notices"),
        Route("/audit", audit, name="audit"),
    ]


__all__ = ["audit", "builds", "notices", "pushes", "refs", "repositories", "routes"]
