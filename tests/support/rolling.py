"""A rollout driven by hand: nodes that answer as the test says, a clock that the test moves, and everything kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from deploykit.fleet.plan import Amount, Plan, RolloutOptions, Target, make_plan
from deploykit.fleet.rollout import (
    Ask,
    End,
    NodeAnswered,
    RolloutAction,
    RolloutEvent,
    RolloutModel,
    TimePassed,
    start,
    step,
)
from deploykit.messages.deploy import DeployOutcome, DeployPhase
from deploykit.messages.rollout import RolloutKind
from deploykit.names import NodeName, ObjectId, RefName, SiteName

OLD = Target(ref=RefName("refs/tags/v1"), commit=ObjectId("a" * 40))
NEW = Target(ref=RefName("refs/tags/v2"), commit=ObjectId("b" * 40))
#: Wall-clock seconds at which rollouts of tests begin.
NOON = 1_700_000_000.0


def names(*numbers: int) -> tuple[NodeName, ...]:
    """Node names `n1`, `n2` … of numbers."""
    return tuple(NodeName(f"n{number}") for number in numbers)


def plan_of(
    count: int,
    options: RolloutOptions | None = None,
    *,
    kind: RolloutKind = "deploy",
    target: Target | Mapping[NodeName, Target] = NEW,
) -> Plan:
    """The plan of a rollout to `n1` … `n<count>`; without options the defaults, but batches of one."""
    chosen = options or RolloutOptions(batch=(Amount.parse("1"),))
    return make_plan(
        site=SiteName("shop"), nodes=names(*range(1, count + 1)), target=target, kind=kind, options=chosen, rollout="r1"
    )


def options(**chosen: Any) -> RolloutOptions:
    """Options of which amounts are given as texts."""
    amounts = ("first", "max_failures", "quorum")
    made: dict[str, Any] = {key: Amount.parse(value) if key in amounts else value for key, value in chosen.items()}
    if "batch" in made:
        made["batch"] = tuple(Amount.parse(part) for part in str(made["batch"]).split(","))
    return attrs.evolve(RolloutOptions(), **made)


class Drill:
    """A rollout under way. `new` holds the actions of the last step, `actions` all."""

    def __init__(self, plan: Plan, now: float = NOON) -> None:
        self.plan = plan
        self.now = now
        self.model, first = start(plan, now)
        self.new: tuple[RolloutAction, ...] = first
        self.actions: list[RolloutAction] = list(first)
        self.events: list[tuple[RolloutEvent, float]] = []

    def do(self, event: RolloutEvent, *, after: float = 0.0) -> tuple[RolloutAction, ...]:
        """Let an event happen, some seconds later. Return the actions."""
        self.now += after
        self.events.append((event, self.now))
        self.model, self.new = step(self.plan, self.model, event, self.now)
        self.actions += self.new
        return self.new

    def wait(self, seconds: float) -> tuple[RolloutAction, ...]:
        """Let time pass."""
        return self.do(TimePassed(), after=seconds)

    def answer(
        self,
        node: str,
        outcome: DeployOutcome = "success",
        *,
        phase: DeployPhase | None = None,
        live: Target | None = None,
        previous: Target | None = OLD,
        after: float = 0.0,
    ) -> tuple[RolloutAction, ...]:
        """Let a node answer: the phase it was asked for last, with what a node shows that had v1 before."""
        name = NodeName(node)
        what = phase or self.model.nodes[name].phase
        assert what is not None, "it was never asked"
        return self.do(self.made(name, outcome, what, live=live, previous=previous), after=after)

    def made(
        self,
        node: NodeName,
        outcome: DeployOutcome,
        phase: DeployPhase,
        *,
        live: Target | None = None,
        previous: Target | None = OLD,
    ) -> NodeAnswered:
        """The answer of a node."""
        switched = outcome == "success" and phase in ("deploy", "activate")
        shown = live or (self.plan.targets[node] if switched else OLD)
        why = "" if outcome == "success" else f"{phase} ended as {outcome}"
        return NodeAnswered(node=node, phase=phase, outcome=outcome, live=shown, previous=previous, detail=why)

    def all(self, outcome: DeployOutcome = "success", **others: DeployOutcome) -> None:
        """Let every node that is asked answer once, in order; some, by name, with another outcome."""
        for node in self.model.waiting_for:
            self.answer(node, others.get(node, outcome))

    def to_the_end(self, outcome: DeployOutcome = "success") -> None:
        """Let every node answer, and time pass where that alone helps, until the rollout is over."""
        for _ in range(100_000):
            if self.model.ended:
                return
            if self.model.outstanding:
                self.all(outcome)
            else:
                assert self.model.wakes_at is not None, "nothing would ever happen"
                self.wait(self.model.wakes_at - self.now)
        raise AssertionError("no end")

    @property
    def asked(self) -> list[tuple[DeployPhase, tuple[str, ...]]]:
        """What was asked so far, in order."""
        return asks(self.actions)

    @property
    def states(self) -> dict[str, str]:
        """The state of each node."""
        return {str(node): status.state for node, status in self.model.nodes.items()}

    @property
    def state(self) -> str:
        """The state of the rollout."""
        return self.model.state

    @property
    def task(self) -> str:
        """What it is at."""
        return self.model.task

    @property
    def ends(self) -> list[str]:
        """The ends, of which there must be at most one."""
        return [action.state for action in self.actions if isinstance(action, End)]

    @property
    def code(self) -> int:
        """The exit code."""
        return self.model.exit_code(self.plan)


def asks(actions: Iterable[RolloutAction]) -> list[tuple[DeployPhase, tuple[str, ...]]]:
    """Phase and nodes of the commands among some actions."""
    return [(action.phase, tuple(action.nodes)) for action in actions if isinstance(action, Ask)]


def folded(plan: Plan, events: Iterable[tuple[RolloutEvent, float]], now: float = NOON) -> RolloutModel:
    """The model that the same events make of the same plan."""
    model, _ = start(plan, now)
    for event, when in events:
        model, _ = step(plan, model, event, when)
    return model
