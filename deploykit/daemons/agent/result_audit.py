"""The audit of build results: whose word counts for gates, and how many signed results did not count.

Rules:

* A result that counts is recorded before it is kept, once.
* Signed results that do not count are counted, and recorded once a minute. Unsigned ones ask for nothing.
"""

from __future__ import annotations

import threading
import time
from typing import Final

from deploykit.audit.record import AuditEntry
from deploykit.builds import BuildStore, KnownResult, SignedResult
from deploykit.daemons.service.auditing import AuditWriter
from deploykit.daemons.service.throttle import LogThrottle
from deploykit.names import NodeName

ACTION: Final = "build.result"
#: The last results that were recorded, kept or not: they come again while the store fails.
_RECORDED: Final = 1000


class ResultAudit:
    """Records what one node decided on build results. Use it from any thread.

    Args:
        writer: writes the records.
        node: who decides.
        store: holds the results that were recorded before.
    """

    def __init__(self, writer: AuditWriter, node: NodeName, store: BuildStore) -> None:
        self._writer = writer
        self._node = node
        self._store = store
        self._refused = LogThrottle()
        self._lock = threading.Lock()
        self._recorded: dict[bytes, None] = {}

    def counts(self, signed: SignedResult, known: KnownResult) -> None:
        """Record that a result counts, unless it is kept already. Call it before it is kept.

        Raises:
            AuditError: it cannot be recorded. Do not keep it.
            BuildStoreError: the store cannot be read.
        """
        result, digest = known.result, signed.digest
        if digest in self._recorded or self._store.has(signed):
            return
        self._writer.require(
            AuditEntry(
                actor=known.signer,
                action=ACTION,
                target=result.job,
                decision="allowed",
                reason="it counts for gates",
                request=result.id,
                correlation_id=result.correlation_id or result.id,
                details={
                    "repo": result.repo or "",
                    "commit": result.commit or "",
                    "number": str(result.number),
                    "outcome": result.outcome,
                    "body": digest.hex(),
                },
            )
        )
        with self._lock:
            self._recorded[digest] = None
            while len(self._recorded) > _RECORDED:
                del self._recorded[next(iter(self._recorded))]

    def refused(self, why: str) -> None:
        """Count a signed result that does not count."""
        if count := self._refused.add(why, time.monotonic()):
            self._record_refused(count, why)

    def flush(self, now: float) -> None:
        """Record what was counted since; `now` in monotonic seconds, infinite at the end."""
        count, why = self._refused.flush(now)
        if count:
            self._record_refused(count, why)
        self._writer.flush(now)

    def _record_refused(self, count: int, why: str) -> None:
        self._writer.write(
            AuditEntry(
                actor="unverified",
                action=ACTION,
                target=self._node,
                decision="denied",
                reason=why,
                details={"count": str(count)},
            )
        )
