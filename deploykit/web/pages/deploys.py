"""The pages of rollouts and single commands: the list, and one with its nodes and steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from deploykit.web.context import ConsoleContext
from deploykit.web.pages.acting import go
from deploykit.web.pages.errors import not_found
from deploykit.web.pages.filters import listed
from deploykit.web.pages.logtext import shown_line
from deploykit.web.pages.outcomes import outcome_of
from deploykit.web.pages.render import render
from deploykit.web.pages.rolloutbuttons import buttons_of
from deploykit.web.pages.rolloutgrid import grid_of
from deploykit.web.projection.rolloutviews import RolloutNode, RolloutOverview
from deploykit.web.requests import context_of, page_of, viewer_of
from deploykit.web.rolloutlookup import find_rollout
from deploykit.web.viewer import Viewer

#: States of nodes for which the end of the log is shown; how many nodes, lines of each, characters of a line.
_FAILED: Final = frozenset({"failure", "failed", "refused", "rolled-back", "interrupted"})
_TAILS: Final = 3
_REASONS: Final = 3
_TAIL_LINES: Final = 14
_TAIL_WIDTH: Final = 400


@attrs.frozen(kw_only=True, slots=True)
class LogTail:
    """The end of a failed node's log."""

    node: RolloutNode
    lines: tuple[str, ...]


def deploys(request: Request) -> Response:
    """Return the list of rollouts, newest first; of one site with `?site=`."""
    context, viewer = context_of(request), viewer_of(request)
    site = request.query_params.get("site", "")[:255]
    found = context.queries.rollouts(viewer, site, page_of(request, limit=50))
    sites = tuple(one.site for one in context.queries.sites(viewer))
    return render(request, "deploys.html", site=site, sites=sites, rollouts=found)


def deploy(request: Request) -> Response:
    """Return the page of one rollout: its nodes by steps, those that failed first, with the ends of their logs."""
    context, viewer = context_of(request), viewer_of(request)
    rollout = str(request.path_params["id"])
    found = find_rollout(context, viewer, rollout, page_of(request, limit=50))
    if found is None:
        return _not_heard(request, context, rollout)
    acts, site = context.actions is not None, found.summary.site
    return render(
        request,
        "deploy.html",
        one=found.summary,
        nodes=found.nodes,
        grid=grid_of(found.nodes.items),
        tails=_tails(context, viewer, rollout, found.nodes.items),
        seconds=_seconds(found.summary),
        reasons=reasons_of(found.nodes.items),
        done=outcome_of(request),
        buttons=buttons_of(
            found.summary, stages=acts and viewer.may(site, "stage"), lives=acts and viewer.may(site, "live")
        ),
    )


def _not_heard(request: Request, context: ConsoleContext, rollout: str) -> Response:
    """Return the page of a rollout of which the bus has told nothing: it waits for people, or began just now."""
    if context.actions is not None and context.actions.rollouts.proposal(viewer_of(request), rollout) is not None:
        return go(request, "deploys", rollout, "approve")
    done = outcome_of(request)
    if done is None or done.rollout != rollout:
        return not_found(request, "deploy", rollout)
    return render(request, "waiting.html", rollout=rollout, done=done)


def reasons_of(nodes: Sequence[RolloutNode]) -> tuple[tuple[str, str], ...]:
    """Return why nodes failed, in their own words, and which: the same reason once; a few of them."""
    by_reason: dict[str, list[str]] = {}
    for node in nodes:
        if node.state in _FAILED and node.detail:
            by_reason.setdefault(node.detail, []).append(node.node)
    return tuple((listed(names, 4), why) for why, names in list(by_reason.items())[:_REASONS])


def _tails(
    context: ConsoleContext, viewer: Viewer, rollout: str, nodes: tuple[RolloutNode, ...]
) -> tuple[LogTail, ...]:
    tails = []
    for node in [node for node in nodes if node.state in _FAILED and node.log_lines][:_TAILS]:
        found = context.queries.log(viewer, rollout, node.node, -_TAIL_LINES, _TAIL_LINES)
        if found is not None and found.lines:
            tails.append(LogTail(node=node, lines=tuple(shown_line(line)[:_TAIL_WIDTH] for line in found.lines)))
    return tuple(tails)


def _seconds(one: RolloutOverview) -> float | None:
    return (one.ended - one.began).total_seconds() if one.began and one.ended else None


def routes() -> list[BaseRoute]:
    """Return the routes of these pages."""
    return [Route("/deploys", deploys, name="deploys"), Route("/deploys/{id}", deploy, name="deploy")]


__all__ = ["LogTail", "deploy", "deploys", "routes"]
