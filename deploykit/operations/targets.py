"""From what a command says to the nodes that it addresses.

Rules:

* Names that are given are taken as they are. Everything else is asked for: nobody is addressed by a guess.
* Who matches nothing addresses nobody: that is an error, and so is another number than the one expected.
* Nodes that are found by what they are, and do not have the site, are left out and named. Those that were named are
  addressed all the same: they answer for themselves.
* A node without a release to go back to is left alone, and named with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from deploykit.bus import Bus
from deploykit.errors import NobodyMatches, UsageError
from deploykit.fleet.plan import Target
from deploykit.fleet.selection import Selection
from deploykit.messages import NodeDescribed, SiteRelease, SiteState
from deploykit.names import NodeName, SiteName
from deploykit.operations.nodes import DISCOVERY_TIMEOUT, WHY_NOBODY, FoundNodes, find_nodes, shortened
from deploykit.operations.siteasks import SiteAsks
from deploykit.settings.node import Settings
from deploykit.trust.check import Trust
from deploykit.trust.mandate import Requirement
from deploykit.trust.signature import BodySigner


@attrs.frozen(kw_only=True, slots=True)
class Targets:
    """The nodes that a command addresses.

    Args:
        nodes: their names; in the order given where names were given, else by name.
        states: what each of them says of the site; of those that have it, and were asked.
        previous: the release that each of them would go back to; empty where nobody asked for it.
        without_previous: nodes that are left alone, with the reason why they cannot go back.
        without_site: nodes that match, and do not have the site: left out.
        silent: nodes that should have answered and did not. Where a command needs an answer, they are not in `nodes`.
        unexpected: nodes that answered, match, and are not on the list: left out.
        asks: the strictest that settings and these nodes ask of mandates; None for none, or where nodes were not asked.
        notes: a line for each thing that a person should know.
    """

    nodes: tuple[NodeName, ...]
    states: Mapping[NodeName, SiteState] = attrs.field(factory=dict)
    previous: Mapping[NodeName, SiteRelease] = attrs.field(factory=dict)
    without_previous: Mapping[NodeName, str] = attrs.field(factory=dict)
    without_site: tuple[NodeName, ...] = ()
    silent: tuple[NodeName, ...] = ()
    unexpected: tuple[NodeName, ...] = ()
    asks: Requirement | None = None
    notes: tuple[str, ...] = ()


def resolve_targets(
    settings: Settings,
    bus: Bus | None,
    selection: Selection,
    *,
    site: SiteName,
    want_previous: bool = False,
    want_live: bool = False,
    timeout: float = DISCOVERY_TIMEOUT,
    key: BodySigner | None = None,
    trust: Trust | None = None,
    on_node: Callable[[NodeDescribed], object] | None = None,
) -> Targets:
    """Return the nodes that a command for a site addresses.

    Args:
        settings: of the machine that asks.
        bus: connected; it may be None where `needs_asking` is false.
        selection: which nodes are meant.
        site: the site of the command.
        want_previous: find out which release each node would go back to.
        want_live: find out what is live on each node.
        timeout, key, trust, on_node: as for `find_nodes`.

    Raises:
        NobodyMatches: no node does; nobody is addressed.
        UsageError: the selection cannot be used, or another number of nodes matches than it expects.
        PolicyRefused: there is no key, or no answer could be believed.
        ConnectError: the connection is or was lost.
    """
    selection.check()
    named = selection.literal_nodes
    if not needs_asking(selection, want_previous=want_previous or want_live):
        return _counted(Targets(nodes=named or ()), selection, None)
    if bus is None:
        raise UsageError("nodes must be asked what they are, and there is no connection", "give their names")
    found = find_nodes(
        settings,
        bus,
        selection,
        details=("sites",),
        site=None if selection.needs_discovery else site,
        timeout=timeout,
        key=key,
        trust=trust,
        on_node=on_node,
    )
    targets = _targets(selection, found, site, want_previous=want_previous)
    return _counted(_with_asks(targets, settings, site, found), selection, found)


def needs_asking(selection: Selection, *, want_previous: bool) -> bool:
    """Return whether `resolve_targets` has to ask nodes."""
    return selection.needs_discovery or want_previous


def _targets(selection: Selection, found: FoundNodes, site: SiteName, *, want_previous: bool) -> Targets:
    was_named = selection.candidates is not None
    states = {each.node: next((state for state in each.sites if state.site == site), None) for each in found.nodes}
    without_site = () if was_named else tuple(node for node, state in states.items() if state is None)
    meant = [node for node in states if node not in set(without_site)]
    previous: dict[NodeName, SiteRelease] = {}
    objections: dict[NodeName, str] = {}
    if want_previous:
        for node in meant:
            if objection := way_back_objection(states[node], site):
                objections[node] = objection
            elif (state := states[node]) is not None and state.previous is not None:
                previous[node] = state.previous
    notes = list(found.notes)
    if without_site:
        notes.append(f"left out, because they do not have site {site}: {shortened(without_site)}")
    return Targets(
        nodes=tuple(node for node in meant if node not in objections),
        states={node: state for node in meant if (state := states[node]) is not None},
        previous=previous,
        without_previous=objections,
        without_site=without_site,
        silent=found.silent,
        unexpected=found.unexpected,
        notes=tuple(notes),
    )


def _with_asks(targets: Targets, settings: Settings, site: SiteName, found: FoundNodes) -> Targets:
    """Return targets with what the site asks of mandates on them, and who asks for more than the settings say."""
    addressed = set(targets.nodes)
    states = {
        node.node: state for node in found.nodes if node.node in addressed for state in node.sites if state.site == site
    }
    asks = SiteAsks.of(settings, site, states)
    if not asks.nodes:
        return attrs.evolve(targets, asks=asks.requirement)
    note = f"site {site} asks that a rollout is signed by {asks.requirement}: so say {shortened(asks.nodes)}"
    return attrs.evolve(targets, asks=asks.requirement, notes=(*targets.notes, note))


def way_back_objection(state: SiteState | None, site: SiteName) -> str:
    """Return why a node cannot be told what to go back to; empty where it can."""
    if state is None:
        return f"it has no site {site}"
    if state.problem:
        return state.problem
    if state.previous is None:
        return "nothing is live there" if not state.release else "no release was live there before the present one"
    if Target.of(state.previous) is None:
        return f"release {state.previous.release} before the present one was made from no ref: name one"
    return ""


def _counted(targets: Targets, selection: Selection, found: FoundNodes | None) -> Targets:
    matched = len(targets.nodes) + len(targets.without_previous)
    if not matched:
        raise NobodyMatches(*_nobody(targets, found))
    selection.check_count(matched)
    return targets


def _nobody(targets: Targets, found: FoundNodes | None) -> tuple[str, str]:
    remedy = "nobody was addressed; `deploykit nodes` shows what there is"
    if found is None:
        return "no node is left to address", remedy
    if not found.answered and not found.doubted:
        who = f"{shortened(targets.silent)}: no answer" if targets.silent else "no node answered"
        return f"{who}: {WHY_NOBODY}", remedy
    parts = [f"{found.answered} answered"]
    if targets.without_site:
        parts.append(f"{len(targets.without_site)} match and do not have the site")
    if targets.silent:
        parts.append(f"silent: {shortened(targets.silent)}")
    if found.doubted:
        parts.append(f"{len(found.doubted)} answered in a way that is not believed")
    if not found.answered and not found.doubted:
        parts[0] = "no node answered"
        remedy = "do agents run, and does a grant of node.queried, without `sites`, fit the key that asks?"
    return f"no node matches: {', '.join(parts)}", remedy


__all__ = ["Targets", "needs_asking", "resolve_targets", "way_back_objection"]
