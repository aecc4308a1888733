"""Ask the fleet which nodes there are and what they hold, and choose among those that answer."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import attrs

from deploykit.bus import Bus
from deploykit.fleet.discovery import discover
from deploykit.fleet.facts import NodeFacts
from deploykit.fleet.inventory import Inventory
from deploykit.fleet.selection import Selection
from deploykit.messages import AgentInstance, NodeDescribed, NodeDetail, NodeQueried, one_line
from deploykit.names import NodeName, SiteName
from deploykit.operations.deploy import load_report_trust, signing_key
from deploykit.settings.node import Settings
from deploykit.trust.check import Trust
from deploykit.trust.signature import BodySigner
from deploykit.wire.strictjson import MAX_ITEMS

#: Seconds to wait for the first answer, or for all nodes of a list.
DISCOVERY_TIMEOUT: Final = 10.0
#: What a person looks at where no node answered at all.
WHY_NOBODY: Final = (
    "are their agents running, do they grant node.queried to the key that asks, and do the clocks agree?"
)
#: What selectors look at.
_FOR_SELECTORS: Final[tuple[NodeDetail, ...]] = ("facts", "sites")
#: What takes nodes long to find out, and the seconds that they may need for it.
_SLOW: Final[Mapping[str, float]] = MappingProxyType({"drift": 10.0})
#: Most lines about what nodes left out of their answers.
_MOST_CUTS: Final = 10


@attrs.frozen(kw_only=True, slots=True)
class FoundNodes:
    """The nodes that answered, and those that should have.

    Args:
        nodes: those that are chosen, by name.
        strangers: those that answered, would be chosen, and are not on the list; by name.
        silent: names on the list without a believed answer; those of `doubts` too.
        doubts: why answers in a node's name were not believed.
        twins: names under which several agents answer, with all of them.
        answered: how many nodes answered, chosen or not.
        notes: a line for each thing that a person should know.
    """

    nodes: tuple[NodeDescribed, ...]
    strangers: tuple[NodeDescribed, ...] = ()
    silent: tuple[NodeName, ...] = ()
    doubts: Mapping[NodeName, tuple[str, ...]] = attrs.field(factory=dict)
    twins: Mapping[NodeName, tuple[AgentInstance, ...]] = attrs.field(factory=dict)
    answered: int = 0
    notes: tuple[str, ...] = ()

    @property
    def unexpected(self) -> tuple[NodeName, ...]:
        """The names of the strangers."""
        return tuple(each.node for each in self.strangers)

    @property
    def doubted(self) -> tuple[NodeName, ...]:
        """Nodes of which only answers came that are not believed."""
        heard = {each.node for each in (*self.nodes, *self.strangers)}
        return tuple(node for node in self.doubts if node not in heard)

    @property
    def exit_code(self) -> int:
        """0 where nodes were found, all that were expected and no others, each name once; else 1."""
        twice = any(each.node in self.twins for each in self.nodes)
        return 1 if not self.nodes or self.silent or self.strangers or self.doubted or twice else 0


def find_nodes(
    settings: Settings,
    bus: Bus,
    selection: Selection,
    *,
    details: Sequence[NodeDetail] = _FOR_SELECTORS,
    site: SiteName | None = None,
    history_limit: int = 20,
    refs_limit: int = 20,
    timeout: float = DISCOVERY_TIMEOUT,
    key: BodySigner | None = None,
    trust: Trust | None = None,
    on_node: Callable[[NodeDescribed], object] | None = None,
) -> FoundNodes:
    """Ask nodes to describe themselves, and return those that a selection chooses.

    What takes nodes long to find out is asked for in a second question, of those that were found by the first: some
    answer at once, others after seconds, and silence would end the wait between them.

    Args:
        settings: of the machine that asks.
        bus: connected.
        selection: which nodes are wanted; those that it names are waited for, and missed if they stay silent.
        details: what to ask for. What the selection looks at is asked for too.
        site: ask about this site alone. A selection by anything but names then sees no other site.
        history_limit: how many operations of a site to ask for.
        refs_limit: how many refs of a repository to ask for, newest first.
        timeout: seconds to wait for the first answer, or for all nodes that the selection names.
        key: signs the question; the settings' key when None.
        trust: judges the answers; the settings' when None.
        on_node: called with each node that answers, chosen or not.

    Raises:
        UsageError: the selection cannot be used.
        PolicyRefused: there is no key, or no answer could be believed.
        ConnectError: the connection is or was lost.
    """
    selection.check()
    signer, judge = key or signing_key(settings, None), trust or load_report_trust(settings)

    def ask(
        what: Sequence[NodeDetail], audience: tuple[NodeName, ...] | None, expected: Sequence[NodeName] | None
    ) -> Inventory:
        query = NodeQueried(
            source=f"operator/{socket.gethostname()}",
            audience=audience,
            details=tuple(what),
            site=site,
            history_limit=history_limit,
            refs_limit=refs_limit,
        )
        return discover(
            bus,
            settings.topics,
            signer,
            judge,
            query,
            expected=frozenset(expected) if expected is not None else None,
            timeout=timeout + sum(_SLOW.get(each, 0.0) for each in what),
            on_node=on_node,
        )

    named = selection.literal_nodes if selection.literal_nodes is not None else selection.candidates
    wanted = tuple(dict.fromkeys((*details, *(_FOR_SELECTORS if selection.needs_discovery else ()))))
    if not _SLOW.keys() & set(wanted):
        return _chosen(selection, ask(wanted, _audience(selection, named), named), timeout)
    first = _chosen(selection, ask(_FOR_SELECTORS, _audience(selection, named), named), timeout)
    heard = [each.node for each in (*first.nodes, *first.strangers)]
    if not heard:
        return first
    second = ask(wanted, tuple(heard) if len(heard) <= MAX_ITEMS else None, heard)
    return _completed(first, _chosen(selection, second, timeout))


def _completed(first: FoundNodes, second: FoundNodes) -> FoundNodes:
    """Return what a second question found, with what only the first one showed."""
    return attrs.evolve(
        second,
        silent=tuple(sorted({*first.silent, *second.silent})),
        answered=first.answered,
        doubts={**first.doubts, **second.doubts},
        twins={**first.twins, **second.twins},
        notes=tuple(dict.fromkeys((*first.notes, *second.notes))),
    )


def _audience(selection: Selection, named: Sequence[NodeName] | None) -> tuple[NodeName, ...] | None:
    """Return whom to ask: all nodes, where a list is to be compared with what there is, or would not fit."""
    return None if named is None or selection.listed is not None or len(named) > MAX_ITEMS else tuple(named)


def _chosen(selection: Selection, inventory: Inventory, timeout: float) -> FoundNodes:
    unlisted = selection
    if selection.listed is not None:
        chooses = selection.identities or selection.classes or selection.facts or selection.selects
        unlisted = attrs.evolve(selection, listed=None, everybody=not chooses)
    nodes, strangers = [], []
    for described in inventory.nodes.values():
        facts = NodeFacts.of_described(described)
        if selection.matches(facts):
            nodes.append(described)
        elif unlisted is not selection and unlisted.matches(facts):
            strangers.append(described)
    return FoundNodes(
        nodes=tuple(nodes),
        strangers=tuple(strangers),
        silent=inventory.silent,
        doubts=inventory.doubts,
        twins=inventory.twins,
        answered=len(inventory.nodes),
        notes=tuple(_notes(inventory, nodes, timeout)),
    )


def _notes(inventory: Inventory, chosen: Sequence[NodeDescribed], timeout: float) -> Iterator[str]:
    if not inventory.nodes:
        yield f"no node answered within {timeout:g} s: {WHY_NOBODY}"
    elif not chosen:
        count = len(inventory.nodes)
        yield "1 node answered, and it does not match" if count == 1 else f"{count} nodes answered, and none matches"
    for node, reasons in inventory.doubts.items():
        for reason in reasons:
            yield f"an answer in the name of {node} was not believed: {reason}"
    for node, agents in inventory.twins.items():
        yield f"{len(agents)} agents answer under the name {node}: {', '.join(map(str, agents))}"
    if inventory.left_out:
        yield f"{inventory.left_out} answers were left out: there were too many"
    cuts = [f"{each.node} left something out: {one_line(cut)}" for each in chosen for cut in each.cut]
    yield from cuts[:_MOST_CUTS]
    if len(cuts) > _MOST_CUTS:
        yield f"{len(cuts) - _MOST_CUTS} more things were left out of answers"


def shortened(names: Sequence[str], most: int = 10) -> str:
    """Return names for one line of text: the first few, and how many more there are.

    >>> shortened(["a", "b", "c", "d"], 2)
    'a, b and 2 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


__all__ = ["DISCOVERY_TIMEOUT", "WHY_NOBODY", "FoundNodes", "find_nodes", "shortened"]
