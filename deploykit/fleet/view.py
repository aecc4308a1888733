"""What a person sees of a rollout: plan, model and the nodes' progress, folded into rows and changes. Pure.

Rules:

* Nothing here decides anything: a lost or forged progress event changes a picture, never the rollout.
* Every text is one printable line; rows are bounded by the caller, whatever the size of the fleet.
* A change is announced once. Lines for people, JSON lines and the live picture are made from the same changes.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, Literal

import attrs

from deploykit.fleet.nodesteps import NodeSteps, StepMark, output_lines
from deploykit.fleet.plan import Plan
from deploykit.fleet.rollout import NodeStatus, RolloutModel
from deploykit.messages import DeployProgressed, DeployReported
from deploykit.messages.base import one_line
from deploykit.names import NodeName

#: States of nodes that count against the budget.
BAD: Final = ("failed", "silent", "refused")
#: The order in which states are counted and shown.
STATES: Final = (
    "failed",
    "silent",
    "refused",
    "asked",
    "prepared",
    "active",
    "rolled-back",
    "skipped",
    "pending",
)
#: Names that one line lists before it counts the others.
_NAMED: Final = 3
#: Most reasons against reports in one node's name that are kept.
_DOUBTS: Final = 10
_NOTHING: Mapping[str, int] = MappingProxyType({})


@attrs.frozen(kw_only=True, slots=True)
class ViewChange:
    """Something that a watcher should hear of.

    Args:
        kind: the rollout's state, a node's state, a step's beginning or end, or lines that a step printed.
        node: None for the rollout.
        state: the new state of the rollout, the node or the step.
        phase, step, seconds, exit_code: of a step; `seconds` also of a node: how long its phase took.
        lines: what was printed, for `output`.
    """

    kind: Literal["rollout", "node", "step", "output"]
    node: NodeName | None = None
    state: str = ""
    phase: str = ""
    step: str = ""
    seconds: float = 0.0
    exit_code: int | None = None
    detail: str = ""
    lines: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, slots=True)
class NodeRow:
    """One node as it is shown.

    Args:
        stage: `canary`, or the number of its batch, from 1.
        steps: of all its phases, in order.
        doing: what it is at: a step's name or a phase; empty where it is not waited for.
        seconds: for how long it has been at that.
        output: the last line that it printed.
        detail: why it failed, where it did.
    """

    node: NodeName
    stage: str
    state: str
    steps: tuple[StepMark, ...] = ()
    doing: str = ""
    seconds: float = 0.0
    output: str = ""
    detail: str = ""


@attrs.frozen(kw_only=True, slots=True)
class RolloutPicture:
    """A rollout at one instant.

    Args:
        rows: those that tell most, at most as many as were asked for.
        hidden: how many nodes of each state have no row.
        waiting: what is waited for, e.g. `waiting for web1 (export, 12 s)`; empty where nothing is.
        failures, allowed: used of the failure budget, and its size; the rollout stops beyond it.
        next: what comes next; empty at the end.
    """

    state: str
    elapsed: float
    rows: tuple[NodeRow, ...]
    hidden: Mapping[str, int] = _NOTHING
    counts: Mapping[str, int] = _NOTHING
    total: int = 0
    waiting: str = ""
    failures: int = 0
    allowed: int = 0
    next: str = ""


class RolloutView:
    """Folds models and progress events. Not for several threads at once: the caller has a lock.

    Args:
        plan: of the rollout.
        now: seconds, by the clock that all calls share.
    """

    def __init__(self, plan: Plan, now: float) -> None:
        self.plan = plan
        self.model: RolloutModel | None = None
        self._began = now
        self._steps: dict[NodeName, NodeSteps] = {}
        self._since: dict[NodeName, float] = {}
        self.deadlines: dict[NodeName, float] = {}
        self.doubts: dict[NodeName, tuple[str, ...]] = {}
        self._stage = {node: name for name, nodes in stages(plan) for node in nodes}
        self._order = {node: at for at, node in enumerate(plan.nodes)}

    # -- what comes in -------------------------------------------------------------------------------------------------

    def follow(self, model: RolloutModel, now: float) -> tuple[ViewChange, ...]:
        """Take the rollout's new state, and return what is new in it: answers, what follows from them, questions."""
        before, self.model = self.model, model
        answered: list[ViewChange] = []
        asked: list[ViewChange] = []
        for node, old, status in _changed(before, model):
            if status.deadline is not None:
                self.deadlines[node] = status.deadline
            if old is not None and (old.state, old.phase) == (status.state, status.phase):
                continue
            if old is None and status.state == "pending":
                continue
            took = now - self._since[node] if node in self._since else 0.0
            self._since[node] = now
            if old is not None and old.state == status.state == "asked" and old.phase == "prepare":
                # The last answer of a round: the next command follows in the same step.
                answered.append(self._node_change(node, attrs.evolve(old, state="prepared"), took))
            (asked if status.state == "asked" else answered).append(self._node_change(node, status, took))
        turn = []
        if before is None or before.state != model.state:
            turn.append(ViewChange(kind="rollout", state=model.state, detail=one_line(model.detail)))
        return (*answered, *asked, *turn) if model.ended else (*answered, *turn, *asked)

    def hear(self, event: DeployProgressed, now: float) -> tuple[ViewChange, ...]:
        """Take a node's progress, and return what is new. Events of others' rollouts and nodes are passed over."""
        if event.rollout != self.plan.rollout or event.node not in self._order:
            return ()
        before = self._steps.get(event.node, NodeSteps())
        after = before.heard(event, now)
        self._steps[event.node] = after
        if after is before:
            return ()
        if event.state == "output":
            lines, step = output_lines(event.output), one_line(event.step, 40)
            return (ViewChange(kind="output", node=event.node, phase=event.phase, step=step, lines=lines),)
        return _new_steps(event.node, before, after)

    def reported(self, report: DeployReported, now: float) -> tuple[ViewChange, ...]:
        """Take a believed report, and return the steps in it that no progress event had shown."""
        if report.node not in self._order:
            return ()
        before = self.steps(report.node)
        self._steps[report.node] = after = before.reported(report, now)
        found = []
        for change in _new_steps(report.node, before, after):
            found.append(change)
            lines = after.lines_of(change.step)
            if lines and not before.lines_of(change.step):
                found.append(attrs.evolve(change, kind="output", state="", seconds=0.0, exit_code=None, lines=lines))
        return tuple(found)

    def doubted(self, node: NodeName, reason: str) -> None:
        """Note why a report in the name of a node was not believed."""
        known = self.doubts.get(node, ())
        if node in self._order and reason not in known and len(known) < _DOUBTS:
            self.doubts[node] = (*known, one_line(reason))

    # -- what is shown -------------------------------------------------------------------------------------------------

    def picture(self, now: float, *, rows: int, names: int = _NAMED) -> RolloutPicture:
        """Return the rollout as it is shown now.

        Args:
            rows: at most so many nodes have a row.
            names: a line lists at most so many nodes.
        """
        model = self.model
        statuses = model.nodes if model is not None else {}
        shown = [node for node in heapq.nsmallest(rows, statuses, key=self._interest) if self._has_row(node)]
        shown.sort(key=lambda node: self._order.get(node, 0))
        counts: Counter[str] = Counter(status.state for status in statuses.values())
        if model is None:
            counts["pending"] = len(self.plan.nodes)
        hidden = counts - Counter[str](statuses[node].state for node in shown)
        return RolloutPicture(
            state=model.state if model is not None else "planned",
            elapsed=max(0.0, now - self._began),
            rows=tuple(self.row(node, now) for node in shown),
            hidden=in_order(hidden),
            counts=in_order(counts),
            total=len(self.plan.nodes),
            waiting=self.waiting(now, names),
            failures=model.failures if model is not None else 0,
            allowed=allowed_failures(self.plan),
            next=self._next(names),
        )

    def row(self, node: NodeName, now: float) -> NodeRow:
        """Return one node as it is shown now."""
        status = self.model.nodes[node] if self.model is not None else None
        steps = self._steps.get(node, NodeSteps())
        doing, seconds = self._doing(node, now)
        return NodeRow(
            node=node,
            stage=self._stage.get(node, ""),
            state=status.state if status is not None else "pending",
            steps=steps.steps,
            doing=doing,
            seconds=seconds,
            output=steps.output[-1].text if steps.output else "",
            detail=one_line(status.detail) if status is not None else "",
        )

    def steps(self, node: NodeName) -> NodeSteps:
        """Return what a node reported of its steps."""
        return self._steps.get(node, NodeSteps())

    def waiting(self, now: float, names: int = _NAMED) -> str:
        """Return a line with the nodes that are waited for, those that have been at their step longest first."""
        if self.model is None:
            return ""
        waited = self.model.outstanding
        if not waited:
            return ""
        at = {node: self._doing(node, now) for node in waited}
        longest = heapq.nsmallest(names, at, key=lambda node: (-at[node][1], self._order.get(node, 0)))
        named = [f"{node} ({at[node][0]}, {duration(at[node][1])})" for node in longest]
        more = f" and {len(waited) - names} more" if len(waited) > names else ""
        return f"waiting for {', '.join(named)}{more}"

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _node_change(self, node: NodeName, status: NodeStatus, took: float) -> ViewChange:
        failed = self.steps(node).failed if status.state == "failed" else None
        return ViewChange(
            kind="node",
            node=node,
            state=status.state,
            phase=status.phase or "",
            step=failed.name if failed is not None else "",
            seconds=round(max(0.0, took), 3),
            detail=one_line(status.detail),
        )

    def _doing(self, node: NodeName, now: float) -> tuple[str, float]:
        """Return what a node that is waited for is at, and for how long; an empty text for any other."""
        model = self.model
        if model is None or node not in model.outstanding:
            return "", 0.0
        current = self.steps(node).current
        asked = self._since.get(node, now)
        if current is not None and current.since >= asked:
            return current.name, max(0.0, now - current.since)
        return model.nodes[node].phase or "asked", max(0.0, now - asked)

    def _interest(self, node: NodeName) -> tuple[int, float, int]:
        """Return a key by which the nodes that a watcher wants to see come first."""
        status = self.model.nodes[node] if self.model is not None else None
        state = status.state if status is not None else "pending"
        if state in BAD:
            rank = 0
        elif self.model is not None and node in self.model.outstanding:
            rank = 1
        elif state == "pending":
            rank = 3
        else:
            rank = 2
        return rank, -self._since.get(node, 0.0) if rank == 2 else 0.0, self._order.get(node, 0)

    def _has_row(self, node: NodeName) -> bool:
        return node in self._order

    def _next(self, names: int) -> str:
        """Return what comes after what is under way."""
        model = self.model
        if model is None or model.ended:
            return ""
        if model.state in ("aborting", "rolling-back"):
            return "then it ends"
        rest = stages(self.plan)[model.stage + 1 :]
        if not rest:
            return "then it is done"
        name, nodes = rest[0]
        what = "the canary" if name == "canary" else f"batch {name}"
        return f"next {what}: {some_names(nodes, names)}"


def _changed(
    before: RolloutModel | None, model: RolloutModel
) -> Iterator[tuple[NodeName, NodeStatus | None, NodeStatus]]:
    """Yield the nodes whose status is another one than before, with both; all at first.

    Each answer is a step of the rollout, and changes one node of perhaps thousands: it must cost no look at the others.
    """
    if before is None:
        yield from ((node, None, status) for node, status in model.nodes.items())
        return
    for node in model.nodes.changed_since(before.nodes):
        yield node, before.nodes[node], model.nodes[node]


def _new_steps(node: NodeName, before: NodeSteps, after: NodeSteps) -> tuple[ViewChange, ...]:
    return tuple(
        ViewChange(
            kind="step",
            node=node,
            state=mark.state,
            phase=mark.phase,
            step=mark.name,
            seconds=mark.seconds,
            exit_code=mark.exit_code,
        )
        for mark in after.steps
        if mark not in before.steps
    )


def stages(plan: Plan) -> tuple[tuple[str, tuple[NodeName, ...]], ...]:
    """Return the canary and the batches in order, each with what it is called."""
    canary = (("canary", plan.canary),) if plan.canary else ()
    return (*canary, *((str(at), batch) for at, batch in enumerate(plan.batches, 1)))


def allowed_failures(plan: Plan) -> int:
    """Return how many nodes may fail before the rollout stops."""
    return plan.options.max_failures.of(len(plan.nodes))


def some_names(nodes: Iterable[str], most: int = _NAMED) -> str:
    """Return the first names of a list, and how many more there are."""
    listed = list(nodes)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return f"{', '.join(listed[:most])}{more}"


def duration(seconds: float) -> str:
    """Return a length of time for people.

    >>> duration(0.42), duration(12.3), duration(75), duration(4000)
    ('0.4 s', '12 s', '1 min 15 s', '1 h 6 min')
    """
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


def in_order(counts: Mapping[str, int]) -> Mapping[str, int]:
    """Return counts without zeros, the states that matter most first."""
    known = {state: counts[state] for state in STATES if counts.get(state)}
    return known | {state: count for state, count in counts.items() if count and state not in known}
