"""What a node reports about accesses. Pure: the command and what came of it go in, a message comes out.

A report's id follows from node, signed copy and outcome: readers recognize one that is made twice after a crash.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Final, Literal

import attrs

from deploykit.daemons.access.keeper import EndedAccess
from deploykit.daemons.access.sitefile import ChangeOutcome
from deploykit.messages import AccessGrantRequested, AccessReported, AccessRevokeRequested, one_line
from deploykit.names import NodeName

#: The namespace of report ids.
_REPORTS: Final = uuid.UUID("b0f5a9a6-0d0e-4f27-8f0c-6d9a4b1f6a55")
_DETAIL: Final = 1000
_NAME: Final = 300


@attrs.frozen(kw_only=True, slots=True)
class AccessReportMaker:
    """Makes one node's reports. In each call `copy` names the signed copy of the command that is answered."""

    node: NodeName

    def of_outcome(
        self, command: AccessGrantRequested | AccessRevokeRequested, copy: str, outcome: ChangeOutcome
    ) -> AccessReported:
        """Report what came of a command."""
        report = self._report(command, copy, outcome.outcome, outcome.detail)
        return attrs.evolve(report, until=outcome.until)

    def refused(self, command: AccessGrantRequested | AccessRevokeRequested, copy: str, why: str) -> AccessReported:
        """Report that a command is not obeyed."""
        return self._report(command, copy, "refused", why)

    def for_copy(self, report: AccessReported, copy: str) -> AccessReported:
        """Return a report as the answer to another signed copy of the same command."""
        return attrs.evolve(report, id=self._id(copy, report.outcome), answers=copy)

    def of_ended(self, ended: EndedAccess, now: datetime) -> AccessReported:
        """Report that an access ended without a command."""
        return AccessReported(
            source=f"access/{self.node}",
            time=now,
            node=self.node,
            site=ended.site,
            user=ended.user,
            outcome=ended.outcome,
            detail=one_line(ended.detail, _DETAIL),
        )

    def _report(
        self,
        command: AccessGrantRequested | AccessRevokeRequested,
        copy: str,
        outcome: Literal["granted", "revoked", "expired", "failed", "refused"],
        detail: str,
    ) -> AccessReported:
        return AccessReported(
            id=self._id(copy, outcome),
            source=f"access/{self.node}",
            correlation_id=command.correlation_id or command.id,
            node=self.node,
            site=command.site,
            user=command.user,
            outcome=outcome,
            request=command.id,
            answers=copy,
            detail=one_line(detail, _DETAIL),
            requested_by=one_line(command.requested_by, _NAME),
        )

    def _id(self, copy: str, outcome: str) -> str:
        return str(uuid.uuid5(_REPORTS, f"{self.node}/{copy}/{outcome}"))


__all__ = ["AccessReportMaker"]
