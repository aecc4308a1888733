"""Grants of access that were asked for here, in the ledger: so that one without an answer is seen, and extended."""

from __future__ import annotations

import attrs
from sqlalchemy import Row, delete, insert, select

from deploykit.web.ledger.database import LedgerDatabase, changed
from deploykit.web.ledger.tables import ACCESS


@attrs.frozen(kw_only=True, slots=True)
class KeptAccess:
    """A grant that was asked for.

    Args:
        request: the id of its message.
        site, user: who may see what.
        password_hash: as it was sent; the password is kept nowhere.
        until: seconds since 1970; None: as long as nodes allow.
        asked_by: who asked for it here.
        asked: when, by the database's clock.
    """

    request: str
    site: str
    user: str
    password_hash: str = attrs.field(repr=False)
    until: float | None = None
    asked_by: str = ""
    asked: float = 0.0


class AccessLedger:
    """What was asked for from all consoles of a database."""

    def __init__(self, database: LedgerDatabase) -> None:
        self._database = database

    def add(self, grant: KeptAccess) -> KeptAccess:
        """Keep a grant, and return it with the time. Earlier ones of the same user and site are removed.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._database.writing() as connection:
            made = attrs.evolve(grant, asked=self._database.time(connection))
            connection.execute(delete(ACCESS).where(ACCESS.c.site == made.site, ACCESS.c.user == made.user))
            connection.execute(insert(ACCESS).values(**attrs.asdict(made)))
        return made

    def find(self, site: str, user: str) -> KeptAccess | None:
        """Return the last grant of a user and site; None where there is none.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        one = select(ACCESS).where(ACCESS.c.site == site, ACCESS.c.user == user).order_by(ACCESS.c.asked.desc())
        with self._database.reading() as connection:
            row = connection.execute(one.limit(1)).one_or_none()
        return _access(row) if row is not None else None

    def list(self, site: str = "") -> tuple[KeptAccess, ...]:
        """Return the grants of a site, or all, newest first.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        found = select(ACCESS).order_by(ACCESS.c.asked.desc(), ACCESS.c.request)
        if site:
            found = found.where(ACCESS.c.site == site)
        with self._database.reading() as connection:
            return tuple(map(_access, connection.execute(found)))

    def end(self, site: str, user: str) -> bool:
        """Forget the grant of a user and site; return whether there was one.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._database.writing() as connection:
            gone = delete(ACCESS).where(ACCESS.c.site == site, ACCESS.c.user == user)
            return changed(connection.execute(gone)) > 0

    def prune(self, seconds: float) -> int:
        """Remove grants that ended so many seconds ago; return how many.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._database.writing() as connection:
            old = ACCESS.c.until < self._database.now() - seconds
            return changed(connection.execute(delete(ACCESS).where(old)))


def _access(row: Row[tuple[object, ...]]) -> KeptAccess:
    return KeptAccess(
        request=row.request,
        site=row.site,
        user=row.user,
        password_hash=row.password_hash,
        until=row.until,
        asked_by=row.asked_by,
        asked=row.asked,
    )


__all__ = ["AccessLedger", "KeptAccess"]
