"""The audit of one node's accesses: what was asked for and decided, and what became of it.

Rules:

* A denial is recorded before it is answered; what is allowed before it is done. What ends by itself is recorded too.
* Copies of what was denied are counted, and recorded once a minute, like messages without a trusted signature.
* No hash and no password is in a record.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from deploykit.audit.record import AuditEntry, Decision
from deploykit.daemons.access.keeper import EndedAccess
from deploykit.daemons.access.sitefile import ChangeOutcome
from deploykit.daemons.service.auditing import AuditWriter
from deploykit.daemons.service.throttle import KeyedThrottle, LogThrottle
from deploykit.messages import AccessGrantRequested, AccessRevokeRequested
from deploykit.names import NodeName
from deploykit.trust.check import Verified

GRANT: Final = "access.grant"
REVOKE: Final = "access.revoke"
RESULT: Final = "access.result"
ENDED: Final = "access.end"
#: Who asks where no signature says so.
UNVERIFIED: Final = "unverified"
#: Who asks in the original's format, which has no signature.
LEGACY: Final = "unverified, in clear text"

AccessCommand = AccessGrantRequested | AccessRevokeRequested


class AccessAudit:
    """Records what one node decided on accesses. Use it from any thread.

    Args:
        writer: writes the records.
        node: who decides.
    """

    def __init__(self, writer: AuditWriter, node: NodeName) -> None:
        self._writer = writer
        self._node = node
        self._denied = KeyedThrottle()
        self._again = LogThrottle()
        self._unverified = LogThrottle()

    def denied(self, command: AccessCommand, signed: Verified | None, reason: str) -> None:
        """Record that a command is not obeyed; each signed copy once a minute, the others are counted."""
        now = time.monotonic()
        copy = (signed.key, signed.digest) if signed is not None else (LEGACY, command.id)
        if self._denied.due(copy, now):
            self._writer.write(_entry("denied", command, signed, reason))
        elif count := self._again.add(reason, now):
            self._count("copies of denied commands", count, reason)

    def allowed(self, command: AccessCommand, signed: Verified | None, *, resumed: bool) -> None:
        """Record that a command is going to be obeyed.

        Raises:
            AuditError: it cannot be recorded. Do not act.
        """
        reason = "granted before; it goes on where it was interrupted" if resumed else "granted"
        if signed is None:
            reason = "access.legacy is on"
        self._writer.require(_entry("allowed", command, signed, reason))

    def ended(self, command: AccessCommand, signed: Verified | None, outcome: ChangeOutcome) -> None:
        """Record what came of an allowed command."""
        decision: Decision = "denied" if outcome.outcome == "failed" else "allowed"
        details = {"outcome": outcome.outcome, "asked": _action(command)}
        self._writer.write(_entry(decision, command, signed, outcome.detail, action=RESULT, details=details))

    def over(self, ended: EndedAccess) -> None:
        """Record that an access ended without a command."""
        self._writer.write(
            AuditEntry(
                actor=f"access/{self._node}",
                action=ENDED,
                target=ended.site,
                decision="allowed",
                reason=ended.detail or "its time was over",
                details={"user": ended.user, "outcome": ended.outcome},
            )
        )

    def unverified(self, reason: str) -> int:
        """Count a message without a trusted signature; return how many came since the last line if a line is due."""
        count = self._unverified.add(reason, time.monotonic())
        self._count(UNVERIFIED, count, reason)
        return count

    def unreadable(self, digest: bytes, reason: str) -> None:
        """Record that a trusted key signed what is no message."""
        self._writer.write(
            AuditEntry(
                actor="a trusted key",
                action=GRANT,
                target=self._node,
                decision="denied",
                reason=reason,
                details={"body": digest.hex()},
            )
        )

    def flush(self, now: float) -> None:
        """Record what was counted since; `now` in monotonic seconds, infinite at the end."""
        self._count("copies of denied commands", *self._again.flush(now))
        self._count(UNVERIFIED, *self._unverified.flush(now))
        self._writer.flush(now)

    def _count(self, actor: str, count: int, reason: str) -> None:
        if count:
            self._writer.write(
                AuditEntry(
                    actor=actor,
                    action=GRANT,
                    target=self._node,
                    decision="denied",
                    reason=reason,
                    details={"count": str(count)},
                )
            )


def _action(command: AccessCommand) -> str:
    return GRANT if isinstance(command, AccessGrantRequested) else REVOKE


def _entry(
    decision: Decision,
    command: AccessCommand,
    signed: Verified | None,
    reason: str,
    *,
    action: str = "",
    details: Mapping[str, str] | None = None,
) -> AuditEntry:
    until = command.until if isinstance(command, AccessGrantRequested) else None
    return AuditEntry(
        actor=str(signed.signer) if signed is not None else LEGACY,
        action=action or _action(command),
        target=command.site,
        decision=decision,
        reason=reason,
        request=command.id,
        correlation_id=command.correlation_id or command.id,
        details={
            "user": command.user,
            **({"until": until.isoformat()} if until is not None else {}),
            **({"key": signed.key, "body": signed.digest.hex()} if signed is not None else {}),
            **({"requested_by": command.requested_by} if command.requested_by else {}),
            **(details or {}),
        },
    )


__all__ = ["AccessAudit", "AccessCommand"]
