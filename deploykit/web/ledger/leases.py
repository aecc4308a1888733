"""Which console coordinates a rollout: a lease in the ledger, counted up with each owner.

Rules:

* Whoever holds the newest lease writes; all others write nothing more, and so send nothing new.
* A lease ends by the database's clock. One that was not taken over may be renewed late.
* A console that is known to be gone need not be waited for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

import attrs
from sqlalchemy import ColumnElement, Connection, and_, or_, select, update

from deploykit.errors import RolloutBusy
from deploykit.web.ledger.database import LedgerDatabase, changed
from deploykit.web.ledger.tables import ROLLOUTS

#: Seconds by which a lease may lie ahead of the clock; one that lies further was written before the clock was set back.
_AHEAD: Final = 86400.0


@attrs.frozen(kw_only=True, slots=True)
class RolloutLease:
    """The right to coordinate a rollout. `epoch`: how many owners it has had."""

    rollout: str
    owner: str
    epoch: int


class LeaseLedger:
    """The leases of all consoles of a database."""

    def __init__(self, database: LedgerDatabase) -> None:
        self._database = database

    def renew(self, leases: Iterable[RolloutLease], seconds: float) -> frozenset[str]:
        """Make leases last so many seconds from now; return the rollouts of those that are lost, or have ended.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        lost = set()
        until = self._database.now() + seconds
        with self._database.writing() as connection:
            for lease in sorted(leases, key=lambda each: each.rollout):  # in one order: no two wait for each other
                kept = connection.execute(update(ROLLOUTS).where(_held(lease)).values(leased_until=until))
                if changed(kept) == 0:
                    lost.add(lease.rollout)
        return frozenset(lost)

    def release(self, lease: RolloutLease) -> None:
        """Give a lease back: whoever looks next goes on at once.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._database.writing() as connection:
            connection.execute(update(ROLLOUTS).where(_held(lease)).values(owner="", leased_until=0.0))

    def take_over(self, owner: str, seconds: float, *, gone: Collection[str] = ()) -> tuple[RolloutLease, ...]:
        """Take the leases that are over, or were given back, and return them.

        Args:
            owner: who takes them.
            seconds: for which they last.
            gone: owners that are known to have ended.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        now = self._database.now()
        over = or_(
            ROLLOUTS.c.leased_until <= now,
            ROLLOUTS.c.leased_until > now + seconds + _AHEAD,
            ROLLOUTS.c.owner.in_([*gone, ""]),
        )
        wanted = select(ROLLOUTS.c.rollout, ROLLOUTS.c.epoch).where(
            ROLLOUTS.c.state == "running", ROLLOUTS.c.owner != owner, over
        )
        taken = []
        with self._database.writing() as connection:
            for row in connection.execute(wanted.order_by(ROLLOUTS.c.rollout).with_for_update(skip_locked=True)).all():
                lease = RolloutLease(rollout=row.rollout, owner=owner, epoch=row.epoch + 1)
                values = {"owner": owner, "epoch": lease.epoch, "leased_until": now + seconds}
                connection.execute(update(ROLLOUTS).where(ROLLOUTS.c.rollout == row.rollout).values(**values))
                taken.append(lease)
        return tuple(taken)

    def of(self, owner: str) -> tuple[RolloutLease, ...]:
        """Return the leases of an owner.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        mine = select(ROLLOUTS.c.rollout, ROLLOUTS.c.epoch).where(ROLLOUTS.c.state == "running")
        with self._database.reading() as connection:
            rows = connection.execute(mine.where(ROLLOUTS.c.owner == owner)).all()
        return tuple(RolloutLease(rollout=row.rollout, owner=owner, epoch=row.epoch) for row in rows)


def require_lease(connection: Connection, lease: RolloutLease) -> None:
    """Accept a transaction of whoever holds the newest lease; nobody takes it over before the transaction ends.

    Raises:
        RolloutBusy: another console has taken it over, or the rollout has ended.
    """
    held = select(ROLLOUTS.c.epoch).where(_held(lease)).with_for_update()
    if connection.execute(held).first() is None:
        raise RolloutBusy(
            f"another console coordinates rollout {lease.rollout} now, or it has ended",
            "it goes on there; nothing more is sent from here",
        )


def _held(lease: RolloutLease) -> ColumnElement[bool]:
    return and_(
        ROLLOUTS.c.rollout == lease.rollout,
        ROLLOUTS.c.owner == lease.owner,
        ROLLOUTS.c.epoch == lease.epoch,
        ROLLOUTS.c.state == "running",
    )


__all__ = ["LeaseLedger", "RolloutLease", "require_lease"]
