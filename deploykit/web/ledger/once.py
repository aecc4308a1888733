"""What is good once and soon over, in the ledger: challenges, states of an OIDC login, invitations."""

from __future__ import annotations

import hashlib
import secrets

from sqlalchemy import ColumnElement, and_, delete, insert, select

from deploykit.web.ledger.database import LedgerDatabase, changed
from deploykit.web.ledger.tables import ONCE


class OnceLedger:
    """Values by a random id that only the browser has; its SHA-256 is kept. All consoles of a database share them."""

    def __init__(self, database: LedgerDatabase) -> None:
        self._database = database

    def put(self, purpose: str, value: str, seconds: float) -> str:
        """Keep a value for so many seconds, and return its id: 256 bits in base64url.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        id_ = secrets.token_urlsafe(32)
        expires = self._database.now() + seconds
        row = insert(ONCE).values(key=_key(id_), purpose=purpose, value=value, expires=expires)
        with self._database.writing() as connection:
            connection.execute(row)
        return id_

    def take(self, id_: str, purpose: str) -> str | None:
        """Return the value of an id and remove it, so nobody takes it again; None: none, over, or of another purpose.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._database.writing() as connection:
            taken = delete(ONCE).where(self._good(id_, purpose)).returning(ONCE.c.value)
            return connection.execute(taken).scalar_one_or_none()

    def look(self, id_: str, purpose: str) -> str | None:
        """Return the value of an id, and leave it; None as for `take`.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self._database.reading() as connection:
            return connection.execute(select(ONCE.c.value).where(self._good(id_, purpose))).scalar_one_or_none()

    def end_all(self, purpose: str, value: str) -> int:
        """Remove everything of a purpose that has a value; return how much.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._database.writing() as connection:
            return changed(connection.execute(delete(ONCE).where(ONCE.c.purpose == purpose, ONCE.c.value == value)))

    def prune(self) -> int:
        """Remove what is over; return how much.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._database.writing() as connection:
            return changed(connection.execute(delete(ONCE).where(ONCE.c.expires <= self._database.now())))

    def _good(self, id_: str, purpose: str) -> ColumnElement[bool]:
        return and_(ONCE.c.key == _key(id_), ONCE.c.purpose == purpose, ONCE.c.expires > self._database.now())


def _key(id_: str) -> str:
    return hashlib.sha256(id_.encode("utf-8", "surrogatepass")).hexdigest()


__all__ = ["OnceLedger"]
