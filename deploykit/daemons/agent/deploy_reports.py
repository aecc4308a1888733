"""What a node reports about a deploy command. Pure: the command and its result go in, a message comes out.

Rules:

* What is asked for stands in the request; a report names what is live, read from the site.
* A report's id follows from node, signed copy and outcome: readers recognize one that is made twice after a crash.
* What is made for people never goes back into a parser: a release without a valid ref or commit is named without it.
"""

from __future__ import annotations

import uuid
from typing import Final

import attrs

from deploykit.daemons.agent.sitestates import named_release
from deploykit.messages import DeployOutcome, DeployReported, DeployRequested, StepReport, one_line
from deploykit.messages.site import version_of
from deploykit.names import NodeName
from deploykit.release import DeployResult

#: The namespace of report ids.
_REPORTS: Final = uuid.UUID("6b0f6f0c-53f5-4b8e-9a3c-0b0d54f3b9a1")
#: Most characters of a report's detail. A remedy stands at its end.
_DETAIL: Final = 2000


@attrs.frozen(kw_only=True, slots=True)
class DeployReportMaker:
    """Makes one node's reports on deploy commands. In each call `copy` names the signed copy that is answered."""

    node: NodeName

    def without_result(
        self, request: DeployRequested, copy: str, outcome: DeployOutcome, *, detail: str
    ) -> DeployReported:
        """Report on a command that was not carried out: nothing was read from the site."""
        return DeployReported(
            id=self._id(copy, outcome),
            source=f"agent/{self.node}",
            correlation_id=request.correlation_id or request.id,
            node=self.node,
            site=request.site,
            request=request.id,
            answers=copy,
            phase=request.phase,
            outcome=outcome,
            detail=one_line(detail, _DETAIL),
        )

    def for_copy(self, report: DeployReported, copy: str) -> DeployReported:
        """Return a report as the answer to another signed copy of the same command."""
        return attrs.evolve(report, id=self._id(copy, report.outcome), answers=copy)

    def _id(self, copy: str, outcome: DeployOutcome) -> str:
        return str(uuid.uuid5(_REPORTS, f"{self.node}/{copy}/{outcome}"))

    def with_steps(self, request: DeployRequested, copy: str, result: DeployResult) -> DeployReported:
        """Report a result with each of its steps."""
        steps = tuple(
            StepReport(
                name=step.name, outcome=step.outcome, seconds=step.seconds, exit_code=step.exit_code, output=step.output
            )
            for step in result.steps
        )
        return attrs.evolve(self.without_steps(request, copy, result), steps=steps)

    def without_steps(self, request: DeployRequested, copy: str, result: DeployResult) -> DeployReported:
        """Report a result. A release that was carried out before and is not live any more is a failure."""
        outcome, detail, live = result.outcome, result.detail, named_release(result.live)
        if (
            outcome == "success"
            and request.phase not in ("prepare", "discard")
            and (live is None or version_of(live) != version_of(request))
        ):
            outcome, detail = "failure", f"it was done ({detail or result.release}), and is not live any more"
        report = self.without_result(request, copy, outcome, detail=detail)
        if live is not None:
            report = attrs.evolve(report, release=live.release, ref=live.ref, commit=live.commit, parts=live.parts)
        return attrs.evolve(
            report, live_known=result.seen, target=named_release(result.about), previous=named_release(result.previous)
        )
