"""How a rollout ended, node by node, for the person who has to go on from there. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime

import attrs

from deploykit.fleet.nodesteps import NodeSteps
from deploykit.fleet.plan import Plan
from deploykit.fleet.rollout import RolloutModel
from deploykit.fleet.view import BAD, RolloutView, in_order
from deploykit.messages.base import one_line
from deploykit.names import NodeName


@attrs.frozen(kw_only=True, slots=True)
class NodeOutcome:
    """A node that is not as it was wanted.

    Args:
        phase, step: what it was at; empty where unknown.
        detail: why.
        output: the last lines that it printed.
        doubts: why reports in its name were not believed: it is not simply silent.
        may_obey_until: of a silent node: the command that it may have expires then, clocks included.
    """

    node: NodeName
    state: str
    phase: str = ""
    step: str = ""
    detail: str = ""
    output: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    may_obey_until: datetime | None = None


@attrs.frozen(kw_only=True, slots=True)
class RolloutSummary:
    """A rollout at its end, or where it was left.

    Args:
        changed: nodes on which the new release is live, and was not before: what a rollback would be for.
        bad: nodes that failed, refused or were silent, in the plan's order.
        left: how many nodes were never asked, or only prepared.
        later: a rollout of the site that was begun after this one; empty where none is known.
    """

    plan: Plan
    state: str
    detail: str
    exit_code: int
    counts: Mapping[str, int]
    bad: tuple[NodeOutcome, ...]
    changed: tuple[NodeName, ...]
    left: int
    later: str = ""


def summarize(
    plan: Plan, model: RolloutModel, view: RolloutView | None = None, *, skew: float = 0.0, later: str = ""
) -> RolloutSummary:
    """Return how a rollout stands.

    Args:
        plan, model: the rollout.
        view: what was seen of it; None where only the journal is known.
        skew: seconds that the nodes' clocks may differ from ours.
        later: a rollout of the site that was begun after this one.
    """
    states: list[str] = [model.nodes[node].state for node in plan.nodes]
    return RolloutSummary(
        plan=plan,
        state=model.state,
        detail=one_line(model.detail),
        exit_code=model.exit_code(plan),
        counts=in_order(Counter(states)),
        bad=tuple(_outcome(node, model, view, skew) for node in plan.nodes if model.nodes[node].state in BAD),
        changed=tuple(node for node in plan.nodes if _changed(plan, model, node)),
        left=sum(state in ("pending", "skipped", "prepared", "asked") for state in states),
        later=later,
    )


def _changed(plan: Plan, model: RolloutModel, node: NodeName) -> bool:
    status = model.nodes[node]
    had = status.previous is not None and status.previous.commit == plan.targets[node].commit
    return status.state == "active" and not had


def _outcome(node: NodeName, model: RolloutModel, view: RolloutView | None, skew: float) -> NodeOutcome:
    status = model.nodes[node]
    steps = view.steps(node) if view is not None else NodeSteps()
    at = steps.failed if status.state == "failed" else steps.current
    deadline = view.deadlines.get(node, status.deadline) if view is not None else status.deadline
    until = datetime.fromtimestamp(deadline + skew, UTC) if deadline is not None and status.state == "silent" else None
    return NodeOutcome(
        node=node,
        state=status.state,
        phase=status.phase or "",
        step=at.name if at is not None else "",
        detail=one_line(status.detail),
        output=steps.lines_of(at.name) if at is not None and status.state == "failed" else (),
        doubts=view.doubts.get(node, ()) if view is not None else (),
        may_obey_until=until,
    )
