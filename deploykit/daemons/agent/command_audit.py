"""The audit of one node's deploy commands: which records are made, and what happens when one cannot be written.

Rules:

* A denial is recorded before it is answered. If it cannot be written it stays a denial: it is kept and written later.
* What is allowed is recorded before it is done. If that cannot be written, `AuditError`: the command waits.
* One record for each decision. Copies of what was denied are counted, and recorded once a minute.
* Unverified messages are recorded together, as often as they are logged.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Final

import attrs

from deploykit.audit import AuditLog
from deploykit.audit.record import AuditEntry, Decision
from deploykit.daemons.service.throttle import KeyedThrottle, LogThrottle
from deploykit.errors import AuditError
from deploykit.messages import DeployRequested
from deploykit.names import NodeName
from deploykit.release import DeployResult
from deploykit.trust.check import Verified

_log = logging.getLogger(__name__)

#: What is asked for, and what came of it.
ACTION: Final = "deploy"
RESULT: Final = "deploy.result"
#: Who asks where no signature says so.
UNVERIFIED: Final = "unverified"
#: Most records that are kept in memory while the log cannot be written; then the oldest go.
_KEPT: Final = 1000
#: Seconds between two log lines that name the head of the audit.
_HEAD_EVERY: Final = 3600.0


class CommandAudit:
    """Records what one node decided on deploy commands. Use it from any thread.

    Args:
        log: where the records go.
        node: who decides.
        now: the wall clock, aware UTC.
    """

    def __init__(self, log: AuditLog, node: NodeName, now: Callable[[], datetime]) -> None:
        self._audit = log
        self._node = node
        self._now = now
        self._lock = threading.Lock()
        self._late: deque[AuditEntry] = deque(maxlen=_KEPT)
        self._lost = 0
        self._denied = KeyedThrottle()
        self._again = LogThrottle()
        self._unrecorded: set[tuple[str, str]] = set()
        self._head_due = float("-inf")

    # -- what is decided -----------------------------------------------------------------------------------------------

    def denied(self, request: DeployRequested, command: Verified, reason: str) -> None:
        """Record that a genuine command is not obeyed; each signed copy once a minute, the others are counted."""
        self._unrecorded.discard((command.key, request.id))
        if self._denied.due((command.key, command.digest), time.monotonic()):
            self._write(_entry(ACTION, "denied", request, command, reason))
        elif count := self._again.add(f"{request.site}: {reason}", time.monotonic()):
            self._denied_again(count, f"{request.site}: {reason}")

    def allowed(self, request: DeployRequested, command: Verified, *, resumed: bool) -> None:
        """Record that a command is going to be obeyed.

        Args:
            request: the command.
            command: who signed it.
            resumed: its id was claimed before.

        Raises:
            AuditError: it cannot be recorded. Do not act.
        """
        key = (command.key, request.id)
        first = not resumed or key in self._unrecorded
        self._unrecorded.add(key)
        self._write_late()
        reason = "granted" if first else "granted before; it goes on where it was interrupted"
        self._audit.append(_entry(ACTION, "allowed", request, command, reason))
        self._unrecorded.discard(key)

    def ended(self, request: DeployRequested, command: Verified, result: DeployResult) -> None:
        """Record what came of an allowed command; `denied` where the node refused it after all."""
        decision: Decision = "denied" if result.outcome == "refused" else "allowed"
        self._write(_entry(RESULT, decision, request, command, result.detail, outcome=result.outcome))

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
        self._write(
            AuditEntry(
                actor=UNVERIFIED, action=ACTION, target=self._node, decision="denied", reason=reason, details=details
            )
        )

    def unreadable(self, digest: bytes, reason: str) -> None:
        """Record that a trusted key signed what is no message."""
        self._write(
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
        else:
            try:
                self._write_late()
            except AuditError as error:
                _log.error("%d audit records wait: %s", len(self._late), error)
        if now >= self._head_due:
            self._head_due = now + _HEAD_EVERY
            if head := self._audit.head:
                _log.info("audit head %s", head)

    def _denied_again(self, count: int, why: str) -> None:
        self._write(
            AuditEntry(
                actor="copies of denied commands",
                action=ACTION,
                target=self._node,
                decision="denied",
                reason=why,
                details={"count": str(count)},
            )
        )

    def _write(self, entry: AuditEntry) -> None:
        """Write one record now, or keep it until that is possible."""
        try:
            self._write_late()
            self._audit.append(entry)
        except AuditError as error:
            _log.error("not in the audit yet, %s %s %s: %s", entry.decision, entry.action, entry.target, error)
            with self._lock:
                self._lost += len(self._late) == _KEPT
                decided = self._now().isoformat(timespec="milliseconds")
                self._late.append(attrs.evolve(entry, details={**entry.details, "decided": decided}))

    def _write_late(self) -> None:
        """Write what is kept, in the order in which it was decided.

        Raises:
            AuditError: that is still impossible; what is not written is kept.
        """
        if not self._late and not self._lost:
            return
        with self._lock:
            if self._lost:
                reason = "the audit could not be written, and there was no room to keep these records"
                lost = AuditEntry(
                    actor=f"agent/{self._node}",
                    action="audit.lost",
                    target=self._node,
                    decision="denied",
                    reason=reason,
                    details={"count": str(self._lost)},
                )
                self._audit.append(lost)
                self._lost = 0
            while self._late:
                self._audit.append(self._late[0])
                self._late.popleft()


def _entry(
    action: str, decision: Decision, request: DeployRequested, command: Verified, reason: str, **details: str
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
            "ref": request.ref,
            "commit": request.commit,
            "key": command.key,
            "body": command.digest.hex(),
            **({"requested_by": request.requested_by} if request.requested_by else {}),
            **details,
        },
    )
