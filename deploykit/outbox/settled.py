"""How the relay takes records out of the spool, and what it owes a spool that refuses.

Rules:

* A record that was sent and cannot be removed is *owed*: it is not sent again. The same holds for a record that cannot
  become a dead letter.
* Other records go on meanwhile. What is owed is tried again every few seconds.
* At `_MOST_OWED` records the relay sends nothing more until the disk works again.
* A problem that lasts is logged once, and once more when it is over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Final

from deploykit.errors import OutboxError
from deploykit.outbox.format import RecordId
from deploykit.outbox.record import Record
from deploykit.outbox.report import DeadLetter, Tally
from deploykit.outbox.spool import Outbox

_log = logging.getLogger(__name__)

#: Seconds between two attempts to settle what is owed.
_AGAIN: Final = 5.0
_MOST_OWED: Final = 1000


class SettledRecords:
    """The records of one relay that are to leave the spool.

    Args:
        outbox: the spool.
        on_dead_letter: called for each dead letter.
    """

    def __init__(self, outbox: Outbox, on_dead_letter: Callable[[DeadLetter], None] | None) -> None:
        self.tally = Tally()
        #: Records that were settled, ever.
        self.moved = 0
        self._outbox = outbox
        self._on_dead_letter = on_dead_letter
        self._owed: dict[RecordId, str | None] = {}  # the reason for a dead letter, or None: remove it
        self._due = 0.0  # monotonic
        self._in_file: set[RecordId] = set()
        self._logged: set[str] = set()  # problems that are not over

    def ack(self, record: Record) -> None:
        """Remove a record that the broker has."""
        self._settle(record, None)
        self.tally.sent += 1
        self.moved += 1

    def dead_letter(self, record: Record, reason: str) -> None:
        """Make a record a dead letter."""
        self._settle(record, reason)
        self.moved += 1

    def _settle(self, record: Record, reason: str | None) -> bool:
        """Return whether the record left the spool; otherwise it is owed."""
        try:
            if reason is None:
                self._outbox.ack(record)
            else:
                self._make_dead_letter(record, reason)
        except OutboxError as error:
            self._owed[record.id] = reason
            self.tally.problem = str(error)
            self.log_once(str(error))
            return False
        if record.of > 1:
            self._in_file.add(record.id)
        return True

    def _make_dead_letter(self, record: Record, reason: str) -> None:
        dead = DeadLetter(id=self._outbox.dead_letter(record, reason), destination=record.destination, reason=reason)
        self.tally.dead_letters.append(dead)
        _log.error("relay: dead letter %s: %s will lack this message: %s", dead.id, dead.destination, dead.reason)
        if self._on_dead_letter is not None:
            self._on_dead_letter(dead)

    # -- the file that is being read ---------------------------------------------------------------------------------

    def begin_file(self) -> None:
        """Forget which records were settled of the file read before."""
        self._in_file.clear()

    def has_settled(self, record: Record) -> bool:
        """Return whether a record was settled after its file was opened."""
        return record.id in self._in_file

    # -- what is owed ------------------------------------------------------------------------------------------------

    @property
    def owed(self) -> frozenset[RecordId]:
        """The records that are settled and still in the spool."""
        return frozenset(self._owed)

    @property
    def owes_too_much(self) -> bool:
        """Whether nothing more may be sent until the spool lets go of something."""
        return len(self._owed) >= _MOST_OWED

    def owes(self, record: Record) -> bool:
        """Return whether this record is owed."""
        return record.id in self._owed

    def seconds_until_due(self, now: float) -> float | None:
        """Return how long until what is owed is tried again; None when nothing is owed."""
        return max(0.0, self._due - now) if self._owed else None

    def begin_pass(self) -> bool:
        """Return whether this pass tries again what is owed. A pass that is then cut short counts, too."""
        now = monotonic()
        if now < self._due:
            return False
        self._due = now + _AGAIN
        return True

    def try_again(self, record: Record) -> None:
        """Try once more to settle a record that is owed."""
        if self._settle(record, self._owed[record.id]):
            del self._owed[record.id]
            self.moved += 1

    def forget(self, gone: set[RecordId]) -> None:
        """Forget records that are no longer in the spool, and log when nothing is owed any more."""
        for record_id in gone:
            self._owed.pop(record_id, None)
        if not self._owed and self._logged:
            self._logged.clear()
            _log.info("relay: spool %s works again", self._outbox.path)

    def log_once(self, problem: str) -> None:
        """Log a problem, unless it was logged and is not over."""
        if problem not in self._logged:
            _log.error("relay: %s", problem)
        self._logged.add(problem)
