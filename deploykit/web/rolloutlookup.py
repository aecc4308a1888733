"""A rollout by its id: what the bus has reported of it, or, until it has reported anything, what the ledger has.

Who has just begun one, or looks at it from another console of the database, sees it before its first message came.
"""

from __future__ import annotations

from deploykit.web.context import ConsoleContext
from deploykit.web.projection.rolloutviews import LogSlice, RolloutDetail
from deploykit.web.projection.views import MAX_LIMIT, PageRequested
from deploykit.web.viewer import Viewer


def find_rollout(context: ConsoleContext, viewer: Viewer, rollout: str, page: PageRequested) -> RolloutDetail | None:
    """Return a rollout that has begun, with a page of its nodes; None where there is none that the viewer may see.

    Raises:
        ActionRefused: 503: the ledger cannot be read.
    """
    heard = context.queries.rollout(viewer, rollout, page)
    if heard is not None or context.actions is None:
        return heard
    return context.actions.rollouts.begun(viewer, rollout, page)


def find_log(
    context: ConsoleContext, viewer: Viewer, rollout: str, node: str, first: int, limit: int
) -> LogSlice | None:
    """Return lines of a node's log as `Queries.log` does; none yet of a node that the plan names and nobody heard.

    Raises:
        ActionRefused: 503: the ledger cannot be read.
    """
    heard = context.queries.log(viewer, rollout, node, first, limit)
    if heard is not None or context.actions is None:
        return heard
    kept = context.actions.rollouts.begun(viewer, rollout, PageRequested(limit=MAX_LIMIT, search=node))
    if kept is None or node not in [each.node for each in kept.nodes.items]:
        return None
    return LogSlice(open=kept.summary.ended is None)


__all__ = ["find_log", "find_rollout"]
