"""What the console itself decided, written into its audit: logins, logouts, refusals.

Rules:

* A refusal is written before it is answered.
* At most so many a minute: whoever sends many wrong requests must not fill the database. The rest is counted.
* A name is written only where there is such a name: people type passwords into the wrong field.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from starlette.concurrency import run_in_threadpool

from deploykit.errors import DeploykitError
from deploykit.messages import utc_now
from deploykit.web.login.limits import Allowance, KeyedLimit
from deploykit.web.projection.activityviews import AuditView

_log = logging.getLogger(__name__)

#: Refusals that are written at once, and seconds until one more is.
NOTES: Final = Allowance(burst=100, seconds=5)


class AuditNotes:
    """Writes lines of the audit.

    Args:
        note: writes one; it may block. None: only the log has them.
        now: wall clock, aware UTC. clock: monotonic seconds.
    """

    def __init__(
        self,
        note: Callable[[AuditView], None] | None,
        *,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._note = note
        self._now = now
        self._clock = clock
        self._lock = threading.Lock()
        self._limit = KeyedLimit(NOTES)
        self._left_out = 0

    async def refused(self, action: str, detail: str, *, who: str = "") -> None:
        """Write a refusal, unless there were many just now: then it is only counted."""
        with self._lock:
            now = self._clock()
            if self._limit.wait("", now) > 0:
                self._left_out += 1
                return
            self._limit.take("", now)
            more, self._left_out = self._left_out, 0
        text = f"{detail} (and {more} more refusals)" if more else detail
        _log.warning("refused %s of %a: %s", action, who, text)
        await self._write(action, "refused", text, who)

    async def done(self, action: str, detail: str, *, who: str) -> None:
        """Write what somebody did."""
        _log.info("%s of %a: %s", action, who, detail)
        await self._write(action, "done", detail, who)

    async def _write(self, action: str, decision: str, detail: str, who: str) -> None:
        if self._note is None:
            return
        line = AuditView(
            id=secrets.token_hex(16),
            time=self._now(),
            action=action,
            decision=decision,
            who=who,
            where="console",
            detail=detail,
        )
        try:
            await run_in_threadpool(self._note, line)
        except DeploykitError as error:
            # The database is lost: whoever repairs that must be able to log in. The log has the line.
            _log.error("the audit does not have this: %s", error)


__all__ = ["NOTES", "AuditNotes"]
