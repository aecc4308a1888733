"""What each node of a plan has, gets, and should be known for before somebody presses. Pure.

Every text that came from a node is one line, cut. Pages escape it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import chain
from typing import Final

from deploykit.fleet.plan import Plan, Target
from deploykit.messages import SiteOperation, SiteState, one_line
from deploykit.messages.site import named
from deploykit.names import NodeName
from deploykit.web.actions.shown import PlannedNode
from deploykit.web.projection.views import SiteOnNode

_LIVE_PHASES: Final = ("deploy", "activate", "rollback")
#: Nodes write which key signed behind who asked: too long for a row of a table.
_FINGERPRINT: Final = re.compile(r" \(SHA256:[A-Za-z0-9+/=]{1,60}\)")


def planned_nodes(
    plan: Plan,
    states: Mapping[NodeName, SiteState],
    rows: Mapping[str, SiteOnNode],
    holds: Callable[[NodeName], bool | None],
    *,
    own_way_back: bool = False,
) -> tuple[PlannedNode, ...]:
    """Return the nodes of a plan in the order in which they are asked.

    Args:
        plan: what would be done.
        states: the site on each node, as it said just now.
        rows: what was known of it before.
        holds: whether a node is known to hold the ref.
        own_way_back: each node goes back to its own previous release.
    """
    stages = {node: at + (0 if plan.canary else 1) for at, nodes in enumerate(plan.stages) for node in nodes}
    made = []
    for node in chain(*plan.stages):
        state, target = states.get(node), plan.targets[node]
        held = holds(node)
        made.append(
            PlannedNode(
                node=node,
                stage=stages[node],
                live_ref=(state.ref or "") if state is not None else "",
                live_commit=(state.commit or "") if state is not None else "",
                live_release=one_line(state.release, 200) if state is not None else "",
                to_ref=target.ref or "",
                to_commit=target.commit,
                why=way_back_reason(state) if own_way_back and state is not None else "",
                holds=held,
                warning="; ".join(_warnings(state, rows.get(node), plan, node, held)),
            )
        )
    return tuple(made)


def way_back_reason(state: SiteState) -> str:
    """Return where the target of a node's way back comes from, and who had put it live, as far as the node knows."""
    before = _who_put_live(state)
    since = f" from {_shown(before.finished)}" if before is not None and before.finished is not None else ""
    until = f" until {_shown(state.since)}" if state.since is not None else ""
    live = f", live{since}{until}" if since or until else ""
    by = one_line(_FINGERPRINT.sub("", before.requested_by), 100) if before is not None else ""
    return f"its previous release{live}{f', put there by {by}' if by else ''}"


def _who_put_live(state: SiteState) -> SiteOperation | None:
    """Return the last operation that put the previous release live."""
    if state.previous is None:
        return None
    return next(
        (
            each
            for each in state.history
            if each.release == state.previous.release and each.phase in _LIVE_PHASES and each.outcome == "success"
        ),
        None,
    )


def _warnings(
    state: SiteState | None, row: SiteOnNode | None, plan: Plan, node: NodeName, held: bool | None
) -> list[str]:
    found = []
    target = plan.targets[node]
    if state is None:
        return ["it has not said what is live there"]
    if state.problem:
        found.append(f"its own records cannot be read: {one_line(state.problem, 150)}")
    if Target.of(state) == target:
        found.append("it has this already")
    if held is False:
        found.append("it must fetch the ref first")
    modified = state.modified if state.modified is not None else (row.modified if row is not None else None)
    if modified:
        found.append(f"{modified} path{'s' if modified != 1 else ''} of the live release changed by hand")
    if state.last is not None and state.last.outcome not in ("", "success"):
        what = named(state.last.ref, state.last.commit, state.last.release, parts=state.last.parts)
        found.append(one_line(f"its last operation ended in {state.last.outcome}: {state.last.phase} {what}", 200))
    return found


def _shown(moment: datetime | None) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if moment is not None else "an unknown time"


__all__ = ["planned_nodes", "way_back_reason"]
