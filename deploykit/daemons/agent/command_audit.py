"""The audit of one node's deploy commands: which records are made, and what happens when one cannot be written.

Rules:

* A denial is recorded before it is answered. If it cannot be written it stays a denial, and is written later.
* What is allowed is recorded before it is done. If that cannot be written, `AuditError`: the command waits.
* One record for each decision. Copies of what was denied are counted, and recorded once a minute.
* Unverified messages are recorded together, as often as they are logged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

from deploykit.audit import AuditLog
from deploykit.audit.record import AuditEntry, Decision
from deploykit.daemons.service.auditing import AuditWriter
from deploykit.daemons.service.throttle import KeyedThrottle, LogThrottle
from deploykit.messages import DeployRequested, RolloutAbort
from deploykit.messages.site import parts_in_full
from deploykit.names import NodeName
from deploykit.release import DeployResult
from deploykit.trust.check import Verified

#: What is asked for, and what came of it.
ACTION: Final = "deploy"
RESULT: Final = "deploy.result"
ABORT: Final = "rollout.abort"
#: Who asks where no signature says so.
UNVERIFIED: Final = "unverified"

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class CommandAudit:
    """Records what one node decided on deploy commands. Use it from any thread.

    Args:
        log: where the records go.
        node: who decides.
        now: the wall clock, aware UTC.
    """

    def __init__(self, log: AuditLog, node: NodeName, now: Callable[[], datetime]) -> None:
        self._writer = AuditWriter(log, f"agent/{node}", now)
        self._node = node
        self._denied = KeyedThrottle()
        self._again = LogThrottle()
        self._unrecorded: set[tuple[str, str]] = set()

    # -- what is decided -----------------------------------------------------------------------------------------------

    def denied(
        self, request: DeployRequested, command: Verified, reason: str, details: Mapping[str, str] = _NOTHING
    ) -> None:
        """Record that a genuine command is not obeyed; each signed copy once a minute, the others are counted."""
        self._unrecorded.discard((command.key, request.id))
        if self._denied.due((command.key, command.digest), time.monotonic()):
            self._writer.write(_entry(ACTION, "denied", request, command, reason, details))
        elif count := self._again.add(f"{request.site}: {reason}", time.monotonic()):
            self._denied_again(count, f"{request.site}: {reason}")

    def allowed(
        self, request: DeployRequested, command: Verified, details: Mapping[str, str] = _NOTHING, *, resumed: bool
    ) -> None:
        """Record that a command is going to be obeyed.

        Args:
            request: the command.
            command: who signed it.
            details: what else the record says.
            resumed: its id was claimed before.

        Raises:
            AuditError: it cannot be recorded. Do not act.
        """
        key = (command.key, request.id)
        first = not resumed or key in self._unrecorded
        self._unrecorded.add(key)
        reason = "granted" if first else "granted before; it goes on where it was interrupted"
        self._writer.require(_entry(ACTION, "allowed", request, command, reason, details))
        self._unrecorded.discard(key)

    def ended(
        self,
        request: DeployRequested,
        command: Verified,
        result: DeployResult,
        details: Mapping[str, str] = _NOTHING,
    ) -> None:
        """Record what came of an allowed command; `denied` where the node refused it after all."""
        decision: Decision = "denied" if result.outcome == "refused" else "allowed"
        details = {**details, "outcome": result.outcome}
        self._writer.write(_entry(RESULT, decision, request, command, result.detail, details))

    def abort_denied(self, abort: RolloutAbort, command: Verified, reason: str) -> None:
        """Record that a genuine abort does not count; each signed copy once a minute, the others are counted."""
        if self._denied.due((command.key, command.digest), time.monotonic()):
            self._writer.write(_abort_entry("denied", abort, command, reason))
        elif count := self._again.add(f"{abort.site}: {reason}", time.monotonic()):
            self._denied_again(count, f"{abort.site}: {reason}")

    def abort_noted(self, abort: RolloutAbort, command: Verified, scope: str) -> None:
        """Record that an abort counts, and for whose commands. What cannot be written is written later."""
        self._writer.write(_abort_entry("allowed", abort, command, f"counts {scope}"))

    def unverified(self, count: int, reason: str, claimed: DeployRequested | None = None) -> None:
        """Record that messages without a trusted signature were refused.

        Args:
            count: how many.
            reason: why the last one was.
            claimed: the command that the last one claims to be, if it is one.
        """
        details = {"count": str(count)}
        if claimed is not None:
            details |= {"claimed_site": claimed.site, "claimed_request": claimed.id}
        self._writer.write(
            AuditEntry(
                actor=UNVERIFIED, action=ACTION, target=self._node, decision="denied", reason=reason, details=details
            )
        )

    def unreadable(self, digest: bytes, reason: str) -> None:
        """Record that a trusted key signed what is no message."""
        self._writer.write(
            AuditEntry(
                actor="a trusted key",
                action=ACTION,
                target=self._node,
                decision="denied",
                reason=reason,
                details={"body": digest.hex()},
            )
        )

    # -- what is written later -----------------------------------------------------------------------------------------

    def flush(self, now: float) -> None:
        """Record what was counted and what could not be written; log the head of the audit once an hour.

        Args:
            now: monotonic seconds; infinite at the end, when no other call will follow.
        """
        count, why = self._again.flush(now)
        if count:
            self._denied_again(count, why)
        self._writer.flush(now)

    def _denied_again(self, count: int, why: str) -> None:
        self._writer.write(
            AuditEntry(
                actor="copies of denied commands",
                action=ACTION,
                target=self._node,
                decision="denied",
                reason=why,
                details={"count": str(count)},
            )
        )


def _abort_entry(decision: Decision, abort: RolloutAbort, command: Verified, reason: str) -> AuditEntry:
    return AuditEntry(
        actor=str(command.signer),
        action=ABORT,
        target=abort.site,
        decision=decision,
        reason=reason,
        request=abort.id,
        correlation_id=abort.correlation_id or abort.id,
        details={
            "rollout": abort.rollout,
            "key": command.key,
            "body": command.digest.hex(),
            **({"requested_by": abort.requested_by} if abort.requested_by else {}),
            **({"reason": abort.reason} if abort.reason else {}),
        },
    )


def _entry(
    action: str,
    decision: Decision,
    request: DeployRequested,
    command: Verified,
    reason: str,
    details: Mapping[str, str],
) -> AuditEntry:
    return AuditEntry(
        actor=str(command.signer),
        action=action,
        target=request.site,
        decision=decision,
        reason=reason,
        request=request.id,
        correlation_id=request.correlation_id or request.id,
        details={
            "phase": request.phase,
            "ref": request.ref or "",
            "commit": request.commit,
            **({"parts": parts_in_full(request.parts)} if request.parts else {}),
            "key": command.key,
            "body": command.digest.hex(),
            **({"requested_by": request.requested_by} if request.requested_by else {}),
            **({"without_build": "yes"} if request.without_build else {}),
            **({"evidence": str(len(request.evidence))} if request.evidence else {}),
            **({"rollout": request.rollout} if request.rollout is not None else {}),
            **({"mandate": request.mandate} if request.mandate is not None else {}),
            **details,
        },
    )
