"""Fixed actions whose rollouts are over as soon as they have begun, for those who follow one."""

from __future__ import annotations

import attrs

from deploykit.web.actions.shown import ActionOutcome, PlanShown
from deploykit.web.projection.rolloutviews import RolloutNode, RolloutOverview, StepView
from deploykit.web.viewer import Viewer
from tests.support.consoleworld import NOW
from tests.support.fixedactions import FixedActions
from tests.support.fixedqueries import FixedQueries


@attrs.define(slots=False)
class Console(FixedActions):
    """Fixed actions whose rollouts are over as soon as they have begun."""

    queries: FixedQueries = attrs.Factory(FixedQueries)
    ends: str = "succeeded"
    url: str = ""

    def _ended(self, rollout: str, site: str, nodes: tuple[str, ...]) -> None:
        good = self.ends == "succeeded"
        steps = (StepView(name="switch", state="done" if good else "failed", phase="activate", seconds=1.0),)
        shown = RolloutOverview(
            rollout=rollout, site=site, ref="refs/tags/v2.4.1", commit="1" * 40, state=self.ends,
            counts={"active" if good else "failed": len(nodes)},
            requested_by="local", began=NOW, ended=NOW, detail="" if good else "web-1 failed",
        )  # fmt: skip
        state = "success" if good else "failure"
        detail = "" if good else "exit 2"
        found = [RolloutNode(node=node, state=state, phase="activate", steps=steps, detail=detail) for node in nodes]
        self.queries.rollout_list = (shown, *self.queries.rollout_list)
        self.queries.rollout_nodes = {**self.queries.rollout_nodes, rollout: tuple(found)}

    def _start(self, viewer: Viewer, plan: PlanShown, *, reason: str = "", override: str = "") -> ActionOutcome:
        outcome = super()._start(viewer, plan, reason=reason, override=override)
        self.running.clear()
        if outcome.state == "started":
            self._ended(outcome.rollout, plan.site, tuple(each.node for each in plan.nodes))
        return outcome

    def sign(self, viewer: Viewer, rollout: str, signature: str) -> ActionOutcome:
        waiting = self.waiting[rollout]
        outcome = super().sign(viewer, rollout, signature)
        self.running.clear()
        if outcome.state == "started":
            self._ended(rollout, waiting.site, waiting.nodes)
        return outcome


__all__ = ["Console"]
