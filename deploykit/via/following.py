"""A rollout that a console coordinates, as far as its API shows it, in the values that displays know. Pure.

Rules:

* The state of the rollout is its coordinator's. Of nodes the console knows what they said, not what is awaited.
* A node whose answer is missing when the rollout has ended was silent, or what its coordinator says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, cast, get_args

from deploykit.errors import ActionRefused, InvalidName
from deploykit.fleet.options import MAX_BATCH
from deploykit.fleet.plan import Plan, Target
from deploykit.fleet.rolloutmodel import NodeStatus, RolloutModel
from deploykit.fleet.rolloutstates import ENDS, NodeState
from deploykit.messages import DeployProgressed
from deploykit.messages.deploy import DeployPhase
from deploykit.messages.progress import ProgressState
from deploykit.messages.rollout import RolloutKind, RolloutState
from deploykit.names import (
    NodeName,
    ObjectId,
    RefName,
    parse_node_name,
    parse_object_id,
    parse_ref_name,
    parse_site_name,
)
from deploykit.via.answers import FollowedNode, FollowedRollout, FollowedStep
from deploykit.web.actions.shown import PlanShown

#: What stands where a console does not say which commit a node gets: nobody has such a one.
NO_TARGET: Final = Target(ref=RefName("refs/heads/?"), commit=ObjectId("0" * 40))
_PHASES: Final[tuple[DeployPhase, ...]] = get_args(DeployPhase)
_STATES: Final[tuple[RolloutState, ...]] = get_args(RolloutState)
_STEPS: Final = ("began", "done", "failed", "skipped")


def plan_of_shown(shown: PlanShown, rollout: str) -> Plan:
    """Return the plan that was shown, as displays know it.

    Raises:
        ActionRefused: a name in it is none.
    """
    stages: dict[int, list[NodeName]] = {}
    targets: dict[NodeName, Target] = {}
    try:
        for each in shown.nodes:
            node = parse_node_name(each.node)
            stages.setdefault(each.stage, []).append(node)
            targets[node] = _target(each.to_ref or shown.ref, each.to_commit or shown.commit)
        return _plan(rollout, shown.kind, shown.site, stages, targets)
    except InvalidName as error:
        raise ActionRefused(f"the console shows a plan that cannot be: {error}", "nothing was done") from None


def plan_of_rollout(rollout: FollowedRollout, nodes: Sequence[FollowedNode]) -> Plan:
    """Return what is known of the plan of a rollout that was begun by somebody else.

    Raises:
        ActionRefused: a name in it is none.
    """
    try:
        names = [parse_node_name(each.node) for each in nodes]
        target = _target(rollout.ref, rollout.commit)
        kind: RolloutKind = "rollback" if rollout.kind == "rollback" else "deploy"
        return _plan(rollout.rollout, kind, rollout.site, {1: names}, dict.fromkeys(names, target))
    except InvalidName as error:
        raise ActionRefused(f"the console shows a rollout that cannot be: {error}") from None


def _plan(
    rollout: str,
    kind: RolloutKind,
    site: str,
    stages: Mapping[int, Sequence[NodeName]],
    targets: Mapping[NodeName, Target],
) -> Plan:
    canary = tuple(stages.get(0, ()))
    batches = [
        tuple(nodes[at : at + MAX_BATCH])
        for stage, nodes in sorted(stages.items())
        if stage != 0
        for at in range(0, len(nodes), MAX_BATCH)
    ]
    return Plan(
        rollout=rollout,
        kind=kind,
        site=parse_site_name(site),
        nodes=(*canary, *(node for batch in batches for node in batch)),
        targets=targets,
        canary=canary,
        batches=tuple(batches),
    )


def _target(ref: str, commit: str) -> Target:
    if not ref or not commit:
        return NO_TARGET
    return Target(ref=parse_ref_name(ref), commit=parse_object_id(commit))


def model_of(plan: Plan, rollout: FollowedRollout, nodes: Mapping[str, FollowedNode], now: float) -> RolloutModel:
    """Return how a rollout stands.

    Args:
        plan: of the rollout.
        rollout: as its coordinator announced it.
        nodes: by name, as the console heard them.
        now: seconds since 1970.
    """
    state: RolloutState = rollout.state if rollout.state in _STATES else "planned"
    over = state in ENDS
    statuses = {node: status_of(nodes.get(node), plan.kind, over=over) for node in plan.nodes}
    if over:
        statuses |= {node: _counted_as(plan, rollout) for node in tuple(_unheard(statuses, rollout))}
    waits = state == "paused"
    at_work = [at for at, stage in enumerate(plan.stages) if any(statuses[node].state != "pending" for node in stage)]
    return RolloutModel(
        state=state,
        nodes=statuses,
        outstanding={
            node: status.phase for node, status in statuses.items() if status.state == "asked" and status.phase
        },
        task="pause" if waits else "over",
        paused_since=now if waits else None,
        stage=max(at_work, default=-1),
        failures=sum(status.state in ("failed", "refused", "silent") for status in statuses.values()),
        detail=rollout.detail,
        ended_at=now if over else None,
    )


def _unheard(statuses: Mapping[NodeName, NodeStatus], rollout: FollowedRollout) -> Iterator[NodeName]:
    """Yield the nodes that the coordinator names as bad, and whose own report the console does not show."""
    for name in rollout.failed:
        status = statuses.get(NodeName(name))
        if status is not None and status.state in ("pending", "skipped"):
            yield NodeName(name)


def _counted_as(plan: Plan, rollout: FollowedRollout) -> NodeStatus:
    """Return how a node stands that the coordinator names as bad: its word, where all bad nodes have the same."""
    words: list[NodeState] = ["failed", "silent", "refused"]
    counted = [state for state in words if rollout.counts.get(state)]
    phase: DeployPhase = "rollback" if plan.kind == "rollback" else "deploy" if plan.one_phase else "prepare"
    return NodeStatus(state=counted[0] if len(counted) == 1 else "failed", phase=phase)


def agrees(model: RolloutModel, rollout: FollowedRollout) -> bool:
    """Return whether nodes said what their coordinator counted; until then some of their reports are on their way."""
    counted = {state: count for state, count in rollout.counts.items() if count}
    return not counted or counted == dict(model.counts)


def status_of(node: FollowedNode | None, kind: RolloutKind, *, over: bool) -> NodeStatus:
    """Return how a node stands."""
    if node is None or not node.state:
        return NodeStatus(state="skipped" if over else "pending")
    phase = node.phase if node.phase in _PHASES else None
    state: NodeState
    match node.state:
        case "began":
            state = "silent" if over else "asked"
        case "success":
            state = _good(node.phase, kind)
        case "refused":
            state = "refused"
        case _:
            state = "failed"
    return NodeStatus(state=state, phase=phase, detail=node.detail)


def _good(phase: str, kind: RolloutKind) -> NodeState:
    if phase == "prepare":
        return "prepared"
    if phase == "discard":
        return "skipped"
    return "rolled-back" if phase == "rollback" and kind == "deploy" else "active"


def progress_of(
    plan: Plan, node: FollowedNode, before: FollowedNode | None, now: datetime
) -> Iterator[DeployProgressed]:
    """Yield what is new in the steps of a node, as the node itself would have announced it."""
    known = set(before.steps) if before is not None else set[FollowedStep]()
    for number, each in enumerate(node.steps):
        if each in known or each.state not in _STEPS or each.phase not in _PHASES or not each.name:
            continue
        yield DeployProgressed(
            source=node.node,
            time=now,
            node=NodeName(node.node),
            site=plan.site,
            request=f"{node.request or 'via'}:{each.phase}"[:255],
            rollout=plan.rollout,
            phase=each.phase,
            number=2 * number + (each.state != "began"),
            step=each.name,
            state=cast(ProgressState, each.state),
            seconds=max(0.0, each.seconds),
            exit_code=each.exit_code,
        )


def parts_of(lines: Sequence[str], node: FollowedNode) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the lines of a log by steps: before each the log has a line `--- STEP ---`.

    Lines before the first such line are of the step that failed, else of no step that is known.
    """
    names = {step.name for step in node.steps}
    failed = [step.name for step in node.steps if step.state == "failed"]
    step, part = failed[-1] if failed else "", list[str]()
    for line in lines:
        if line.startswith("--- ") and line.endswith(" ---") and line[4:-4] in names:
            if part:
                yield step, part
            step, part = line[4:-4], []
        else:
            part.append(line)
    if part:
        yield step, part


def printed_of(plan: Plan, node: FollowedNode, step: str, lines: Sequence[str], now: datetime) -> DeployProgressed:
    """Return lines that a step of a node printed, as the node itself would have announced them."""
    return DeployProgressed(
        source=node.node,
        time=now,
        node=NodeName(node.node),
        site=plan.site,
        request=f"{node.request or 'via'}:{node.phase}"[:255],
        rollout=plan.rollout,
        phase=node.phase if node.phase in _PHASES else "deploy",
        number=1_000_000,
        step=step or "?",
        state="output",
        output="\n".join(lines),
    )


__all__ = [
    "NO_TARGET",
    "agrees",
    "model_of",
    "parts_of",
    "plan_of_rollout",
    "plan_of_shown",
    "printed_of",
    "progress_of",
    "status_of",
]
