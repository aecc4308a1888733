"""Logins of browsers, in the ledger. Nothing in it logs anybody in: the id is kept as its SHA-256 only."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from sqlalchemy import ColumnElement, Row, delete, insert, or_, select, update

from deploykit.web.ledger.database import LedgerDatabase, changed
from deploykit.web.ledger.listcells import join_cell, split_cell
from deploykit.web.ledger.tables import SESSIONS


@attrs.frozen(kw_only=True, slots=True)
class KeptSession:
    """A login that lasts, as the ledger keeps it.

    Args:
        key: SHA-256 of the id, in hexadecimal.
        name: who logged in.
        groups: as the provider named them at that time.
        login: how they logged in: `password`, `oidc`, `passkey`.
        proof: changes when what they logged in by is not valid any more; see `web.login`.
        began, used: seconds since 1970, by the database's clock.
    """

    key: str
    name: str
    groups: tuple[str, ...] = ()
    login: str = ""
    proof: str = attrs.field(default="", repr=False)
    began: float = 0.0
    used: float = 0.0


class SessionLedger:
    """The sessions of all consoles of a database."""

    def __init__(self, database: LedgerDatabase) -> None:
        self._database = database

    def begin(self, key: str, name: str, *, groups: Sequence[str] = (), login: str, proof: str) -> KeptSession:
        """Keep a new session, and return it.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._database.writing() as connection:
            now = self._database.time(connection)
            made = KeptSession(key=key, name=name, groups=tuple(groups), login=login, proof=proof, began=now, used=now)
            values = attrs.asdict(made) | {"groups": join_cell(groups)}
            connection.execute(insert(SESSIONS).values(**values))
        return made

    def find(self, key: str, *, idle: float, longest: float) -> KeptSession | None:
        """Return a session; None where there is none, or it is over.

        Args:
            key: SHA-256 of the id.
            idle: seconds without a request after which it is over.
            longest: seconds after which it is over in any case.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self._database.reading() as connection:
            living = select(SESSIONS).where(SESSIONS.c.key == key, ~self._over(idle, longest))
            row = connection.execute(living).one_or_none()
        return _session(row) if row is not None else None

    def use(self, key: str) -> None:
        """Note that a session is in use now. Call it once a minute, not at each request.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._database.writing() as connection:
            connection.execute(update(SESSIONS).where(SESSIONS.c.key == key).values(used=self._database.now()))

    def end(self, key: str) -> bool:
        """End a session; return whether there was one.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._database.writing() as connection:
            return changed(connection.execute(delete(SESSIONS).where(SESSIONS.c.key == key))) > 0

    def end_all_of(self, name: str, *, but: str = "") -> int:
        """End the sessions of a name, and return how many they were. `but`: the key of one that stays.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._database.writing() as connection:
            return changed(connection.execute(delete(SESSIONS).where(SESSIONS.c.name == name, SESSIONS.c.key != but)))

    def list_of(self, name: str) -> tuple[KeptSession, ...]:
        """Return the sessions of a name, the one that was used last first; those that are over are among them.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self._database.reading() as connection:
            found = select(SESSIONS).where(SESSIONS.c.name == name).order_by(SESSIONS.c.used.desc())
            return tuple(map(_session, connection.execute(found)))

    def prune(self, *, idle: float, longest: float, most_of_one: int, most: int) -> int:
        """Remove sessions that are over, and those used longest ago of too many; return how many went.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._database.writing() as connection:
            removed = changed(connection.execute(delete(SESSIONS).where(self._over(idle, longest))))
            newest = select(SESSIONS.c.key, SESSIONS.c.name).order_by(SESSIONS.c.used.desc())
            held: dict[str, int] = {}
            surplus: list[str] = []
            for at, row in enumerate(connection.execute(newest)):
                held[row.name] = held.get(row.name, 0) + 1
                if at >= most or held[row.name] > most_of_one:
                    surplus.append(row.key)
            for begin in range(0, len(surplus), 500):
                some = surplus[begin : begin + 500]
                removed += changed(connection.execute(delete(SESSIONS).where(SESSIONS.c.key.in_(some))))
        return removed

    def _over(self, idle: float, longest: float) -> ColumnElement[bool]:
        now = self._database.now()
        return or_(SESSIONS.c.used < now - idle, SESSIONS.c.began < now - longest)


def _session(row: Row[tuple[object, ...]]) -> KeptSession:
    return KeptSession(
        key=row.key,
        name=row.name,
        groups=split_cell(row.groups),
        login=row.login,
        proof=row.proof,
        began=row.began,
        used=row.used,
    )


__all__ = ["KeptSession", "SessionLedger"]
