"""What people ask of rollouts that run, in the ledger: whichever console coordinates one finds it there."""

from __future__ import annotations

import secrets
import time

import attrs
from sqlalchemy import delete, insert, select

from deploykit.errors import LedgerError, UsageError
from deploykit.fleet.controls import ControlRequest
from deploykit.web.ledger.database import LedgerDatabase
from deploykit.web.ledger.tables import REQUESTS, ROLLOUTS


class RequestLedger:
    """The requests to the rollouts of all consoles of a database."""

    def __init__(self, database: LedgerDatabase) -> None:
        self._database = database

    def ask(self, rollout: str, request: ControlRequest) -> ControlRequest:
        """Leave a request for whoever coordinates a rollout now, or will; return it with its name.

        Raises:
            UsageError: there is no such rollout, or it does not run.
            LedgerError: the ledger cannot be written.
        """
        named = attrs.evolve(request, name=f"{time.time_ns():020d}-{secrets.token_hex(4)}")
        values = {"name": named.name, "kind": named.kind, "asked_by": named.by, "rollback": named.rollback}
        running = select(ROLLOUTS.c.rollout).where(ROLLOUTS.c.rollout == rollout, ROLLOUTS.c.state == "running")
        with self._database.writing() as connection:
            if connection.execute(running.with_for_update()).first() is None:
                raise UsageError(f"rollout {rollout[:80]!a} does not run", "it has ended, or was begun elsewhere")
            connection.execute(insert(REQUESTS).values(rollout=rollout, **values))
        return named

    def waiting(self, rollout: str) -> tuple[ControlRequest, ...]:
        """Return the requests to a rollout that nobody has settled, oldest first.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        wanted = select(REQUESTS).where(REQUESTS.c.rollout == rollout).order_by(REQUESTS.c.name)
        with self._database.reading() as connection:
            rows = connection.execute(wanted).all()
        return tuple(
            ControlRequest(kind=row.kind, by=row.asked_by, rollback=bool(row.rollback), name=row.name) for row in rows
        )

    def settle(self, name: str) -> bool:
        """Remove a request; return whether that was possible now.

        One that stays is handed out again, and its name stands in the journal: nobody carries it out twice.
        """
        try:
            with self._database.writing() as connection:
                connection.execute(delete(REQUESTS).where(REQUESTS.c.name == name))
        except LedgerError:
            return False
        return True


__all__ = ["RequestLedger"]
