"""A rollout as the ledger has it, in the form in which the projection shows what the bus has heard. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from deploykit.fleet.announcement import announcement, counts_of
from deploykit.fleet.journal import JournalContents
from deploykit.fleet.replay import replay
from deploykit.fleet.rolloutmodel import NodeStatus
from deploykit.fleet.rolloutstates import NodeState
from deploykit.web.projection.rolloutviews import RolloutDetail, RolloutNode, RolloutOverview
from deploykit.web.projection.views import Paged, PageRequested

#: A node's state in the words of the projection; the others have no answer yet.
_STATES: Final[Mapping[NodeState, str]] = {
    "asked": "began",
    "prepared": "success",
    "active": "success",
    "failed": "failure",
    "refused": "refused",
    "rolled-back": "rolled-back",
}
#: States that are shown first, as the projection does.
_FIRST: Final = ("failure", "refused", "rolled-back")


def kept_detail(contents: JournalContents, requested_by: str, page: PageRequested) -> RolloutDetail:
    """Return a rollout by its journal: its plan, how it stands, its nodes.

    Args:
        contents: of the journal.
        requested_by: who began it, as the ledger knows.
        page: of the nodes. Its `after` is the number of nodes before it.

    Raises:
        RolloutError: the journal does not fit together.
    """
    stands = replay(contents)
    plan, model = contents.head.plan, stands.model
    at = datetime.fromtimestamp(stands.at, UTC)
    heard = announcement(plan, model, at)
    nodes = [_node(str(node), status) for node, status in model.nodes.items()]
    found = [node for node in nodes if page.search.casefold() in f"{node.node} {node.state}".casefold()]
    found.sort(key=lambda node: (node.state not in _FIRST, node.node))
    first = int(page.after) if page.after.isascii() and page.after.isdigit() and len(page.after) < 10 else 0
    end = first + page.limit
    return RolloutDetail(
        summary=RolloutOverview(
            rollout=plan.rollout,
            site=plan.site,
            kind=plan.kind,
            ref=heard.ref or "",
            commit=heard.commit or "",
            state=heard.state,
            counts=counts_of(model),
            failed=heard.failed,
            requested_by=requested_by or plan.requested_by,
            detail=heard.detail,
            began=datetime.fromtimestamp(contents.head.begun, UTC),
            changed=at,
            ended=at if model.ended else None,
        ),
        nodes=Paged(
            items=tuple(found[first:end]),
            next=str(end) if end < len(found) else "",
            total=len(found),
        ),
    )


def _node(node: str, status: NodeStatus) -> RolloutNode:
    return RolloutNode(node=node, state=_STATES.get(status.state, ""), detail=status.detail)


__all__ = ["kept_detail"]
