"""The ledger: what the console must not lose, in one database, a part for each kind of thing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from sqlalchemy import URL

from deploykit.errors import LedgerError
from deploykit.settings.web import WebSettings
from deploykit.web.ledger.access import AccessLedger
from deploykit.web.ledger.answers import AnswerLedger
from deploykit.web.ledger.database import LedgerDatabase, ledger_url
from deploykit.web.ledger.journal import LedgerJournal
from deploykit.web.ledger.leases import LeaseLedger, RolloutLease
from deploykit.web.ledger.once import OnceLedger
from deploykit.web.ledger.passkeys import PasskeyLedger
from deploykit.web.ledger.presence import PresenceLedger
from deploykit.web.ledger.requests import RequestLedger
from deploykit.web.ledger.rollouts import RolloutLedger
from deploykit.web.ledger.sessions import SessionLedger
from deploykit.web.ledger.tokens import TokenLedger

#: Seconds for which answers to an Idempotency-Key are kept, and what is over of tokens and grants.
_ANSWERS_FOR: Final = 86400.0
_OVER_FOR: Final = 30 * 86400.0


class Ledger:
    """All parts. Use them from any thread.

    Args:
        database: open.
    """

    def __init__(self, database: LedgerDatabase) -> None:
        self._database = database
        self.rollouts = RolloutLedger(database)
        self.leases = LeaseLedger(database)
        self.requests = RequestLedger(database)
        self.sessions = SessionLedger(database)
        self.tokens = TokenLedger(database)
        self.passkeys = PasskeyLedger(database)
        self.once = OnceLedger(database)
        self.answers = AnswerLedger(database)
        self.access = AccessLedger(database)
        self.presence = PresenceLedger(database)

    @classmethod
    def open(
        cls, settings: WebSettings, state: Path, *, url: URL | None = None, clock: Callable[[], float] | None = None
    ) -> Ledger:
        """Open the ledger, and make or migrate it.

        Args:
            settings: of the console.
            state: the machine's directory, for an SQLite file.
            url: of another database than the settings'.
            clock: seconds since 1970, in place of the database's clock.

        Raises:
            LedgerError: it is damaged, of a newer version, or cannot be reached.
            SettingsError: its password cannot be read.
        """
        database = LedgerDatabase(
            url if url is not None else ledger_url(settings, state), settings.database_password_file, clock=clock
        )
        database.open()
        return cls(database)

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    def journal(self, lease: RolloutLease, wait: Callable[[LedgerError, int], None]) -> LedgerJournal:
        """Return the journal of a rollout, for whoever coordinates it. See `LedgerJournal`.

        Raises:
            JournalDamaged, LedgerError: it cannot be read.
        """
        return LedgerJournal(self._database, lease, wait)

    def prune(self, seconds: float) -> int:
        """Remove what is over; return how much. Sessions are pruned by the login, which knows how long they last.

        Args:
            seconds: for which rollouts that ended are kept.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        removed = self.once.prune() + self.presence.prune() + self.answers.prune(_ANSWERS_FOR)
        removed += self.rollouts.prune(seconds)
        return removed + self.tokens.prune(_OVER_FOR) + self.access.prune(_OVER_FOR)


__all__ = ["Ledger"]
