"""Rollouts in the ledger, from the proposal to the end.

    proposed -> running -> ended          proposed -> withdrawn          running -> proposed: nothing was sent yet

Rules:

* One rollout of a site runs: the database itself refuses a second one.
* A proposal's mandate is changed under a lock of its row: two people who sign at once lose no signature.
* What cannot be gone on with is ended, so that the site is free; its records stay.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Literal

import attrs
from sqlalchemy import ColumnElement, Connection, Row, Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from deploykit.errors import DeploykitError, JournalDamaged, LedgerError, RolloutBusy, UsageError
from deploykit.fleet.journal import JournalContents, JournalRecord, decode_record
from deploykit.fleet.journalhead import JournalHead, decode_head, encode_head
from deploykit.fleet.mandates import HeldMandate, require_inside
from deploykit.web.ledger.database import LedgerDatabase, changed
from deploykit.web.ledger.leases import RolloutLease, require_lease
from deploykit.web.ledger.tables import RECORDS, REQUESTS, ROLLOUTS

LedgerState = Literal["proposed", "running", "ended", "withdrawn"]
#: What decoders raise of values that are none of ours.
_UNREADABLE: Final = (
    *(DeploykitError, ValueError, TypeError, KeyError, AttributeError, OverflowError),
    RecursionError,
)
#: Rows of one DELETE.
_SOME: Final = 200


@attrs.frozen(kw_only=True, slots=True)
class LedgerRollout:
    """A rollout, as the ledger keeps it.

    Args:
        requested_by: who began or proposed it here.
        begun, ended: seconds since 1970, by the database's clock; `begun` of a proposal: when it was made.
        owner: the console that coordinates it; empty for none.
        led: that console's lease is not over.
        raw_head: what its journal begins with, as JSON.
    """

    rollout: str
    site: str
    state: LedgerState
    requested_by: str
    begun: float
    ended: float | None
    owner: str
    led: bool
    raw_head: str = attrs.field(repr=False)

    def head(self) -> JournalHead:
        """Return what its journal begins with: the plan, the mandate with its signatures.

        Raises:
            JournalDamaged: that cannot be read.
        """
        return _head(self.rollout, self.raw_head)


@attrs.frozen(kw_only=True, slots=True)
class ProposalMark:
    """A proposal as it is now: another signature changes `length`, which is that of its head."""

    rollout: str
    length: int


class RolloutLedger:
    """The rollouts of all consoles of a database."""

    def __init__(self, database: LedgerDatabase) -> None:
        self._database = database

    # -- begun, proposed, withdrawn ------------------------------------------------------------------------------------

    def propose(self, head: JournalHead, requested_by: str) -> None:
        """Keep a proposal: a head with a mandate.

        Raises:
            PolicyRefused: its plan lies outside of the mandate.
            LedgerError: the ledger cannot be written.
        """
        _require_inside(head)
        with self._database.writing() as connection:
            values = {"state": "proposed", "requested_by": requested_by, "begun": self._database.now()}
            connection.execute(insert(ROLLOUTS).values(**_columns(head), **values))

    def start(self, head: JournalHead, requested_by: str, owner: str, seconds: float) -> RolloutLease:
        """Keep a rollout that begins now, with a lease of its first owner.

        Raises:
            RolloutBusy: another rollout of the site runs.
            LedgerError: the ledger cannot be written.
        """
        _require_inside(head)
        lease = RolloutLease(rollout=head.plan.rollout, owner=owner, epoch=1)
        with self._one_of_a_site(head.plan.site, head.plan.rollout), self._database.writing() as connection:
            now = self._database.now()
            values = {"requested_by": requested_by, "begun": now, **_of(lease), "leased_until": now + seconds}
            connection.execute(insert(ROLLOUTS).values(**_columns(head), **values))
        return lease

    def begin(self, head: JournalHead, owner: str, seconds: float, *, was: str) -> RolloutLease | None:
        """Begin a rollout that was proposed, with the mandate that goes out; one of several who try gets it.

        Args:
            was: `raw_head` of the proposal that was judged.

        Returns:
            The lease; None where somebody has signed since: judge it again.

        Raises:
            RolloutBusy: another rollout of the site runs.
            UsageError: it has begun, or was withdrawn.
            LedgerError: the ledger cannot be written.
        """
        _require_inside(head)
        rollout = head.plan.rollout
        with self._one_of_a_site(head.plan.site, rollout), self._database.writing() as connection:
            row = connection.execute(_locked(rollout)).one_or_none()
            if row is None or row.state != "proposed":
                raise _not_proposed(rollout)
            if row.head != was:
                return None
            lease = RolloutLease(rollout=rollout, owner=owner, epoch=row.epoch + 1)
            now = self._database.now()
            values = {**_columns(head), "begun": now, **_of(lease), "leased_until": now + seconds}
            connection.execute(update(ROLLOUTS).where(ROLLOUTS.c.rollout == rollout).values(**values))
        return lease

    def change_mandate(self, rollout: str, change: Callable[[HeldMandate], HeldMandate]) -> LedgerRollout:
        """Replace the mandate of a proposal by what `change` makes of it now; return the proposal.

        Raises:
            UsageError: it has begun, or was withdrawn.
            LedgerError: the ledger cannot be written.
            DeploykitError: what `change` raises.
        """
        with self._database.writing() as connection:
            row = connection.execute(_locked(rollout)).one_or_none()
            if row is None or row.state != "proposed":
                raise _not_proposed(rollout)
            head = _head(rollout, row.head)
            if head.mandate is None:
                raise JournalDamaged(f"the proposal of rollout {rollout} has no mandate", "propose it anew")
            made = attrs.evolve(head, mandate=change(head.mandate))
            _require_inside(made)
            text = json.dumps(encode_head(made))
            connection.execute(update(ROLLOUTS).where(ROLLOUTS.c.rollout == rollout).values(head=text))
        return _row(row, raw_head=text)

    def withdraw(self, rollout: str) -> None:
        """End a proposal.

        Raises:
            UsageError: it has begun, or was withdrawn.
            LedgerError: the ledger cannot be written.
        """
        ended = {"state": "withdrawn", "ended": self._database.now()}
        waits = (ROLLOUTS.c.rollout == rollout, ROLLOUTS.c.state == "proposed")
        with self._database.writing() as connection:
            if changed(connection.execute(update(ROLLOUTS).where(*waits).values(**ended))) == 0:
                raise _not_proposed(rollout)

    def undo(self, lease: RolloutLease) -> bool:
        """Undo the beginning of a rollout that has no record: nothing was sent. Return whether it was undone.

        One that people signed waits for them again.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._database.writing() as connection:
            require_lease(connection, lease)
            kept = select(func.count()).select_from(RECORDS).where(RECORDS.c.rollout == lease.rollout)
            if connection.execute(kept).scalar_one():
                return False
            row = connection.execute(_locked(lease.rollout)).one()
            proposed = json.loads(row.head).get("mandate") is not None
            values = {"state": "proposed" if proposed else "withdrawn", "owner": "", "leased_until": 0.0}
            connection.execute(update(ROLLOUTS).where(ROLLOUTS.c.rollout == lease.rollout).values(**values))
        return True

    def abandon(self, lease: RolloutLease) -> None:
        """End a rollout that nobody can go on with: its journal is damaged, or does not fit together.

        Raises:
            RolloutBusy: another console has taken it over.
            LedgerError: the ledger cannot be written.
        """
        with self._database.writing() as connection:
            require_lease(connection, lease)
            end_row(connection, lease.rollout, self._database.now())

    # -- found ---------------------------------------------------------------------------------------------------------

    def find(self, rollout: str) -> LedgerRollout | None:
        """Return a rollout by its id; None where there is none.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        found = self._select(ROLLOUTS.c.rollout == rollout)
        return found[0] if found else None

    def list(
        self, *, site: str = "", states: Sequence[LedgerState] = (), since: float = 0.0, limit: int = 100
    ) -> tuple[LedgerRollout, ...]:
        """Return rollouts, newest first: of a site or all, in some states or all, that were begun after a time.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        where: list[ColumnElement[bool]] = [ROLLOUTS.c.begun > since]
        if site:
            where.append(ROLLOUTS.c.site == site)
        if states:
            where.append(ROLLOUTS.c.state.in_(states))
        return self._select(*where, limit=limit)

    def waiting(self) -> tuple[ProposalMark, ...]:
        """Return what tells whether proposals have changed, without their plans, which may be long.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        marks = select(ROLLOUTS.c.rollout, func.length(ROLLOUTS.c.head).label("length"))
        with self._database.reading() as connection:
            rows = connection.execute(marks.where(ROLLOUTS.c.state == "proposed")).all()
        return tuple(ProposalMark(rollout=row.rollout, length=row.length) for row in rows)

    def running(self, site: str) -> LedgerRollout | None:
        """Return the rollout of a site that runs; None where none does.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        found = self._select(ROLLOUTS.c.site == site, ROLLOUTS.c.state == "running")
        return found[0] if found else None

    def contents(self, rollout: str) -> JournalContents:
        """Return the journal of a rollout.

        Raises:
            UsageError: there is no such rollout.
            JournalDamaged: it cannot be read.
            LedgerError: the ledger cannot be read.
        """
        records = select(RECORDS.c.number, RECORDS.c.record).where(RECORDS.c.rollout == rollout)
        with self._database.reading() as connection:
            head = connection.execute(select(ROLLOUTS.c.head).where(ROLLOUTS.c.rollout == rollout)).scalar_one_or_none()
            rows = [(row.number, row.record) for row in connection.execute(records.order_by(RECORDS.c.number))]
        if head is None:
            raise UsageError(f"there is no rollout {rollout[:80]!a} in the console's ledger", "see /deploys")
        return JournalContents(head=_head(rollout, head), records=tuple(_records(rollout, rows)))

    def prune(self, seconds: float) -> int:
        """Remove rollouts that ended so many seconds ago, and proposals as old; return how many.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._database.writing() as connection:
            old = select(ROLLOUTS.c.rollout).where(
                ROLLOUTS.c.state != "running",
                func.coalesce(ROLLOUTS.c.ended, ROLLOUTS.c.begun) < self._database.now() - seconds,
            )
            names = connection.execute(old.limit(_SOME)).scalars().all()
            for table in (RECORDS, REQUESTS, ROLLOUTS):
                connection.execute(delete(table).where(table.c.rollout.in_(names)))
        return len(names)

    def _select(self, *where: ColumnElement[bool], limit: int = 100) -> tuple[LedgerRollout, ...]:
        led = (ROLLOUTS.c.leased_until > self._database.now()).label("led")
        statement = select(ROLLOUTS, led).where(*where).order_by(ROLLOUTS.c.begun.desc(), ROLLOUTS.c.rollout.desc())
        with self._database.reading() as connection:
            rows = connection.execute(statement.limit(limit)).all()
        return tuple(_row(row, led=bool(row.led)) for row in rows)

    @contextmanager
    def _one_of_a_site(self, site: str, rollout: str) -> Iterator[None]:
        """Name the rollout that runs where the database refuses another one."""
        try:
            yield
        except LedgerError as error:
            if not isinstance(error.__cause__, IntegrityError):
                raise
            other = self.running(site)
            if other is None or other.rollout == rollout:
                raise
            raise RolloutBusy(
                f"rollout {other.rollout} of {site} runs, begun by {other.requested_by}",
                f"wait for it, or abort it: /deploys/{other.rollout}",
            ) from error


def end_row(connection: Connection, rollout: str, now: ColumnElement[float]) -> None:
    """Note that a rollout has ended: its site is free, and nobody has a lease."""
    ended = {"state": "ended", "ended": now, "leased_until": 0.0}
    connection.execute(update(ROLLOUTS).where(ROLLOUTS.c.rollout == rollout).values(**ended))
    connection.execute(delete(REQUESTS).where(REQUESTS.c.rollout == rollout))


def _locked(rollout: str) -> Select[tuple[object, ...]]:
    return select(ROLLOUTS).where(ROLLOUTS.c.rollout == rollout).with_for_update()


def _columns(head: JournalHead) -> dict[str, object]:
    return {"rollout": head.plan.rollout, "site": head.plan.site, "head": json.dumps(encode_head(head))}


def _of(lease: RolloutLease) -> dict[str, object]:
    return {"state": "running", "owner": lease.owner, "epoch": lease.epoch}


def _require_inside(head: JournalHead) -> None:
    require_inside(head.mandate, head.plan, without_build=head.without_build, override_lock=head.override_lock)


def _not_proposed(rollout: str) -> UsageError:
    return UsageError(f"rollout {rollout[:80]!a} does not wait for people", "it has begun, or was withdrawn")


def _row(row: Row[tuple[object, ...]], *, led: bool = False, raw_head: str = "") -> LedgerRollout:
    return LedgerRollout(
        rollout=row.rollout,
        site=row.site,
        state=row.state,
        requested_by=row.requested_by,
        begun=row.begun,
        ended=row.ended,
        owner=row.owner,
        led=led and row.state == "running",
        raw_head=raw_head or row.head,
    )


def _head(rollout: str, text: str) -> JournalHead:
    try:
        return decode_head(json.loads(text))
    except _UNREADABLE as error:
        why = str(error)[:200] or type(error).__name__
        raise JournalDamaged(
            f"the plan of rollout {rollout} in the console's ledger is damaged: {why}",
            "look at the nodes with `deploykit status --all`, and begin a new rollout",
        ) from error


def _records(rollout: str, rows: Sequence[tuple[int, str]]) -> Iterator[JournalRecord]:
    for at, (number, record) in enumerate(rows):
        try:
            if number != at:
                raise ValueError(f"record {at} is missing")
            yield decode_record(json.loads(record))
        except (
            DeploykitError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as error:
            why = str(error)[:200] or type(error).__name__
            raise JournalDamaged(
                f"record {at} of rollout {rollout} in the console's ledger is damaged: {why}",
                "look at the nodes with `deploykit status --all`, and begin a new rollout",
            ) from error


__all__ = ["LedgerRollout", "LedgerState", "ProposalMark", "RolloutLedger", "end_row"]
