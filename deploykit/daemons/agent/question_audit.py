"""The audit of questions: who was refused an answer.

Rules:

* Denied questions of one key are recorded once a minute, and counted in between: a trusted key floods no audit.
* Unverified messages are counted, and recorded together once a minute. They cost no file and no record each.
* What is answered is not recorded: nothing changes by it. The metrics count it.
"""

from __future__ import annotations

import time
from typing import Final

from deploykit.audit.record import AuditEntry
from deploykit.daemons.agent.command_audit import UNVERIFIED
from deploykit.daemons.service.auditing import AuditWriter
from deploykit.daemons.service.throttle import KeyedThrottle, LogThrottle
from deploykit.messages import NodeQueried, one_line
from deploykit.names import NodeName
from deploykit.trust.check import Verified

#: What is asked for.
ACTION: Final = "node.query"


class QuestionAudit:
    """Records which questions one node did not answer. Use it from any thread.

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

    def denied(self, question: NodeQueried, asked: Verified, reason: str) -> bool:
        """Record that a genuine question is not answered; return whether a log line about it is due."""
        now = time.monotonic()
        if not self._denied.due(asked.key, now):
            self._record_again(self._again.add(reason, now), reason)
            return False
        self._writer.write(
            AuditEntry(
                actor=str(asked.signer),
                action=ACTION,
                target=self._node,
                decision="denied",
                reason=reason,
                request=question.id,
                correlation_id=question.correlation_id or question.id,
                details={
                    "details": one_line(" ".join(question.details)),
                    "site": question.site or "",
                    "key": asked.key,
                    "body": asked.digest.hex(),
                },
            )
        )
        return True

    def unverified(self, reason: str) -> int:
        """Count a message without a trusted signature; return how many came since the last line if a line is due."""
        count = self._unverified.add(reason, time.monotonic())
        self._record_unverified(count, reason)
        return count

    def flush(self, now: float) -> None:
        """Record what was counted since; `now` in monotonic seconds, infinite at the end."""
        self._record_again(*self._again.flush(now))
        self._record_unverified(*self._unverified.flush(now))
        self._writer.flush(now)

    def _record_again(self, count: int, why: str) -> None:
        self._record(count, why, "askers that were denied before")

    def _record_unverified(self, count: int, why: str) -> None:
        self._record(count, why, UNVERIFIED)

    def _record(self, count: int, why: str, actor: str) -> None:
        if not count:
            return
        self._writer.write(
            AuditEntry(
                actor=actor,
                action=ACTION,
                target=self._node,
                decision="denied",
                reason=why,
                details={"count": str(count)},
            )
        )
