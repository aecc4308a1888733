"""Who has a page open from which a site can be changed, in the ledger, so that all consoles of a database know."""

from __future__ import annotations

import attrs
from sqlalchemy import delete, select, update

from deploykit.web.ledger.database import LedgerDatabase, changed, insert_new
from deploykit.web.ledger.tables import PRESENCE

#: Seconds for which somebody who was seen counts as there.
PRESENT_FOR = 90.0


@attrs.frozen(kw_only=True, slots=True)
class KeptPresence:
    """Somebody who is there. `since`: seconds since 1970, by the database's clock."""

    name: str
    what: str
    since: float


class PresenceLedger:
    """Who is where, on all consoles of a database."""

    def __init__(self, database: LedgerDatabase) -> None:
        self._database = database

    def here(self, site: str, name: str, what: str) -> tuple[KeptPresence, ...]:
        """Note that somebody is there, and return who else is, longest first.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._database.writing() as connection:
            now = self._database.time(connection)
            connection.execute(delete(PRESENCE).where(PRESENCE.c.site == site, PRESENCE.c.seen < now - PRESENT_FOR))
            row = {"site": site, "name": name, "what": what, "since": now, "seen": now}
            if not insert_new(connection, PRESENCE, row):
                mine = (PRESENCE.c.site == site, PRESENCE.c.name == name)
                connection.execute(update(PRESENCE).where(*mine).values(what=what, seen=now))
            others = select(PRESENCE).where(PRESENCE.c.site == site, PRESENCE.c.name != name)
            found = connection.execute(others.order_by(PRESENCE.c.since, PRESENCE.c.name)).all()
        return tuple(KeptPresence(name=row.name, what=row.what, since=row.since) for row in found)

    def gone(self, site: str, name: str) -> None:
        """Note that somebody is there no more.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._database.writing() as connection:
            connection.execute(delete(PRESENCE).where(PRESENCE.c.site == site, PRESENCE.c.name == name))

    def prune(self) -> int:
        """Remove who was not seen lately; return how many.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._database.writing() as connection:
            old = PRESENCE.c.seen < self._database.now() - PRESENT_FOR
            return changed(connection.execute(delete(PRESENCE).where(old)))


__all__ = ["PRESENT_FOR", "KeptPresence", "PresenceLedger"]
