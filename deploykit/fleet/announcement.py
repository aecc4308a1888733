"""What a coordinator announces of its rollout, for people who watch. Pure."""

from __future__ import annotations

import socket
from datetime import datetime
from typing import Final

import attrs

from deploykit.fleet.plan import Plan
from deploykit.fleet.rollout import RolloutModel
from deploykit.messages import DeployReported, RolloutReported

#: Most nodes that an announcement names.
_MOST_NAMED: Final = 100
#: Up to so many nodes, reports are kept whole until the end.
_FEW: Final = 20
#: Characters of a failed step's output that are kept of each of more nodes.
_MOST_OUTPUT: Final = 2000


def announcement(plan: Plan, model: RolloutModel, now: datetime) -> RolloutReported:
    """Return the message that says how a rollout stands.

    Args:
        plan, model: of the rollout.
        now: aware.
    """
    target = plan.releases[0] if len(plan.releases) == 1 else None
    failed = [node for node, status in model.nodes.items() if status.state in ("failed", "refused", "silent")]
    return RolloutReported(
        source=f"operator/{socket.gethostname()}",
        time=now,
        correlation_id=plan.correlation_id or plan.rollout,
        site=plan.site,
        rollout=plan.rollout,
        kind=plan.kind,
        ref=target.ref if target is not None else None,
        commit=target.commit if target is not None else None,
        parts=target.parts if target is not None else (),
        state=model.state,
        nodes=counts_of(model),
        failed=tuple(failed[:_MOST_NAMED]),
        requested_by=plan.requested_by,
        host=socket.gethostname(),
        detail=model.detail,
    )


def counts_of(model: RolloutModel) -> dict[str, int]:
    """Return how many nodes are in which state."""
    return {str(state): count for state, count in model.counts.items()}


def kept_report(report: DeployReported, nodes: int) -> DeployReported:
    """Return a report as it is kept until the end: of a large rollout without the output of what succeeded."""
    if nodes <= _FEW:
        return report
    most = 0 if report.outcome == "success" else _MOST_OUTPUT
    steps = tuple(attrs.evolve(step, output=step.output[-most:] if most else "") for step in report.steps)
    return attrs.evolve(report, steps=steps)


__all__ = ["announcement", "counts_of", "kept_report"]
