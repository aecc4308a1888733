"""What API calls with an Idempotency-Key were answered, in the ledger: the same key gives the same answer."""

from __future__ import annotations

import attrs
from sqlalchemy import delete, select, update

from deploykit.web.ledger.database import LedgerDatabase, changed, insert_new
from deploykit.web.ledger.tables import ANSWERS


@attrs.frozen(kw_only=True, slots=True)
class KeptAnswer:
    """What is known of a key.

    Args:
        request: SHA-256 of what was asked with it.
        status: of the answer; 0 while the call is carried out, by this console or another.
        location, body: of the answer.
    """

    request: str
    status: int = 0
    location: str = ""
    body: str = ""


class AnswerLedger:
    """The answers of all consoles of a database."""

    def __init__(self, database: LedgerDatabase) -> None:
        self._database = database

    def begin(self, key: str, request: str) -> KeptAnswer | None:
        """Take a key for a call; None: it is the caller's, who carries the call out and calls `finish` or `drop`.

        Args:
            key: SHA-256 of the caller and the Idempotency-Key.
            request: SHA-256 of the call.

        Returns:
            What is known of the key, where it is taken; the caller compares `request`.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        values = {"key": key, "request": request, "status": 0, "location": "", "body": ""}
        with self._database.writing() as connection:
            if insert_new(connection, ANSWERS, {**values, "answered": self._database.now()}):
                return None
            row = connection.execute(select(ANSWERS).where(ANSWERS.c.key == key)).one_or_none()
        if row is None:  # dropped at this very moment: the next attempt gets it
            return KeptAnswer(request=request)
        return KeptAnswer(request=row.request, status=row.status, location=row.location, body=row.body)

    def finish(self, key: str, status: int, *, location: str = "", body: str = "") -> None:
        """Keep the answer of a call that was carried out.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        values = {"status": status, "location": location, "body": body, "answered": self._database.now()}
        with self._database.writing() as connection:
            connection.execute(update(ANSWERS).where(ANSWERS.c.key == key).values(**values))

    def drop(self, key: str) -> None:
        """Give a key back: nothing was done, and the same call may come again.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._database.writing() as connection:
            connection.execute(delete(ANSWERS).where(ANSWERS.c.key == key, ANSWERS.c.status == 0))

    def prune(self, seconds: float) -> int:
        """Remove answers older than so many seconds, and keys whose call never ended; return how many.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._database.writing() as connection:
            old = ANSWERS.c.answered < self._database.now() - seconds
            return changed(connection.execute(delete(ANSWERS).where(old)))


__all__ = ["AnswerLedger", "KeptAnswer"]
