"""What follows when a round of commands is over: the next stage, a bake, a pause, going back, the end. Pure.

Rules:

* With `prepare="all"`: after all were asked to prepare, canaries and batches are activated. Who is not prepared when
  its batch comes is left out.
* The budget is looked at when a round is over, not before: what is in flight is waited for.
* A quorum lets nodes that are not prepared be skipped: they do not count in the budget. Canaries always count.
* `on_failure="continue"` ignores the budget of the batches, but neither a canary, nor a quorum, nor the deadline.
* Going back: in batches as large as the last, the newest first, without pauses; a failure there stops nothing.
* What was prepared and not activated is discarded before the end. Who does not answer that stays `prepared`.
"""

from __future__ import annotations

from typing import Final

import attrs

from deploykit.fleet.options import MAX_BATCH
from deploykit.fleet.rolloutdraft import Draft
from deploykit.fleet.rolloutstates import NodeState, RolloutTurn
from deploykit.names import NodeName

_LATE_ROLLOUT: Final = "the deadline of the whole rollout passed"

# -- the budget --------------------------------------------------------------------------------------------------------


def exceeded(draft: Draft) -> str:
    """Return why the rollout has to stop: a canary failed, or more nodes than may. Empty: it need not."""
    plan = draft.plan
    for node in plan.canary:
        if draft.status(node).counted:
            return f"canary {node} {_WHAT.get(draft.status(node).state, 'did not answer in time')}"
    most = plan.options.max_failures.of(len(plan.nodes))
    if plan.options.on_failure == "continue" or draft.model.failures <= most:
        return ""
    return f"{draft.model.failures} of {len(plan.nodes)} nodes failed, refused or were silent, {most} may"


_WHAT: Final = {"failed": "failed", "refused": "refused"}


def out_of_time(draft: Draft) -> bool:
    """Return whether the deadline of the whole rollout has passed."""
    return draft.model.latest is not None and draft.now >= draft.model.latest


# -- forward -----------------------------------------------------------------------------------------------------------


def begin(draft: Draft) -> None:
    """Ask the first nodes."""
    if _all_first(draft):
        draft.turn(RolloutTurn.PREPARE_ALL)
        draft.ask("prepare-all", "prepare", draft.plan.nodes)
    else:
        next_stage(draft)


def round_over(draft: Draft) -> None:
    """Go on after a round: every answer is there, or its deadline has passed."""
    task = draft.model.task
    if task in ("go-back", "discard") or draft.model.state == "aborting":
        unwind(draft)
    elif task == "prepare-all":
        _all_prepared(draft)
    elif why := exceeded(draft):
        stop(draft, why)
    elif task == "prepare" and out_of_time(draft):
        stop(draft, _LATE_ROLLOUT)
    elif task == "prepare":
        _activate(draft)
    elif draft.plan.options.bake and draft.in_state("active", draft.stage()):
        until = draft.now + draft.plan.options.bake
        draft.model = attrs.evolve(draft.model, task="bake", deadline=None, until=until)
    else:
        stage_good(draft)


def look_at_bake(draft: Draft) -> None:
    """End a bake whose time is over, or that went wrong."""
    if why := exceeded(draft):
        stop(draft, why)
    elif out_of_time(draft):
        stop(draft, _LATE_ROLLOUT)
    elif draft.model.until is not None and draft.now >= draft.model.until:
        stage_good(draft)


def stage_good(draft: Draft) -> None:
    """Go on after the canaries or a batch, of which few enough failed."""
    if why := exceeded(draft):
        stop(draft, why)
    elif _following(draft) is None:
        unwind(draft)
    else:
        _boundary(draft, pause=draft.plan.options.pause)


def go_on(draft: Draft) -> None:
    """End a pause. Its time counts to no deadline."""
    model = draft.model
    paused = draft.now - model.paused_since if model.paused_since is not None else 0.0
    latest = model.latest + max(0.0, paused) if model.latest is not None else None
    draft.model = attrs.evolve(model, latest=latest, until=None, paused_since=None, detail="")
    next_stage(draft)


def next_stage(draft: Draft) -> None:
    """Ask the canaries or the next batch; without a node that could be asked, the rollout is over."""
    index = _following(draft)
    if index is None:
        unwind(draft)
        return
    draft.model = attrs.evolve(draft.model, stage=index)
    draft.turn(RolloutTurn.CANARIES if index == 0 and draft.plan.canary else RolloutTurn.BATCH)
    if _all_first(draft):
        _activate(draft)
        return
    pending = draft.in_state("pending", draft.stage())
    if not draft.plan.one_phase:
        draft.ask("prepare", "prepare", pending)
    else:
        draft.ask("activate", "rollback" if draft.plan.kind == "rollback" else "deploy", pending)


def _all_first(draft: Draft) -> bool:
    return draft.plan.options.prepare == "all" and not draft.plan.one_phase


def _all_prepared(draft: Draft) -> None:
    """Decide whether enough nodes are prepared for the first activation."""
    plan, quorum = draft.plan, draft.plan.options.quorum
    prepared = len(draft.in_state("prepared", plan.nodes))
    if quorum is not None:
        needed = quorum.of(len(plan.nodes))
        if prepared < needed:
            stop(draft, f"{prepared} of {len(plan.nodes)} nodes are prepared, the quorum is {needed}")
            return
        draft.uncount(plan.nodes[len(plan.canary) :])
    if why := exceeded(draft):
        stop(draft, why)
    elif not prepared:
        stop(draft, "no node is prepared")
    else:
        draft.turn(RolloutTurn.ENOUGH_PREPARED)
        _boundary(draft, pause=0.0)


def _activate(draft: Draft) -> None:
    """Activate those of the stage that are prepared."""
    prepared = draft.in_state("prepared", draft.stage())
    if prepared:
        draft.ask("activate", "activate", prepared)
    else:
        stage_good(draft)


def _boundary(draft: Draft, *, pause: float | str) -> None:
    """Pause between two stages, or go on at once."""
    asked = draft.model.pause_asked
    if out_of_time(draft):
        stop(draft, _LATE_ROLLOUT)
    elif asked or pause:
        draft.model = attrs.evolve(
            draft.model,
            task="pause",
            until=None if asked or isinstance(pause, str) else draft.now + pause,
            deadline=None,
            paused_since=draft.now,
            pause_asked="",
            detail=asked or "paused between batches",
        )
        draft.turn(RolloutTurn.PAUSE)
    else:
        next_stage(draft)


def _following(draft: Draft) -> int | None:
    """Return the index of the next stage with a node to ask; None where there is none."""
    wanted: NodeState = "prepared" if _all_first(draft) else "pending"
    stages = draft.plan.stages
    for index in range(draft.model.stage + 1, len(stages)):
        if draft.any_in_state(wanted, stages[index]):
            return index
    return None


# -- the ways out ------------------------------------------------------------------------------------------------------


def stop(draft: Draft, why: str) -> None:
    """Ask no further node to go forward. A node that is silent must not begin later: hence the abort."""
    back = draft.plan.options.on_failure == "rollback"
    draft.model = attrs.evolve(draft.model, detail=why, deadline=None, until=None, pause_asked="", going_back=back)
    if draft.any_in_state("silent", draft.plan.nodes):
        draft.send_abort()
    unwind(draft, stopped=True)


def unwind(draft: Draft, *, stopped: bool = False) -> None:
    """Take back what was activated where that is wanted, then discard what was prepared, then end.

    Args:
        draft: the step.
        stopped: something was against going on: that is no success, even with every node active.
    """
    model = draft.model
    if model.going_back and model.state != "rolling-back":
        back = _back(draft)
        draft.model = attrs.evolve(model, back=back)
        if back:
            draft.turn(RolloutTurn.GO_BACK)
    size = min(draft.plan.options.batch[-1].of(len(draft.plan.nodes)), MAX_BATCH)
    while draft.model.back:
        batch, rest = draft.model.back[:size], draft.model.back[size:]
        draft.model = attrs.evolve(draft.model, back=rest)
        if batch := tuple(node for node in batch if draft.goes_back(node)):
            draft.ask("go-back", "rollback", batch)
            return
    if prepared := draft.to_discard():
        if draft.model.state not in ("aborting", "rolling-back"):
            draft.turn(RolloutTurn.STOP)
        draft.ask("discard", "discard", prepared)
        return
    _end(draft, stopped=stopped)


def _back(draft: Draft) -> tuple[NodeName, ...]:
    """Return the nodes that go back, the newest first; those that are silent last, for they may cost a deadline."""
    nodes = [node for node in reversed(draft.plan.nodes) if draft.goes_back(node)]
    return tuple(sorted(nodes, key=lambda node: draft.status(node).state == "silent"))


def _end(draft: Draft, *, stopped: bool) -> None:
    model = draft.model
    if model.state == "rolling-back":
        stayed = any(_stayed(draft, node) for node in draft.plan.nodes)
        draft.end(RolloutTurn.NOT_ALL_ACTIVE if stayed else RolloutTurn.ALL_BACK)
    elif model.aborted:
        draft.end(RolloutTurn.ABORTED)
    elif not stopped and model.state in ("canary", "rolling") and draft.all_active():
        draft.end(RolloutTurn.ALL_ACTIVE)
    else:
        draft.end(RolloutTurn.NOT_ALL_ACTIVE)


def _stayed(draft: Draft, node: NodeName) -> bool:
    """Return whether a node has not gone back, as far as known, though it should have."""
    status = draft.status(node)
    asked = status.phase == "rollback" and status.state != "rolled-back"
    return asked or draft.goes_back(node) or (status.previous is None and draft.may_have(node))
