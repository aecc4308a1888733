"""A rollout from one node to all of them, as a pure function: (plan, event, now) -> (model, actions).

Rules:

* Nothing here sends, reads a clock or keeps state: who folds the same events has the same model.
* Canaries come first, and none of them may fail. Then come the batches. Pauses are only between them.
* One failure budget counts for the whole rollout. It stops when more nodes failed, refused or were silent.
* A round of commands ends when every node has answered or its deadline has passed; only then anything else begins.
* A late answer never turns a finished state back. A silent node that answers late has the state that it reports.
* After its end a rollout changes no more, and wants nothing.

What follows after a round is in `fleet.rolloutstages`, the tables of states in `fleet.rolloutstates`.
docs/rollouts.md explains all of it.
"""

from __future__ import annotations

from typing import Final, assert_never

import attrs

from deploykit.errors import UsageError
from deploykit.fleet.plan import Plan, Target, make_plan
from deploykit.fleet.rolloutdraft import Draft
from deploykit.fleet.rolloutevents import (
    AbortAsked,
    Announce,
    Ask,
    CoordinatorCameBack,
    End,
    NodeAnswered,
    PauseAsked,
    PromoteAsked,
    ResumeAsked,
    RolloutAction,
    RolloutEvent,
    SendAbort,
    TimePassed,
    WakeAt,
)
from deploykit.fleet.rolloutmodel import NodeStatus, RolloutModel, outstanding_asks
from deploykit.fleet.rolloutstages import begin, go_on, look_at_bake, round_over, stage_good, unwind
from deploykit.fleet.rolloutstates import ENDS, NodeState, NodeTurn, RolloutTurn

__all__ = [
    "ENDS",
    "AbortAsked",
    "Announce",
    "Ask",
    "CoordinatorCameBack",
    "End",
    "NodeAnswered",
    "NodeState",
    "NodeStatus",
    "PauseAsked",
    "PromoteAsked",
    "ResumeAsked",
    "RolloutAction",
    "RolloutEvent",
    "RolloutModel",
    "SendAbort",
    "Target",
    "TimePassed",
    "WakeAt",
    "outstanding_asks",
    "retry_plan",
    "start",
    "step",
]


def start(plan: Plan, now: float) -> tuple[RolloutModel, tuple[RolloutAction, ...]]:
    """Begin a rollout. Return its model and what is to be done first.

    Args:
        plan: from `make_plan`.
        now: wall-clock seconds.
    """
    deadline = plan.options.deadline
    latest = now + deadline if deadline is not None else None
    draft = Draft(plan, RolloutModel(nodes=dict.fromkeys(plan.nodes, NodeStatus()), latest=latest), now)
    begin(draft)
    return draft.done()


def step(
    plan: Plan, model: RolloutModel, event: RolloutEvent, now: float
) -> tuple[RolloutModel, tuple[RolloutAction, ...]]:
    """Take one event. Return the next model and what is to be done, in this order.

    Args:
        plan: as it was given to `start`.
        model: as it stands.
        event: what happened. An answer counts if it comes before its deadline was looked at.
        now: wall-clock seconds.
    """
    if model.ended:
        return model, ()
    draft = Draft(plan, model, now)
    match event:
        case NodeAnswered():
            _answer(draft, event)
        case PauseAsked():
            _pause_asked(draft, event)
        case ResumeAsked():
            _resume(draft)
        case PromoteAsked():
            _promote(draft)
        case AbortAsked():
            _abort(draft, event)
        case CoordinatorCameBack():
            _came_back(draft, max(0.0, event.away))
        case TimePassed():
            pass
        case _:
            assert_never(event)
    _look_at_the_time(draft)
    return draft.done()


def retry_plan(plan: Plan, model: RolloutModel, *, rollout: str | None = None, requested_by: str | None = None) -> Plan:
    """Return a new rollout of the nodes that failed, refused or were silent, with the same options.

    Args:
        plan: of a rollout that has ended.
        model: at its end.
        rollout: the new id; made up where it is None.
        requested_by: who wants it; as before where it is None.

    Raises:
        UsageError: it has not ended, or there is no such node.
    """
    if not model.ended:
        raise UsageError(f"rollout {plan.rollout} has not ended", "wait for its end, or abort it")
    nodes = [node for node in plan.nodes if _worth_a_retry(model.nodes[node])]
    if not nodes:
        raise UsageError(f"no node of rollout {plan.rollout} failed, refused or was silent", "nothing is left to retry")
    options = plan.options
    if options.first_nodes is not None:
        options = attrs.evolve(options, first_nodes=options.first_nodes.intersection(nodes) or None)
    if options.quorum is not None and options.quorum.of(len(nodes)) > len(nodes):
        options = attrs.evolve(options, quorum=None)
    return make_plan(
        site=plan.site,
        nodes=nodes,
        target=plan.targets,
        kind=plan.kind,
        options=options,
        rollout=rollout,
        requested_by=plan.requested_by if requested_by is None else requested_by,
        correlation_id=plan.correlation_id,
    )


def _worth_a_retry(status: NodeStatus) -> bool:
    return status.state in ("failed", "silent", "refused") or (status.counted and status.state != "active")


# -- answers -----------------------------------------------------------------------------------------------------------


def _answer(draft: Draft, event: NodeAnswered) -> None:
    """Take a node's answer to the last phase it was asked for; any other is a late copy, and is ignored."""
    status = draft.model.nodes.get(event.node)
    if status is None or status.phase != event.phase:
        return
    turn = _turn_of(draft.plan, event)
    if draft.awaits(event.node):
        draft.answered(event.node)
        draft.turn_node(event.node, turn, detail=event.detail, answer=event)
        if not draft.waits():
            round_over(draft)
    elif turn in _LATE and draft.turn_node(event.node, _LATE[turn], detail=event.detail, answer=event):
        _late(draft, event)
    elif draft.model.task == "bake" and turn is NodeTurn.FAILED and event.node in draft.stage():
        draft.turn_node(event.node, NodeTurn.FAILED_BAKING, detail=event.detail, answer=event)


def _turn_of(plan: Plan, event: NodeAnswered) -> NodeTurn:
    if event.phase == "discard":
        return NodeTurn.DISCARDED if event.outcome == "success" else NodeTurn.NOT_DISCARDED
    if event.outcome == "refused":
        return NodeTurn.REFUSED
    if event.outcome != "success":
        return NodeTurn.FAILED
    if event.phase == "prepare":
        return NodeTurn.PREPARED
    return NodeTurn.WENT_BACK if event.phase == "rollback" and plan.kind == "deploy" else NodeTurn.ACTIVATED


_LATE: Final = {
    NodeTurn.PREPARED: NodeTurn.LATE_PREPARED,
    NodeTurn.ACTIVATED: NodeTurn.LATE_ACTIVATED,
    NodeTurn.WENT_BACK: NodeTurn.LATE_WENT_BACK,
    NodeTurn.DISCARDED: NodeTurn.LATE_DISCARDED,
    NodeTurn.FAILED: NodeTurn.LATE_FAILED,
    NodeTurn.REFUSED: NodeTurn.LATE_REFUSED,
}


def _late(draft: Draft, event: NodeAnswered) -> None:
    """While the others go back, one that was activated late goes back, too."""
    model = draft.model
    if model.going_back and event.phase != "rollback" and event.node not in model.back and draft.goes_back(event.node):
        draft.model = attrs.evolve(model, back=(*model.back, event.node))


# -- what people want --------------------------------------------------------------------------------------------------


def _pause_asked(draft: Draft, event: PauseAsked) -> None:
    """Pause at the next boundary; a pause that is timed has no end any more. Whatever ends is not held up."""
    model = draft.model
    why = f"paused {_by(event.by)}"
    if model.task == "pause":
        draft.model = attrs.evolve(model, until=None, detail=why)
    elif model.state not in ("aborting", "rolling-back"):
        draft.model = attrs.evolve(model, pause_asked=why)


def _by(who: str) -> str:
    return f"by {who}" if who else "by hand"


def _resume(draft: Draft) -> None:
    draft.model = attrs.evolve(draft.model, pause_asked="")
    if draft.model.task == "pause":
        go_on(draft)


def _promote(draft: Draft) -> None:
    baking = draft.model.task == "bake"
    _resume(draft)
    if baking:
        stage_good(draft)


def _abort(draft: Draft, event: AbortAsked) -> None:
    """End the rollout: what is in flight is waited for, what was prepared is discarded.

    Where it ends already, only going back changes: with `rollback` it begins, without it ends.
    """
    model = draft.model
    back = event.rollback and draft.plan.kind == "deploy"
    draft.send_abort()
    if model.state == "rolling-back" and back:
        return
    if model.state == "aborting":
        draft.model = attrs.evolve(model, going_back=model.going_back or back)
        return
    why = f"aborted {_by(event.by)}"
    draft.model = attrs.evolve(model, aborted=True, going_back=back, back=(), pause_asked="", until=None, detail=why)
    draft.turn(RolloutTurn.ABORT)
    if not draft.waits():
        unwind(draft)


# -- time --------------------------------------------------------------------------------------------------------------


def _came_back(draft: Draft, away: float) -> None:
    """Give back the time in which nobody listened: it counts to no deadline, and to no bake."""
    draft.shift_deadlines(away)
    model = draft.model
    baking, paused = model.task == "bake", model.task == "pause"
    draft.model = attrs.evolve(
        model,
        until=model.until + away if baking and model.until is not None else model.until,
        latest=model.latest + away if model.latest is not None and not paused else model.latest,
    )


def _look_at_the_time(draft: Draft) -> None:
    """Do what is due: nodes that are out of time are silent, a bake or a pause ends."""
    model = draft.model
    if draft.waits():
        if model.deadline is not None and draft.now >= model.deadline:
            _deadline_passed(draft)
    elif model.task == "bake":
        look_at_bake(draft)
    elif model.task == "pause" and model.until is not None and draft.now >= model.until:
        go_on(draft)


def _deadline_passed(draft: Draft) -> None:
    discarding = draft.model.task == "discard"
    awaited = draft.awaited()
    draft.answered(*awaited)
    for node in awaited:
        if discarding:
            draft.turn_node(node, NodeTurn.NOT_DISCARDED, detail="did not answer the discard in time")
        else:
            draft.turn_node(node, NodeTurn.DEADLINE, detail="did not answer in time; it may yet obey")
    round_over(draft)
