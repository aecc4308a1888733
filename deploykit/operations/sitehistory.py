"""What was done to a site, by the journals of the nodes that have it."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from deploykit.bus import Bus
from deploykit.errors import NobodyMatches
from deploykit.fleet.history import HistoryEntry, merged
from deploykit.fleet.selection import Selection
from deploykit.messages import NodeDescribed
from deploykit.names import NodeName, SiteName
from deploykit.operations.nodes import DISCOVERY_TIMEOUT, FoundNodes, find_nodes, shortened
from deploykit.settings.node import Settings
from deploykit.trust.check import Trust
from deploykit.trust.signature import BodySigner


@attrs.frozen(kw_only=True, slots=True)
class SiteHistory:
    """The operations of a site on all nodes, the newest first.

    Args:
        nodes: the chosen nodes that have the site.
        unreadable: nodes whose records of the site cannot be read, with the reason.
        found: who answered.
    """

    entries: tuple[HistoryEntry, ...]
    nodes: tuple[NodeName, ...]
    unreadable: tuple[tuple[NodeName, str], ...]
    found: FoundNodes

    @property
    def exit_code(self) -> int:
        """0 where every journal was read; 1 where nodes are silent, unexpected or not believed, or cannot read it."""
        return 1 if self.unreadable else self.found.exit_code


def site_history(
    settings: Settings,
    bus: Bus,
    selection: Selection,
    site: SiteName,
    *,
    limit: int = 20,
    timeout: float = DISCOVERY_TIMEOUT,
    key: BodySigner | None = None,
    trust: Trust | None = None,
    on_node: Callable[[NodeDescribed], object] | None = None,
) -> SiteHistory:
    """Ask nodes for the journal of a site, and return all of them as one.

    Args:
        limit: most operations of each node, the newest.
        settings, bus, selection, timeout, key, trust, on_node: as for `find_nodes`.

    Raises:
        NobodyMatches: none of the nodes has the site.
        ConnectError: the connection is or was lost.
    """
    found = find_nodes(
        settings,
        bus,
        selection,
        details=("sites", "history"),
        site=None if selection.needs_discovery else site,
        history_limit=limit,
        timeout=timeout,
        key=key,
        trust=trust,
        on_node=on_node,
    )
    states = [(each.node, state) for each in found.nodes for state in each.sites if state.site == site]
    if not states:
        heard = f"{found.answered} answered" + (f", silent: {shortened(found.silent)}" if found.silent else "")
        raise NobodyMatches(f"no node has site {site} ({heard})", *found.notes[:1])
    return SiteHistory(
        entries=merged(found.nodes, site),
        nodes=tuple(node for node, _ in states),
        unreadable=tuple((node, state.problem) for node, state in states if state.problem),
        found=found,
    )


__all__ = ["SiteHistory", "site_history"]
