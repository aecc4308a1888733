"""The audit of statements on locks: each that counts from now on, and each genuine one that does not.

Copies of what is known make no record. A denied one is recorded once a minute for each key.
"""

from __future__ import annotations

import time
from typing import Final

from deploykit.audit.record import AuditEntry, Decision
from deploykit.daemons.service.auditing import AuditWriter
from deploykit.daemons.service.throttle import KeyedThrottle
from deploykit.messages import SiteLocked, SiteUnlocked
from deploykit.trust.check import Verified
from deploykit.trust.locks import KnownStatement
from deploykit.trust.signature import Signers, body_digest

#: What is stated.
LOCK: Final = "site.lock"
UNLOCK: Final = "site.unlock"


class LockAudit:
    """Records what one node thinks of statements on locks. Use it from any thread.

    Args:
        writer: writes the records.
    """

    def __init__(self, writer: AuditWriter) -> None:
        self._writer = writer
        self._denied = KeyedThrottle()

    def noted(self, statement: KnownStatement, reason: str) -> None:
        """Record that a statement is new and counts."""
        self._writer.write(_entry("allowed", statement.message, statement.signer, statement.body, reason))

    def denied(self, message: SiteLocked | SiteUnlocked, stated: Verified, reason: str) -> bool:
        """Record that a genuine statement does not count; return whether a log line about it is due."""
        due = self._denied.due(stated.key, time.monotonic())
        if due:
            self._writer.write(_entry("denied", message, stated.signer, stated.frame.body, reason))
        return due


def _entry(
    decision: Decision, message: SiteLocked | SiteUnlocked, signer: Signers, body: bytes, reason: str
) -> AuditEntry:
    locked = isinstance(message, SiteLocked)
    return AuditEntry(
        actor=str(signer),
        action=LOCK if locked else UNLOCK,
        target=message.site,
        decision=decision,
        reason=reason,
        request=message.id,
        correlation_id=message.correlation_id or message.id,
        details={
            "serial": str(message.serial),
            "key": signer.fingerprint,
            "body": body_digest(body).hex(),
            **({"holder": message.holder} if message.holder else {}),
            **({"reason": message.reason} if message.reason else {}),
            **({"until": message.until.isoformat()} if isinstance(message, SiteLocked) else {}),
        },
    )
