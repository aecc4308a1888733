"""What a button says that does something: exactly what happens when it is pressed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from deploykit.web.actions.shown import PlannedNode, PlanShown
from deploykit.web.pages.filters import counted, listed, ref_words, short_commit
from deploykit.web.projection.rolloutviews import RolloutOverview

#: Canaries that a button names; it counts more of them.
_NAMED: Final = 2
#: States of a rollout that is under way, and those of one that has ended and left nodes behind.
UNDER_WAY: Final = frozenset({"planned", "preparing", "prepared", "canary", "rolling"})
_STOPPED: Final = frozenset({"failed", "aborted"})
#: Nodes by state, in the coordinator's words: it is live there; a retry would ask these again.
_ACTIVE: Final = ("active", "success")
_AGAIN: Final = ("failed", "refused", "silent", "went-back")


@attrs.frozen(kw_only=True, slots=True)
class PlanStage:
    """Nodes that are asked together. `title`: what people call the stage."""

    title: str
    nodes: tuple[PlannedNode, ...]


def stages_of(nodes: Sequence[PlannedNode]) -> tuple[PlanStage, ...]:
    """Return the nodes of a plan stage by stage."""
    numbers = sorted({node.stage for node in nodes})
    count = sum(1 for number in numbers if number)
    return tuple(
        PlanStage(
            title="First" if not at else ("Then" if count == 1 else f"Batch {at}"),
            nodes=tuple(node for node in nodes if node.stage == at),
        )
        for at in numbers
    )


def button_words(plan: PlanShown, *, again: bool = False) -> str:
    """Return what the button under a plan says.

    Args:
        again: it is a retry.
    """
    name = ref_words(plan.ref) or short_commit(plan.commit)
    if plan.needs:
        way = f"{name} on" if plan.kind == "deploy" else f"back to {name} on" if name else "the way back on"
        return f"Ask for {counted(plan.needs, 'signature')}: {way} {_nodes_in_turn(plan.nodes)}"
    if plan.kind == "rollback":
        first, rest = _first_and_rest(plan.nodes)
        return f"Take {first} back" + (f" to {name}" if name else "") + rest
    return f"{'Try' if again else 'Put'} {name} {'again' if again else 'live'} on {_nodes_in_turn(plan.nodes)}"


def _nodes_in_turn(nodes: Sequence[PlannedNode]) -> str:
    return "".join(_first_and_rest(nodes))


def _first_and_rest(nodes: Sequence[PlannedNode]) -> tuple[str, str]:
    """Return which nodes come first, and what follows."""
    first = [node.node for node in nodes if node.stage == 0]
    rest = [node for node in nodes if node.stage]
    if not first:
        batches = len({node.stage for node in rest})
        names = listed([node.node for node in rest]) if len(rest) <= _NAMED else counted(len(rest), "node")
        return names, f" in {batches} batches" if batches > 1 else ""
    names = listed(first) if len(first) <= _NAMED else counted(len(first), "node")
    return names, f", then {counted(len(rest), 'other')}" if rest else ""


@attrs.frozen(kw_only=True, slots=True)
class RolloutButtons:
    """What can be asked of a rollout now. `back`, `again`: of one that has ended."""

    pause: bool = False
    resume: bool = False
    promote: bool = False
    abort: bool = False
    abort_back: bool = False
    back: bool = False
    again: bool = False

    @property
    def any(self) -> bool:
        """Whether there is a button at all."""
        return any(attrs.astuple(self))


def buttons_of(one: RolloutOverview, *, stages: bool, lives: bool) -> RolloutButtons:
    """Return what can be asked of a rollout.

    Args:
        stages, lives: the viewer has these roles on the site.
    """
    if one.single:
        return RolloutButtons()
    runs, paused = one.state in UNDER_WAY, one.state == "paused"
    return RolloutButtons(
        pause=runs and stages,
        resume=paused and lives,
        promote=lives and one.state in ("canary", "rolling"),
        abort=(runs or paused) and stages,
        abort_back=(runs or paused) and lives and one.kind == "deploy",
        # What never reached a node cannot be taken back.
        back=one.kind == "deploy" and one.state in (*_STOPPED, "succeeded") and reached(one) > 0 and stages,
        again=one.state in _STOPPED and stages and bool(one.failed or any(one.counts.get(name) for name in _AGAIN)),
    )


def reached(one: RolloutOverview) -> int:
    """Return on how many nodes a rollout has put its release live."""
    return sum(one.counts.get(name, 0) for name in _ACTIVE)


def abort_words(one: RolloutOverview, *, back: bool) -> str:
    """Return what the button says that ends a rollout."""
    if not back:
        return "Stop here: leave every node as it is"
    return f"Stop, and take {counted(reached(one), 'node')} back" if reached(one) else "Stop, and take back what it did"


__all__ = [
    "UNDER_WAY",
    "PlanStage",
    "RolloutButtons",
    "abort_words",
    "button_words",
    "buttons_of",
    "reached",
    "stages_of",
]
