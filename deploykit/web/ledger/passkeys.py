"""Passkeys, in the ledger: those that log in, and those that sign; never both. Public keys only."""

from __future__ import annotations

from typing import Literal

import attrs
from sqlalchemy import Row, delete, insert, select, update

from deploykit.web.ledger.database import LedgerDatabase, changed
from deploykit.web.ledger.tables import PASSKEYS

PasskeyPurpose = Literal["login", "signing"]


@attrs.frozen(kw_only=True, slots=True)
class KeptPasskey:
    """A passkey, as the ledger keeps it.

    Args:
        credential: its id, in base64url.
        purpose: what it is for.
        name: whose it is.
        label: what they call it.
        public_key: as COSE.
        rp_id: the relying party.
        counter: of the last use; 0 where the authenticator counts none.
        line: of a signing key, for `allowed_signers`.
        made, used: seconds since 1970, by the database's clock; `used` is None for one that never was.
    """

    credential: str
    purpose: PasskeyPurpose
    name: str
    label: str = ""
    public_key: bytes = b""
    rp_id: str = ""
    counter: int = 0
    line: str = ""
    made: float = 0.0
    used: float | None = None


class PasskeyLedger:
    """The passkeys of all consoles of a database."""

    def __init__(self, database: LedgerDatabase) -> None:
        self._database = database

    def add(self, passkey: KeptPasskey) -> KeptPasskey:
        """Keep a new passkey, and return it with the time.

        Raises:
            LedgerError: the ledger cannot be written, or has this credential already.
        """
        with self._database.writing() as connection:
            made = attrs.evolve(passkey, made=self._database.time(connection), used=None)
            connection.execute(insert(PASSKEYS).values(**attrs.asdict(made)))
        return made

    def find(self, credential: str, purpose: PasskeyPurpose) -> KeptPasskey | None:
        """Return a passkey of a purpose by its credential's id; None where there is none.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self._database.reading() as connection:
            one = select(PASSKEYS).where(PASSKEYS.c.credential == credential, PASSKEYS.c.purpose == purpose)
            row = connection.execute(one).one_or_none()
        return _passkey(row) if row is not None else None

    def list(self, name: str = "", purpose: PasskeyPurpose | None = None) -> tuple[KeptPasskey, ...]:
        """Return the passkeys of a name, or all; of a purpose, or of both; oldest first.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        found = select(PASSKEYS).order_by(PASSKEYS.c.made, PASSKEYS.c.credential)
        if name:
            found = found.where(PASSKEYS.c.name == name)
        if purpose is not None:
            found = found.where(PASSKEYS.c.purpose == purpose)
        with self._database.reading() as connection:
            return tuple(map(_passkey, connection.execute(found)))

    def used(self, credential: str, counter: int) -> bool:
        """Note a use; return whether the counter is higher than at the last one, or both are 0.

        False: the credential is gone, or somebody has a copy of it. Then nothing is noted, and nobody may be let in.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        higher = PASSKEYS.c.counter == 0 if counter == 0 else PASSKEYS.c.counter < counter
        statement = update(PASSKEYS).where(PASSKEYS.c.credential == credential, higher)
        with self._database.writing() as connection:
            noted = connection.execute(statement.values(counter=counter, used=self._database.now()))
            return changed(noted) == 1

    def rename(self, credential: str, name: str, label: str) -> bool:
        """Give a passkey of a name another label; return whether there is one.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        statement = update(PASSKEYS).where(PASSKEYS.c.credential == credential, PASSKEYS.c.name == name)
        with self._database.writing() as connection:
            return changed(connection.execute(statement.values(label=label))) == 1

    def remove(self, credential: str, name: str) -> bool:
        """Remove a passkey of a name; return whether there was one.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        statement = delete(PASSKEYS).where(PASSKEYS.c.credential == credential, PASSKEYS.c.name == name)
        with self._database.writing() as connection:
            return changed(connection.execute(statement)) == 1


def _passkey(row: Row[tuple[object, ...]]) -> KeptPasskey:
    return KeptPasskey(
        credential=row.credential,
        purpose=row.purpose,
        name=row.name,
        label=row.label,
        public_key=row.public_key,
        rp_id=row.rp_id,
        counter=row.counter,
        line=row.line,
        made=row.made,
        used=row.used,
    )


__all__ = ["KeptPasskey", "PasskeyLedger", "PasskeyPurpose"]
