"""The audit of the mandates that reach one node: one record for each that is kept, and few for those that are not.

Rules:

* A mandate allows nothing by itself. So a record that cannot be written is written later, and the mandate is kept.
* Each command under a mandate has records of its own, with the mandate's digest and its signers (`command_audit.py`).
* Of mandates that do not count one is recorded a minute for each key; the others are counted.
"""

from __future__ import annotations

import time
from typing import Final

from deploykit.audit.record import AuditEntry, Decision
from deploykit.daemons.service.auditing import AuditWriter
from deploykit.daemons.service.throttle import KeyedThrottle, LogThrottle
from deploykit.messages import RolloutApproved
from deploykit.messages.site import parts_in_full
from deploykit.names import NodeName
from deploykit.trust.signature import Signers

ACTION: Final = "rollout.approval"


class MandateAudit:
    """Records what one node decided on mandates. Use it from any thread.

    Args:
        writer: writes the records.
        node: who decides.
    """

    def __init__(self, writer: AuditWriter, node: NodeName) -> None:
        self._writer = writer
        self._node = node
        self._denied = KeyedThrottle()
        self._again = LogThrottle()

    def kept(self, approved: RolloutApproved, signers: Signers, digest: str, why: str) -> None:
        """Record that a mandate counts, or counts with one signature more."""
        self._writer.write(_entry("allowed", approved, signers, digest, why))

    def denied(self, approved: RolloutApproved, signers: Signers, digest: str, why: str) -> bool:
        """Record that a genuine mandate does not count; return whether it has a record of its own."""
        if self._denied.due(signers.fingerprint, time.monotonic()):
            self._writer.write(_entry("denied", approved, signers, digest, why))
            return True
        if count := self._again.add(why, time.monotonic()):
            self._count(count, why)
        return False

    def flush(self, now: float) -> None:
        """Record what was counted since; `now` in monotonic seconds, infinite at the end."""
        count, why = self._again.flush(now)
        if count:
            self._count(count, why)

    def _count(self, count: int, why: str) -> None:
        self._writer.write(
            AuditEntry(
                actor="further mandates",
                action=ACTION,
                target=self._node,
                decision="denied",
                reason=why,
                details={"count": str(count)},
            )
        )


def _entry(decision: Decision, approved: RolloutApproved, signers: Signers, digest: str, why: str) -> AuditEntry:
    return AuditEntry(
        actor=str(signers),
        action=ACTION,
        target=approved.site,
        decision=decision,
        reason=why,
        request=approved.id,
        correlation_id=approved.correlation_id or approved.id,
        details={
            "rollout": approved.rollout,
            "mandate": digest,
            "nodes": str(len(approved.nodes)),
            "phases": ", ".join(approved.phases),
            "allow_rollback": "yes" if approved.allow_rollback else "no",
            "not_before": approved.not_before.isoformat(),
            "not_after": approved.not_after.isoformat(),
            **({"ref": approved.ref} if approved.ref else {}),
            **({"commit": approved.commit} if approved.commit else {}),
            **({"parts": parts_in_full(approved.parts)} if approved.parts else {}),
            **({"without_build": "yes"} if approved.without_build else {}),
            **({"override_lock": approved.override_lock} if approved.override_lock else {}),
            **({"requested_by": approved.requested_by} if approved.requested_by else {}),
        },
    )
