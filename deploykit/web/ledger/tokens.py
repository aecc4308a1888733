"""API tokens, in the ledger: a token is kept as its SHA-256 only."""

from __future__ import annotations

from collections.abc import Collection

import attrs
from sqlalchemy import Row, delete, insert, or_, select, update

from deploykit.settings.web import WebRole
from deploykit.web.ledger.database import LedgerDatabase, changed
from deploykit.web.ledger.listcells import join_cell, split_cell
from deploykit.web.ledger.tables import TOKENS

#: Seconds for which a use is noted once.
_USED_EVERY = 60.0


@attrs.frozen(kw_only=True, slots=True)
class KeptToken:
    """A token, as the ledger keeps it.

    Args:
        key: SHA-256 of the token, in hexadecimal.
        id: names it where people see it; no secret.
        owner: whose rights it has, at most.
        groups: of the owner, when it was made.
        label: what it is for, in the owner's words.
        role, sites: what it may do at most; patterns of sites.
        made, expires, used: seconds since 1970, by the database's clock; `used` is None for one that never was.
    """

    key: str
    id: str
    owner: str
    groups: tuple[str, ...] = ()
    label: str = ""
    role: WebRole = "look"
    sites: tuple[str, ...] = ("*",)
    made: float = 0.0
    expires: float = 0.0
    used: float | None = None


class TokenLedger:
    """The tokens of all consoles of a database."""

    def __init__(self, database: LedgerDatabase) -> None:
        self._database = database

    def add(self, token: KeptToken, *, seconds: float) -> KeptToken:
        """Keep a new token that is good for so many seconds; return it with its times.

        Raises:
            LedgerError: the ledger cannot be written, or there is one with this key or id.
        """
        with self._database.writing() as connection:
            now = self._database.time(connection)
            made = attrs.evolve(token, made=now, expires=now + seconds, used=None)
            cells = {"groups": join_cell(made.groups), "sites": join_cell(made.sites)}
            connection.execute(insert(TOKENS).values(**attrs.asdict(made) | cells))
        return made

    def find(self, key: str) -> KeptToken | None:
        """Return a token by the SHA-256 of what was sent; None where there is none, or it has expired.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self._database.reading() as connection:
            good = select(TOKENS).where(TOKENS.c.key == key, TOKENS.c.expires > self._database.now())
            row = connection.execute(good).one_or_none()
        return _token(row) if row is not None else None

    def use(self, key: str) -> None:
        """Note that a token is used now; at most once a minute.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        now = self._database.now()
        with self._database.writing() as connection:
            long_ago = or_(TOKENS.c.used.is_(None), TOKENS.c.used < now - _USED_EVERY)
            connection.execute(update(TOKENS).where(TOKENS.c.key == key, long_ago).values(used=now))

    def list(self, owner: str = "") -> tuple[KeptToken, ...]:
        """Return the tokens of an owner, or all, newest first; those that have expired are among them.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self._database.reading() as connection:
            found = select(TOKENS).order_by(TOKENS.c.made.desc())
            if owner:
                found = found.where(TOKENS.c.owner == owner)
            return tuple(map(_token, connection.execute(found)))

    def narrow(self, owner: str, groups: Collection[str]) -> int:
        """Take groups from the tokens of an owner who is in `groups` alone; return how many tokens had others.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        narrowed = 0
        with self._database.writing() as connection:
            for row in connection.execute(select(TOKENS.c.key, TOKENS.c.groups).where(TOKENS.c.owner == owner)).all():
                had = split_cell(row.groups)
                if set(had) <= set(groups):
                    continue
                left = join_cell(each for each in had if each in groups)
                narrowed += changed(
                    connection.execute(update(TOKENS).where(TOKENS.c.key == row.key).values(groups=left))
                )
        return narrowed

    def end(self, id: str, *, owner: str = "") -> bool:
        """Revoke a token; return whether there was one. `owner`: only where it is theirs.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        statement = delete(TOKENS).where(TOKENS.c.id == id)
        if owner:
            statement = statement.where(TOKENS.c.owner == owner)
        with self._database.writing() as connection:
            return changed(connection.execute(statement)) > 0

    def prune(self, seconds: float) -> int:
        """Remove tokens that expired so many seconds ago; return how many.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._database.writing() as connection:
            old = TOKENS.c.expires < self._database.now() - seconds
            return changed(connection.execute(delete(TOKENS).where(old)))


def _token(row: Row[tuple[object, ...]]) -> KeptToken:
    return KeptToken(
        key=row.key,
        id=row.id,
        owner=row.owner,
        groups=split_cell(row.groups),
        label=row.label,
        role=row.role,
        sites=split_cell(row.sites),
        made=row.made,
        expires=row.expires,
        used=row.used,
    )


__all__ = ["KeptToken", "TokenLedger"]
