"""What people did from the console, and what they were refused, in its audit. For threads; `AuditNotes` is for views.

Rules:

* A refusal is written before it is answered, and what was done before its outcome is returned.
* Refusals of one person are written at the limited pace of those of the login; the rest is counted. Nobody hides those
  of somebody else.
* A line that cannot be written is in the log, and is written before the next one that can be.
* A name is written as the login knows it. What somebody typed is cut and made one line.
* An error that names files of this machine goes to the log. The answer says so.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from deploykit.errors import (
    ActionRefused,
    BusError,
    DeploykitError,
    InvalidName,
    KeyFileError,
    LedgerError,
    NobodyMatches,
    OriginError,
    PolicyRefused,
    RefNotFound,
    RolloutBusy,
    SelectorError,
    UsageError,
)
from deploykit.messages import one_line, utc_now
from deploykit.web.login.auditnotes import NOTES
from deploykit.web.login.limits import KeyedLimit
from deploykit.web.projection.activityviews import AuditView
from deploykit.web.viewer import Viewer

_log = logging.getLogger(__name__)

#: Errors that a person can do something about: the status of their answer, and the field that is wrong.
_SHOWN: Final[tuple[tuple[type[DeploykitError], int, str], ...]] = (
    (NobodyMatches, 422, "nodes"),
    (SelectorError, 422, "select"),
    (RefNotFound, 422, "ref"),
    (InvalidName, 422, ""),
    (UsageError, 422, ""),
    (RolloutBusy, 409, ""),
    (PolicyRefused, 409, ""),
)
#: Errors of this machine.
_HIDDEN: Final[tuple[tuple[type[DeploykitError], str], ...]] = (
    (OriginError, "the origin cannot be asked"),
    (LedgerError, "the console's ledger cannot be used"),
    (KeyFileError, "the console's signing key, or its list of trusted keys, cannot be used"),
)

#: Lines that wait until the audit can be written; of more, the oldest are in the log alone.
_MOST_UNWRITTEN: Final = 1000


class ActionAudit:
    """Writes lines of the audit, from any thread.

    Args:
        note: writes one; it may block.
        now: wall clock, aware UTC. clock: monotonic seconds.
    """

    def __init__(
        self,
        note: Callable[[AuditView], None],
        *,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._note = note
        self._now = now
        self._clock = clock
        self._lock = threading.Lock()
        self._limit = KeyedLimit(NOTES)
        self._left_out: Counter[str] = Counter()
        self._unwritten: deque[AuditView] = deque(maxlen=_MOST_UNWRITTEN)

    def refused(self, viewer: Viewer, action: str, detail: str, *, site: str = "", rollout: str = "") -> None:
        """Write a refusal, unless there were many just now: then it is only counted."""
        with self._lock:
            now = self._clock()
            if self._limit.wait(viewer.name, now) > 0:
                self._left_out[viewer.name] += 1
                return
            self._limit.take(viewer.name, now)
            more = self._left_out.pop(viewer.name, 0)
        text = f"{detail} (and {more} more refusals)" if more else detail
        self._write(viewer, action, "refused", text, site, rollout)

    def done(
        self, viewer: Viewer, action: str, detail: str, *, site: str = "", rollout: str = "", decision: str = "done"
    ) -> None:
        """Write what somebody did; `decision` is `asked` where somebody else is to carry it out."""
        self._write(viewer, action, decision, detail, site, rollout)

    def _write(self, viewer: Viewer, action: str, decision: str, detail: str, site: str, rollout: str) -> None:
        shown = one_line(detail, 500)
        _log.info("%s %s of %a on %a %a: %s", action, decision, viewer.name, site, rollout, shown)
        line = AuditView(
            id=secrets.token_hex(16),
            time=self._now(),
            action=action,
            decision=decision,
            who=viewer.name,
            where="console",
            site=one_line(site, 100),
            rollout=one_line(rollout, 200),
            detail=shown,
        )
        with self._lock:
            lines = [*self._unwritten, line]
            self._unwritten.clear()
        for at, each in enumerate(lines):
            try:
                self._note(each)
            except DeploykitError as error:
                # The projection may be lost, and an abort must still be possible. The log has the line.
                _log.error("the audit does not have this yet: %s", error)
                with self._lock:
                    self._unwritten.extend(lines[at:])
                return

    @contextmanager
    def judging(
        self, viewer: Viewer, action: str, *, site: str = "", rollout: str = "", unless: int = 0
    ) -> Iterator[None]:
        """Turn every error of an action into a refusal, which is in the audit before it leaves.

        Args:
            unless: a status that is no decision: a mistyped field of something that is only looked at.

        Raises:
            ActionRefused: what the block raised, in words for the person.
        """
        try:
            yield
        except DeploykitError as error:
            refusal = refusal_of(error)
            if refusal.status != unless:
                self.refused(viewer, action, str(refusal), site=site, rollout=rollout)
            if refusal is error:
                raise
            raise refusal from error


def refusal_of(error: DeploykitError) -> ActionRefused:
    """Return what a person is answered for an error of an operation. Pure but for the log.

    Errors that may name paths of this machine go to the log alone.
    """
    if isinstance(error, ActionRefused):
        return error
    for kind, status, field in _SHOWN:
        if isinstance(error, kind):
            fields = {field: error.problem} if field else {}
            return ActionRefused(error.problem, error.remedy, status=status, **fields)
    if isinstance(error, BusError):
        return ActionRefused(f"no node can be reached: {error.problem}", "try again when a broker is", status=503)
    _log.error("an action failed: %s", error)
    problem = next((text for kind, text in _HIDDEN if isinstance(error, kind)), "it cannot be done now")
    return ActionRefused(problem, "the console's log says why; nothing was done", status=503)


__all__ = ["ActionAudit", "refusal_of"]
