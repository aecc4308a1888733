"""How a daemon writes to the audit: at once where it must, later where the decision stands without it.

Rules:

* What is allowed is written before it is done (`require`): without a record nothing is done.
* What is denied stays denied (`write`): a record that cannot be written is kept in memory, and written later.
* Records are written in the order in which it was decided.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Final

import attrs

from deploykit.audit import AuditLog
from deploykit.audit.record import AuditEntry
from deploykit.errors import AuditError

_log = logging.getLogger(__name__)

#: Most records that are kept in memory while the log cannot be written; then the oldest go.
_KEPT: Final = 1000


class AuditWriter:
    """Writes one daemon's records. Use it from any thread.

    Args:
        log: where they go.
        who: the daemon, such as `agent/web1`.
        now: the wall clock, aware UTC.
    """

    def __init__(self, log: AuditLog, who: str, now: Callable[[], datetime]) -> None:
        self._log = log
        self._who = who
        self._now = now
        self._lock = threading.Lock()
        self._late: deque[AuditEntry] = deque(maxlen=_KEPT)
        self._lost = 0

    def require(self, entry: AuditEntry) -> None:
        """Write one record, behind those that are kept.

        Raises:
            AuditError: it is not written. Do not act.
        """
        self._write_late()
        self._log.append(entry)

    def write(self, entry: AuditEntry) -> None:
        """Write one record now, or keep it until that is possible."""
        try:
            self.require(entry)
        except AuditError as error:
            _log.error("not in the audit yet, %s %s %s: %s", entry.decision, entry.action, entry.target, error)
            with self._lock:
                self._lost += len(self._late) == _KEPT
                decided = self._now().isoformat(timespec="milliseconds")
                self._late.append(attrs.evolve(entry, details={**entry.details, "decided": decided}))

    def flush(self, now: float) -> None:
        """Write what is kept, if that is possible; log the head of the audit once an hour.

        Args:
            now: monotonic seconds.
        """
        try:
            self._write_late()
        except AuditError as error:
            _log.error("%d audit records wait: %s", len(self._late), error)
        self._log.log_head(now)

    def _write_late(self) -> None:
        """Write what is kept, the oldest first.

        Raises:
            AuditError: that is still impossible; what is not written is kept.
        """
        if not self._late and not self._lost:
            return
        with self._lock:
            if self._lost:
                lost = AuditEntry(
                    actor=self._who,
                    action="audit.lost",
                    target=self._who,
                    decision="denied",
                    reason="the audit could not be written, and there was no room to keep these records",
                    details={"count": str(self._lost)},
                )
                self._log.append(lost)
                self._lost = 0
            while self._late:
                self._log.append(self._late[0])
                self._late.popleft()
