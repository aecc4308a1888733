"""Somebody who has left: what lets them in at a console is removed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import attrs

from deploykit.settings.web import WebSettings
from deploykit.web.ledger.ledger import Ledger
from deploykit.web.login.passkeys import INVITATION


@attrs.frozen(kw_only=True, slots=True)
class ForgottenLogin:
    """How much was removed.

    Args:
        passkeys: that logged in. Those that sign count by the files of nodes, not here.
    """

    name: str
    passkeys: int
    sessions: int
    tokens: int
    invitations: int


def forget_login(settings: WebSettings, state: Path, name: str) -> ForgottenLogin:
    """Remove the passkeys for the login, sessions, API tokens and invitations of a name; return how many there were.

    Args:
        settings: `[web]`.
        state: the machine's directory, for a ledger in a file.
        name: as people log in with it.

    Raises:
        LedgerError: the console's ledger cannot be written.
    """
    with closing(Ledger.open(settings, state)) as ledger:
        # In this order: what could begin a session goes before the sessions.
        return ForgottenLogin(
            name=name,
            invitations=ledger.once.end_all(INVITATION, name),
            passkeys=sum(ledger.passkeys.remove(each.credential, name) for each in ledger.passkeys.list(name, "login")),
            tokens=sum(ledger.tokens.end(each.id, owner=name) for each in ledger.tokens.list(name)),
            sessions=ledger.sessions.end_all_of(name),
        )


__all__ = ["ForgottenLogin", "forget_login"]
