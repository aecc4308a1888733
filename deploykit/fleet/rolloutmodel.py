"""How a rollout stands: an immutable value, the same wherever the same events were folded. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

import attrs

from deploykit.fleet.options import MAX_BATCH
from deploykit.fleet.persistentmap import PersistentMap
from deploykit.fleet.plan import Plan, Target
from deploykit.fleet.rolloutevents import Ask
from deploykit.fleet.rolloutstates import ENDS, NodeState
from deploykit.messages.deploy import DeployPhase
from deploykit.messages.rollout import RolloutState
from deploykit.names import NodeName

#: What the rollout is at: a round of commands whose answers are awaited, a wait, or nothing more.
Task = Literal["prepare-all", "prepare", "activate", "bake", "pause", "go-back", "discard", "over"]


@attrs.frozen(kw_only=True, slots=True)
class NodeStatus:
    """How one node stands.

    Args:
        phase: the last one it was asked for; None if it never was.
        deadline: until when its answer is awaited, wall-clock seconds; None where none is.
        detail: why, in words for a person.
        previous: what was live before the rollout, as far as known: what it would go back to.
        live: what it last reported to be live.
        counted: it stands in the failure budget. It stays there, whatever it answers later.
    """

    state: NodeState = "pending"
    phase: DeployPhase | None = None
    deadline: float | None = None
    detail: str = ""
    previous: Target | None = None
    live: Target | None = None
    counted: bool = False


def _nodes(statuses: Mapping[NodeName, NodeStatus]) -> PersistentMap[NodeName, NodeStatus]:
    return statuses if isinstance(statuses, PersistentMap) else PersistentMap(statuses)


def _phases(outstanding: Mapping[NodeName, DeployPhase]) -> PersistentMap[NodeName, DeployPhase]:
    return outstanding if isinstance(outstanding, PersistentMap) else PersistentMap(outstanding)


@attrs.frozen(kw_only=True, slots=True)
class RolloutModel:
    """How a rollout stands. Made by `fleet.rollout.start`, followed by `fleet.rollout.step`.

    Args:
        nodes: every node of the plan, in its order.
        outstanding: the nodes whose answer is awaited, with the phase they were asked for.
        task: what the rollout is at.
        stage: index into `plan.stages` of the stage at work, or worked off last; -1 before the first.
        failures: how many nodes count in the failure budget.
        deadline: until when the answers of `outstanding` are awaited, wall-clock seconds.
        until: when the bake or the pause ends; None for a pause that somebody has to end.
        latest: when the whole rollout is out of time; time paused is added when the pause ends.
        paused_since: when the pause began.
        pause_asked: who wants a pause at the next boundary; empty where nobody does.
        aborted: somebody wants the rollout to end.
        going_back: what was activated is to be taken back, or was.
        back: the nodes that are still to be asked to go back, next ones first.
        detail: why it stopped, or what it waits for, in words for a person.
        ended_at: when it ended.
    """

    state: RolloutState = "planned"
    nodes: PersistentMap[NodeName, NodeStatus] = attrs.field(converter=_nodes)
    outstanding: PersistentMap[NodeName, DeployPhase] = attrs.field(factory=dict, converter=_phases)
    task: Task = "over"
    stage: int = -1
    failures: int = 0
    deadline: float | None = None
    until: float | None = None
    latest: float | None = None
    paused_since: float | None = None
    pause_asked: str = ""
    aborted: bool = False
    going_back: bool = False
    back: tuple[NodeName, ...] = ()
    detail: str = ""
    ended_at: float | None = None

    @property
    def ended(self) -> bool:
        """Return whether the rollout is over."""
        return self.state in ENDS

    @property
    def waiting_for(self) -> tuple[NodeName, ...]:
        """The nodes whose answer is awaited, in the order in which they were asked."""
        return tuple(self.outstanding)

    @property
    def counts(self) -> Mapping[NodeState, int]:
        """How many nodes are in which state; states without a node are absent."""
        return Counter(status.state for status in self.nodes.values())

    @property
    def wakes_at(self) -> float | None:
        """When time alone changes something next; None where it does not."""
        if self.outstanding:
            return self.deadline
        if self.task == "bake" and self.latest is not None and self.until is not None:
            return min(self.until, self.latest)
        return self.until if self.task in ("bake", "pause") else None

    def exit_code(self, plan: Plan) -> int:
        """Return the exit code of whoever waits for the rollout.

        0: every node is active, or the rollout still runs. 3: every node that was asked refused, so nothing changed.
        1: anything else, also a pause that somebody has to end.
        """
        if not self.ended:
            return 1 if self.task == "pause" and self.until is None else 0
        if self.state == "succeeded":
            return 0
        asked = {(status.state, status.phase) for status in self.nodes.values() if status.phase is not None}
        # Who is asked to activate has prepared, and who is asked to go back may have activated.
        changed = {"activate", "rollback"} if plan.kind == "deploy" else set()
        unchanged = changed.isdisjoint(phase for _, phase in asked)
        return 3 if self.state == "failed" and unchanged and {state for state, _ in asked} == {"refused"} else 1


def outstanding_asks(plan: Plan, model: RolloutModel) -> tuple[Ask, ...]:
    """Return the commands whose answers are awaited: what a coordinator that was resumed has to send again."""
    return asks_of(plan, model, model.outstanding)


def asks_of(plan: Plan, model: RolloutModel, phases: Mapping[NodeName, DeployPhase]) -> tuple[Ask, ...]:
    """Return the commands that ask nodes for phases: one for each phase and target, and at most 1,000 nodes."""
    groups: dict[tuple[DeployPhase, Target], list[NodeName]] = {}
    for node, phase in phases.items():
        target = plan.targets[node]
        back = model.nodes[node].previous if phase == "rollback" and plan.kind == "deploy" else None
        groups.setdefault((phase, back or target), []).append(node)
    return tuple(
        Ask(phase=phase, target=target, nodes=tuple(nodes[at : at + MAX_BATCH]))
        for (phase, target), nodes in groups.items()
        for at in range(0, len(nodes), MAX_BATCH)
    )
