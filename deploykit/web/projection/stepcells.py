"""The steps of a node in a rollout, as its row keeps them: those of each phase. Pure.

Rules:

* A phase has the steps of its newest command; what is still on its way from an older one is passed over.
* Phases stand in the order in which a rollout goes through them, steps in the order in which they were heard of.
* A report has the last word: an event that comes after it changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from deploykit.messages import DeployProgressed, DeployReported
from deploykit.web.projection.cells import Row, clean
from deploykit.web.projection.rolloutviews import phase_order

#: Most steps of one phase.
MOST_STEPS: Final = 200


def with_event(steps: list[Row], message: DeployProgressed, at: int, order: str) -> list[Row]:
    """Return steps after one of them began or ended.

    Args:
        steps: of all phases.
        at: when, in microseconds.
        order: of the message (`folding.heard_order`).
    """
    mine, others = _divided(steps, message, order)
    if mine is None or any(step.get("final") for step in mine):
        return steps
    changed = {
        "name": message.step,
        "state": message.state,
        "phase": message.phase,
        "began": at,
        **_command(message, order),
    }
    if message.state != "began":
        changed |= {"seconds": message.seconds, "exit_code": message.exit_code}
    for position, each in enumerate(mine):
        if each["name"] == message.step:
            if message.state == "began" and each["state"] != "began":
                return steps  # its end came first
            mine[position] = {**each, **changed, "began": each.get("began", at)}
            return _sorted([*others, *mine])
    return _sorted([*others, *[*mine, changed][:MOST_STEPS]])


def with_report(steps: list[Row], message: DeployReported, order: str) -> list[Row]:
    """Return steps of all phases after a report: it has all of its command's, in their order."""
    mine, others = _divided(steps, message, order)
    if mine is None or not message.steps:
        return steps
    began = {step["name"]: step.get("began") for step in mine}
    reported = [
        {
            "name": each.name,
            "state": each.outcome,
            "phase": message.phase,
            "seconds": each.seconds,
            "exit_code": each.exit_code,
            "began": began.get(each.name),
            "final": True,
            **_command(message, order),
        }
        for each in message.steps[:MOST_STEPS]
    ]
    return _sorted([*others, *reported])


def merged_steps(steps: list[Row], others: list[Row]) -> list[Row]:
    """Return the steps of two rows of one node: of each phase those of the newer command."""
    phases = {step["phase"]: None for step in (*steps, *others)}
    of = [[[step for step in each if step["phase"] == phase] for each in (steps, others)] for phase in phases]
    return _sorted([step for pair in of for step in max(pair, key=_newest)])


def _newest(steps: list[Row]) -> str:
    return max((str(step.get("ord", "")) for step in steps), default="")


def _command(message: DeployProgressed | DeployReported, order: str) -> Row:
    return {"request": clean(message.request), "ord": order}


def _divided(
    steps: Iterable[Row], message: DeployProgressed | DeployReported, order: str
) -> tuple[list[Row] | None, list[Row]]:
    """Return the steps of a message's command, and those of other phases; None: a newer command has its phase."""
    others = [step for step in steps if step["phase"] != message.phase]
    phase = [step for step in steps if step["phase"] == message.phase]
    request = clean(message.request)
    mine = [step for step in phase if step.get("request") == request]
    if not mine and any(step.get("ord", "") > order for step in phase):
        return None, others
    return mine, others


def _sorted(steps: list[Row]) -> list[Row]:
    return sorted(steps, key=lambda step: phase_order(step["phase"]))


__all__ = ["MOST_STEPS", "merged_steps", "with_event", "with_report"]
