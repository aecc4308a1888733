"""One step of a rollout under way: the next model and the actions so far. Decides nothing; `fleet.rollout` does.

Rules:

* A change of state goes through the tables of `fleet.rolloutstates`; every change of a rollout's state is announced.
* Commands go out in rounds: no node is asked for anything while the answer of any other is awaited.
* A node that fails, refuses or is silent on the way forward counts once in the failure budget, and stays counted.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from deploykit.fleet.persistentmap import PersistentMap
from deploykit.fleet.plan import Plan, Target
from deploykit.fleet.rolloutevents import Announce, End, NodeAnswered, RolloutAction, SendAbort, WakeAt
from deploykit.fleet.rolloutmodel import NodeStatus, RolloutModel, Task, asks_of
from deploykit.fleet.rolloutstates import NODE, ROLLOUT, NodeState, NodeTurn, RolloutTurn
from deploykit.messages.deploy import DeployPhase
from deploykit.names import NodeName

#: The phases that put something new live or prepare it; failures in the others do not count in the budget.
FORWARD: frozenset[DeployPhase] = frozenset({"deploy", "prepare", "activate"})
_BAD = frozenset({"failed", "silent", "refused"})


class Draft:
    """The next model, while it is made.

    Args:
        plan: of the rollout.
        model: as it stands; it is not changed.
        now: wall-clock seconds.
    """

    def __init__(self, plan: Plan, model: RolloutModel, now: float) -> None:
        self.plan = plan
        self.now = now
        self.actions: list[RolloutAction] = []
        self.model = model
        self._before = model
        self._nodes: dict[NodeName, NodeStatus] = {}  # those that changed
        self._outstanding = model.outstanding

    # -- reading -------------------------------------------------------------------------------------------------------

    def status(self, node: NodeName) -> NodeStatus:
        """Return how a node stands."""
        return self._nodes.get(node) or self.model.nodes[node]

    def waits(self) -> bool:
        """Return whether any answer is awaited."""
        return bool(self._outstanding)

    def awaits(self, node: NodeName) -> bool:
        """Return whether the answer of this node is awaited."""
        return node in self._outstanding

    def awaited(self) -> tuple[NodeName, ...]:
        """Return the nodes whose answer is awaited."""
        return tuple(self._outstanding)

    def stage(self) -> tuple[NodeName, ...]:
        """Return the nodes of the stage at work."""
        return self.plan.stages[self.model.stage] if self.model.stage >= 0 else ()

    def any_in_state(self, state: NodeState, nodes: Iterable[NodeName]) -> bool:
        """Return whether any of some nodes is in a state."""
        return any(self.status(node).state == state for node in nodes)

    def in_state(self, state: NodeState, nodes: Iterable[NodeName]) -> tuple[NodeName, ...]:
        """Return those of some nodes that are in a state."""
        return tuple(node for node in nodes if self.status(node).state == state)

    def all_active(self) -> bool:
        """Return whether every node has what was wanted."""
        return all(self.status(node).state == "active" for node in self.plan.nodes)

    def to_discard(self) -> tuple[NodeName, ...]:
        """Return the nodes that are prepared, and were not yet asked to discard that."""
        prepared = self.in_state("prepared", self.plan.nodes)
        return tuple(node for node in prepared if self.status(node).phase != "discard")

    def goes_back(self, node: NodeName) -> bool:
        """Return whether a node has, or may have, what this rollout activated, and something else to go back to."""
        previous = self.status(node).previous
        older = previous is not None and previous.commit != self.plan.targets[node].commit
        return older and self.may_have(node)

    def may_have(self, node: NodeName) -> bool:
        """Return whether what this rollout activates is live on a node, as far as known."""
        status = self.status(node)
        if status.state == "silent":
            return status.phase in ("activate", "deploy")
        return status.state == "active" or (status.state == "failed" and _is(status.live, self.plan.targets[node]))

    # -- changing ------------------------------------------------------------------------------------------------------

    def turn(self, turn: RolloutTurn) -> None:
        """Take the next state of the rollout, and announce it when it is another."""
        state = ROLLOUT[self.model.state][turn]
        if state != self.model.state:
            self.model = attrs.evolve(self.model, state=state)
            self.actions.append(Announce(state=state))

    def turn_node(self, node: NodeName, turn: NodeTurn, *, detail: str, answer: NodeAnswered | None = None) -> bool:
        """Take the next state of a node. Return whether the table has one."""
        before = self.status(node)
        state = NODE[before.state].get(turn)
        if state is None:
            return False
        counts = state in _BAD and before.state not in _BAD and before.phase in self._counted_phases()
        counts = counts and not before.counted
        self._put(
            node,
            attrs.evolve(
                before,
                state=state,
                deadline=None,
                detail=detail,
                counted=before.counted or counts,
                previous=_previous(before, answer),
                live=answer.live if answer is not None and answer.live is not None else before.live,
            ),
        )
        if counts:
            self.model = attrs.evolve(self.model, failures=self.model.failures + 1)
        return True

    def answered(self, *nodes: NodeName) -> None:
        """Take nodes from those whose answer is awaited."""
        self._outstanding = self._outstanding.without(nodes)

    def uncount(self, nodes: Iterable[NodeName]) -> None:
        """Take nodes out of the failure budget: a quorum lets them be skipped."""
        for node in nodes:
            status = self.status(node)
            if status.counted:
                self._put(node, attrs.evolve(status, counted=False))
                self.model = attrs.evolve(self.model, failures=self.model.failures - 1)

    def ask(self, task: Task, phase: DeployPhase, nodes: Iterable[NodeName]) -> None:
        """Begin a round: ask nodes, all of them until the same deadline."""
        deadline = self.now + self.plan.options.timeout
        phases = dict.fromkeys(nodes, phase)
        for node in phases:
            before = self.status(node)
            state = NODE[before.state][NodeTurn.ASKED]
            self._put(node, attrs.evolve(before, state=state, phase=phase, deadline=deadline, detail=""))
        self._outstanding = PersistentMap(phases)
        self.model = attrs.evolve(self.model, task=task, deadline=deadline, until=None)
        self.actions += asks_of(self.plan, self._frozen(), phases)

    def shift_deadlines(self, seconds: float) -> None:
        """Give every node whose answer is awaited more time."""
        if not self.waits() or self.model.deadline is None:
            return
        deadline = self.model.deadline + seconds
        for node in self.model.outstanding:
            self._put(node, attrs.evolve(self.status(node), deadline=deadline))
        self.model = attrs.evolve(self.model, deadline=deadline)

    def send_abort(self) -> None:
        """Have the nodes begin nothing more, once a step."""
        if SendAbort() not in self.actions:
            self.actions.append(SendAbort())

    def end(self, turn: RolloutTurn) -> None:
        """End the rollout: what was never asked is skipped."""
        for node in self.in_state("pending", self.plan.nodes):
            self.turn_node(node, NodeTurn.ENDED, detail="")
        self.turn(turn)
        self.model = attrs.evolve(
            self.model, task="over", deadline=None, until=None, paused_since=None, back=(), ended_at=self.now
        )
        self.actions.append(End(state=self.model.state))

    def done(self) -> tuple[RolloutModel, tuple[RolloutAction, ...]]:
        """Return the next model and all actions."""
        model = self._frozen()
        wake = model.wakes_at
        if wake is not None and wake != self._before.wakes_at:
            self.actions.append(WakeAt(at=wake))
        return model, tuple(self.actions)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _counted_phases(self) -> frozenset[DeployPhase]:
        return frozenset({"rollback"}) if self.plan.kind == "rollback" else FORWARD

    def _put(self, node: NodeName, status: NodeStatus) -> None:
        self._nodes[node] = status

    def _frozen(self) -> RolloutModel:
        nodes = self.model.nodes.updated(self._nodes)
        if nodes is not self.model.nodes or self._outstanding is not self.model.outstanding:
            self.model = attrs.evolve(self.model, nodes=nodes, outstanding=self._outstanding)
            self._nodes = {}
        return self.model


def _is(live: Target | None, target: Target) -> bool:
    return live is not None and live.commit == target.commit


def _previous(before: NodeStatus, answer: NodeAnswered | None) -> Target | None:
    """Return what was live before the rollout: as the preparation found it, else what a later answer says."""
    if before.previous is not None or answer is None:
        return before.previous
    return answer.live if answer.phase == "prepare" else answer.previous
