"""Templates to answers: one function, `render`, for every page.

Rules:

* Autoescape is always on. No template uses `|safe`; a test reads them all.
* Every page gets `viewer`, `health`, `now`, `base`, `theme`; a view passes the rest.
* An address in a page is made by `url(part, part, …, query=value)`: quoted, and right where the console is mounted.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache
from typing import Final

import attrs
from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from deploykit._version import __version__
from deploykit.errors import DeploykitError
from deploykit.web.context import ConsoleContext
from deploykit.web.pages import filters, words
from deploykit.web.pages.assets import assets, takes_gzip
from deploykit.web.projection.activityviews import LatestChange
from deploykit.web.projection.views import Problem, ProjectionHealth
from deploykit.web.requests import form_token_of, logout_token_of
from deploykit.web.viewer import Viewer

_THEMES: Final = frozenset({"light", "dark"})
#: An answer shorter than this is not worth packing.
_PACK_FROM: Final = 1000


@attrs.frozen(kw_only=True, slots=True)
class PageFrame:
    """What the frame around every page shows.

    Args:
        viewer: None where nobody is known yet: the login page, an error before the login.
        health: None where the console cannot say.
        base: path under which the console is mounted; empty for the root.
        path: of this page, under `base`; marks the entry in the navigation.
        logout: the token of the form that ends this login; empty: it cannot be ended here.
        csrf: the token that every form carries which changes something.
        stages, lives: the viewer may do something on some site: propose and sign; start, lock and grant access.
        theme: `light`, `dark`, or empty: as the system.
        banner: what the settings say above every page.
        now: the server's clock; None where the console cannot say.
        newest: number of the last event that the page shows for certain: it follows those after it.
    """

    viewer: Viewer | None
    health: ProjectionHealth | None
    base: str
    path: str
    logout: str
    csrf: str
    stages: bool
    lives: bool
    theme: str
    banner: str
    now: datetime | None
    newest: int


def frame_of(request: Request) -> PageFrame:
    """Return the frame for a request. It never fails: an error page needs one too."""
    base = str(request.scope.get("root_path", "")).rstrip("/")
    viewer: Viewer | None = getattr(request.state, "viewer", None)
    if viewer is not None and not viewer.grants:
        viewer = None
    console: ConsoleContext | None = getattr(request.app.state, "console", None)
    health: ProjectionHealth | None = None
    # The database is away: the banner says so. The error itself is logged where the view asks.
    with suppress(DeploykitError):
        # Nobody who is not logged in learns how the console stands.
        health = console.queries.health(viewer) if console and viewer else None
    theme = request.cookies.get("theme", "")
    acts = console is not None and console.actions is not None
    return PageFrame(
        viewer=viewer,
        health=health,
        base=base,
        path=str(request.scope.get("path", "/")).removeprefix(base) or "/",
        logout=logout_token_of(request),
        csrf=form_token_of(request),
        stages=acts and viewer is not None and viewer.may_somewhere("stage"),
        lives=acts and viewer is not None and viewer.may_somewhere("live"),
        theme=theme if theme in _THEMES else "",
        banner=console.settings.web.banner if console and viewer else "",
        now=console.now() if console else None,
        newest=getattr(request.state, "newest", 0),  # 0: answered before the view; its stream begins with a reset
    )


@pass_context
def _url(context: Context, *parts: object, **query: object) -> str:
    return filters.path_of(str(context["base"]), parts, query)


@pass_context
def _problem_url(context: Context, problem: Problem) -> str:
    """Return where a problem can be looked at."""
    if problem.kind == "build":
        return _url(context, "builds", repo=problem.repo)
    if problem.rollout:
        return _url(context, "deploys", problem.rollout)
    if (problem.kind == "mirror" and problem.node) or (not problem.site and problem.node):
        return _url(context, "nodes", problem.node)
    if problem.site:
        return _url(context, "sites", problem.site)
    return _url(context, "refs", problem.repo) if problem.repo else _url(context, "notices")


@pass_context
def _change_url(context: Context, change: LatestChange) -> str:
    """Return where a change can be looked at."""
    if change.rollout:
        return _url(context, "deploys", change.rollout)
    if change.what in ("push", "build") and change.repo:
        return _url(context, "pushes" if change.what == "push" else "builds", repo=change.repo)
    return _url(context, "sites", change.site) if change.site else _url(context, "notices")


@pass_context
def _page_url(context: Context, parts: Sequence[object], after: str) -> str:
    """Return the address of another page of this list. What a browser asked for is never passed as an argument."""
    kept = {key: value for key, value in context["query"].items() if key != "after"}
    return filters.path_of(str(context["base"]), parts, {**kept, "after": after})


@pass_context
def _static(context: Context, name: str) -> str:
    return f"{context['base']}/static/{assets()[name].name}"


@cache
def environment() -> Environment:
    """Return Jinja2's environment with our filters; made once."""
    env = Environment(
        loader=PackageLoader("deploykit.web.pages", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=filters.finalize,
        auto_reload=False,
    )
    env.filters.update(
        commit=filters.short_commit,
        duration=filters.duration,
        firstline=filters.first_line,
        http=filters.http_only,
        iso=filters.iso,
        number=filters.number,
        reason=filters.reason,
        ref=filters.ref_words,
        state=words.shown_state,
        states=words.in_order,
        utc=filters.utc,
        who=filters.who_words,
    )
    env.globals.update(
        bar=words.bar,
        change_url=_change_url,
        counted=filters.counted,
        icons=words.KIND_ICONS,
        node_state=words.node_state,
        page_url=_page_url,
        problem_url=_problem_url,
        static=_static,
        url=_url,
        version=__version__,
    )
    return env


def render(request: Request, template: str, /, *, status: int = 200, **values: object) -> Response:
    """Return a page.

    Args:
        template: a file in `templates/`; it begins with `{% extends "base.html" %}`.
        status: of the answer.
        values: what the template needs beyond the frame.
    """
    frame = frame_of(request)
    shown = {**attrs.asdict(frame, recurse=False), "query": request.query_params, **values}
    body = environment().get_template(template).render(shown).encode()
    headers = {"Vary": "Accept-Encoding, Cookie", "Cache-Control": "no-store"}
    if len(body) >= _PACK_FROM and takes_gzip(request):
        headers["Content-Encoding"] = "gzip"
        body = gzip.compress(body, compresslevel=5, mtime=0)
    return HTMLResponse(body, status_code=status, headers=headers)
