"""The journal of a rollout in the ledger: what the coordinator of a console writes, under its lease.

Rules:

* Each write looks at the lease first, in the same transaction: a console that lost it writes nothing.
* Records are numbered: a write whose answer was lost is found again, and not made twice.
* A database that is away is waited for. What is not written is not sent.
* Records that need not be durable wait for the next look at the requests, and are one transaction then.
* The end of a rollout and the freedom of its site are one write.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from sqlalchemy import Connection, insert, select

from deploykit.errors import JournalDamaged, LedgerError
from deploykit.fleet.controls import ControlRequest
from deploykit.fleet.journal import EndRecord, JournalContents, JournalRecord, encode_record
from deploykit.web.ledger.database import LedgerDatabase, is_away
from deploykit.web.ledger.leases import RolloutLease, require_lease
from deploykit.web.ledger.requests import RequestLedger
from deploykit.web.ledger.rollouts import RolloutLedger, end_row
from deploykit.web.ledger.tables import RECORDS

#: Seconds between two looks at the requests, and the longest pause while the database is away.
_LOOK: Final = 0.25
_LONGEST: Final = 5.0


class LedgerJournal:
    """The journal of a rollout that this console coordinates: a `JournalPort`.

    Args:
        database: open.
        lease: of the rollout.
        wait: is called with a problem of the database and how often it came in a row; it returns after a pause, or
            raises where the rollout is to be left.

    Raises:
        JournalDamaged, LedgerError: the journal cannot be read.
    """

    def __init__(self, database: LedgerDatabase, lease: RolloutLease, wait: Callable[[LedgerError, int], None]) -> None:
        self._database = database
        self._lease = lease
        self._wait = wait
        self._requests = RequestLedger(database)
        self._contents = RolloutLedger(database).contents(lease.rollout)
        self._written = len(self._contents.records)
        self._unwritten: list[str] = []
        self._ends = False
        self._next_look, self._failures = 0.0, 0
        self._asked = threading.Event()

    @property
    def contents(self) -> JournalContents:
        """What it held when it was opened."""
        return self._contents

    @property
    def place(self) -> str:
        """Where it is, in words for a person."""
        return f"rollout {self._lease.rollout} in the console's ledger"

    def append(self, records: Iterable[JournalRecord], *, durable: bool = True) -> None:
        """Keep records; with `durable` they are committed when it returns.

        Raises:
            RolloutBusy: another console has taken the rollout over.
            LedgerError: the database refuses them, or is away and the rollout is to be left.
        """
        for record in records:
            self._unwritten.append(json.dumps(encode_record(record)))
            self._ends = self._ends or isinstance(record, EndRecord)
        if durable:
            self._flush()

    def requests(self) -> Sequence[ControlRequest]:
        """Return what people ask of the rollout; nothing while the database does not say.

        Raises:
            RolloutBusy: another console has taken the rollout over.
            LedgerError: records that wait cannot be written.
        """
        self._flush()
        if not self._asked.is_set() and time.monotonic() < self._next_look:
            return ()
        self._asked.clear()
        try:
            found = self._requests.waiting(self._lease.rollout)
        except LedgerError:
            self._failures += 1
        else:
            self._failures = 0
            return found
        finally:
            self._next_look = time.monotonic() + min(_LOOK * 2**self._failures, _LONGEST)
        return ()

    def settle(self, request: ControlRequest) -> None:
        """Remove a request that stands in the journal."""
        self._requests.settle(request.name)

    def look(self) -> None:
        """Have the next call of `requests` look at once: this console has just left one. Any thread may call."""
        self._asked.set()

    def _flush(self) -> None:
        failures = 0
        while self._unwritten:
            try:
                self._write()
            except LedgerError as error:
                if not is_away(error):
                    raise
                failures += 1
                self._wait(error, failures)
            else:
                self._written += len(self._unwritten)
                self._unwritten.clear()

    def _write(self) -> None:
        first = self._written
        with self._database.writing() as connection:
            if self._ends and self._has(connection, first):
                return  # the answer to the last write was lost, and the lease ended with it
            require_lease(connection, self._lease)
            if self._has(connection, first):
                return
            rows = [
                {"rollout": self._lease.rollout, "number": first + at, "record": record}
                for at, record in enumerate(self._unwritten)
            ]
            connection.execute(insert(RECORDS), rows)
            if self._ends:
                end_row(connection, self._lease.rollout, self._database.now())

    def _has(self, connection: Connection, number: int) -> bool:
        """Return whether the first record that waits is there already.

        Raises:
            JournalDamaged: another one is there, though nobody else has the lease.
        """
        one = select(RECORDS.c.record).where(RECORDS.c.rollout == self._lease.rollout, RECORDS.c.number == number)
        found = connection.execute(one).scalar_one_or_none()
        if found is not None and found != self._unwritten[0]:
            raise JournalDamaged(f"record {number} of {self.place} was written by another", "nothing more is sent")
        return found is not None


__all__ = ["LedgerJournal"]
