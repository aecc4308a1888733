"""What was done to a site on many nodes, as one list. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import attrs

from deploykit.messages import NodeDescribed, SiteOperation
from deploykit.names import NodeName, SiteName

_UNKNOWN = datetime.min.replace(tzinfo=UTC)


@attrs.frozen(kw_only=True, slots=True)
class HistoryEntry:
    """One operation on one node's site, as the node's own journal has it."""

    node: NodeName
    operation: SiteOperation

    @property
    def time(self) -> datetime | None:
        """When it began, else when it ended, by the node's clock."""
        return self.operation.started or self.operation.finished


def merged(nodes: Iterable[NodeDescribed], site: SiteName) -> tuple[HistoryEntry, ...]:
    """Return the operations of a site on all nodes, the newest first."""
    found = [
        HistoryEntry(node=node.node, operation=operation)
        for node in nodes
        for state in node.sites
        if state.site == site
        for operation in state.history
    ]
    # By the clocks of the nodes, which are all that they have in common.
    found.sort(key=lambda each: (each.time or _UNKNOWN, each.operation.number, each.node), reverse=True)
    return tuple(found)


__all__ = ["HistoryEntry", "merged"]
