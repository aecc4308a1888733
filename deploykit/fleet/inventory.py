"""What nodes answered to one question, and when to stop waiting for more. Pure: `now` is an argument.

Rules:

* Answers count by what they say, not by when they come: any order and any number of copies give the same inventory.
* Of several answers under one name the newest counts, and the agents behind the others are its twins.
* A report that is not believed is kept as a doubt: that node is neither here nor merely silent.
* Whatever the bus delivers, memory stays bounded; what did not fit is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from deploykit.messages import AgentInstance, NodeDescribed, one_line
from deploykit.names import NodeName

#: Most nodes, and most bytes of their answers, that one inventory takes.
MAX_NODES: Final = 100_000
MAX_BYTES: Final = 256 * 1024 * 1024
#: Most agents that are listed for one name; most names with doubts; most reasons for each of these.
MAX_TWINS: Final = 16
MAX_DOUBTED: Final = 1000
MAX_REASONS: Final = 3


@attrs.frozen(kw_only=True, slots=True)
class Inventory:
    """The nodes that answered a question, and those that should have.

    Args:
        nodes: the newest believed answer of each node, by name.
        expected: the nodes that the caller named; None where it named none.
        twins: agents that answer under one name, two or more of them: each such name, with all its agents.
        doubts: why answers in a node's name were not believed, each reason once.
        left_out: answers that did not fit.
    """

    nodes: Mapping[NodeName, NodeDescribed]
    expected: frozenset[NodeName] | None = None
    twins: Mapping[NodeName, tuple[AgentInstance, ...]] = attrs.field(factory=dict)
    doubts: Mapping[NodeName, tuple[str, ...]] = attrs.field(factory=dict)
    left_out: int = 0

    @property
    def silent(self) -> tuple[NodeName, ...]:
        """Expected nodes without a believed answer, by name; those that `doubts` names too."""
        return tuple(sorted((self.expected or frozenset()) - self.nodes.keys()))

    @property
    def unexpected(self) -> tuple[NodeName, ...]:
        """Nodes that answered and are not on the caller's list, by name; none where there was no list."""
        return () if self.expected is None else tuple(sorted(self.nodes.keys() - self.expected))


class Answers:
    """Collects answers to one question into an `Inventory`. Not for several threads at once.

    Args:
        expected: the nodes that the caller named; None where it named none.
        max_nodes, max_bytes: bounds of what is kept.
    """

    def __init__(
        self, expected: frozenset[NodeName] | None = None, *, max_nodes: int = MAX_NODES, max_bytes: int = MAX_BYTES
    ) -> None:
        self._expected = expected
        self._missing = set(expected or ())
        self._max_nodes, self._max_bytes = max_nodes, max_bytes
        self._nodes: dict[NodeName, tuple[NodeDescribed, int]] = {}
        self._agents: dict[NodeName, dict[str, AgentInstance]] = {}
        self._doubts: dict[NodeName, set[str]] = {}
        self._bytes = 0
        self._left_out = 0

    @property
    def complete(self) -> bool:
        """Whether there is a list of expected nodes, and all on it have answered."""
        return self._expected is not None and not self._missing

    def add(self, described: NodeDescribed, size: int = 0) -> bool:
        """Take a believed answer; return whether it is the first of its node.

        Args:
            described: the answer.
            size: bytes of its body.
        """
        node = described.node
        known = self._nodes.get(node)
        self._note_agents(described)
        if known is not None and _order(known[0]) >= _order(described):
            return False
        grown = self._bytes + size - (known[1] if known is not None else 0)
        if grown > self._max_bytes or (known is None and len(self._nodes) >= self._max_nodes):
            self._left_out += 1
            return False
        self._bytes = grown
        self._nodes[node] = described, size
        self._missing.discard(node)
        return known is None

    def doubt(self, node: NodeName, reason: str) -> None:
        """Note why an answer in a node's name is not believed."""
        if node not in self._doubts and len(self._doubts) >= MAX_DOUBTED:
            self._left_out += 1
            return
        reasons = self._doubts.setdefault(node, set())
        if len(reasons) < MAX_REASONS:
            reasons.add(one_line(reason))

    def inventory(self) -> Inventory:
        """Return what was collected so far."""
        return Inventory(
            nodes={node: self._nodes[node][0] for node in sorted(self._nodes)},
            expected=self._expected,
            twins={
                node: tuple(agents[each] for each in sorted(agents))
                for node, agents in sorted(self._agents.items())
                if len(agents) > 1
            },
            doubts={node: tuple(sorted(reasons)) for node, reasons in sorted(self._doubts.items())},
            left_out=self._left_out,
        )

    def _note_agents(self, described: NodeDescribed) -> None:
        """Remember which agents answer under a name: the one that speaks, and the twins that it has heard."""
        if described.node not in self._agents and len(self._agents) >= self._max_nodes:
            return
        known = self._agents.setdefault(described.node, {})
        own = (AgentInstance(instance=described.instance, host=described.host),) if described.instance else ()
        for agent in (*own, *described.twins):
            other = known.get(agent.instance)
            if other is None or other.host < agent.host:
                known[agent.instance] = AgentInstance(instance=agent.instance, host=agent.host)
        for each in sorted(known)[MAX_TWINS:]:
            del known[each]


def _order(described: NodeDescribed) -> tuple[float, str]:
    """Return what orders the answers of one node: the newest last, and one order for those of the same instant."""
    return described.time.timestamp(), described.id


@attrs.frozen(kw_only=True, slots=True)
class DiscoveryWindow:
    """When to stop waiting for answers.

    Without a list: wait for the first node up to `timeout`, then end after `quiet` seconds without a new one, but not
    before the answers are in that nodes held back. With a list: end when all have answered, else at `timeout`, but not
    while new nodes still come.

    Args:
        began: when the question went out, by the clock of `now`.
        listed: there is a list of nodes that should answer.
        timeout, quiet: seconds.
        held_back: seconds for which a node may hold back its answer, because it has just answered the same asker.
        last: when the newest node was heard, if any.
    """

    began: float
    listed: bool
    timeout: float = 10.0
    quiet: float = 0.5
    held_back: float = 0.0
    last: float | None = None

    @property
    def latest(self) -> float:
        """The end of all waiting, even if new nodes never cease to come."""
        return self.began + longest(self.timeout)

    def heard(self, now: float) -> DiscoveryWindow:
        """Return the window after a node answered for the first time."""
        return attrs.evolve(self, last=now if self.last is None else max(now, self.last))

    def left(self, now: float, *, complete: bool = False, backlog: bool = False) -> float:
        """Return the seconds to go on waiting if nothing comes; 0 when it is over.

        Args:
            now: by the clock of `began`.
            complete: every node on the list has answered.
            backlog: answers have arrived that were not looked at yet: there is no silence.
        """
        if complete:
            return 0.0
        first = self.began + self.timeout
        if self.last is None:
            end = first
        elif self.listed:
            end = max(first, self.last + self.quiet)
        else:
            end = max(self.last, self.began + self.held_back) + self.quiet
            if backlog:
                end = max(end, min(first, now + self.quiet))
        return max(0.0, min(end, self.latest) - now)


def longest(timeout: float) -> float:
    """Return the seconds after which a discovery ends in any case."""
    return 6 * timeout


__all__ = ["Answers", "DiscoveryWindow", "Inventory", "longest"]
