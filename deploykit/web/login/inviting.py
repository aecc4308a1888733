"""Invitations to a console: links by which somebody makes their first passkey."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import attrs

from deploykit.errors import UsageError
from deploykit.settings.web import WebSettings
from deploykit.system.passwordfile import PasswordFile, is_login_name
from deploykit.web.ledger.ledger import Ledger
from deploykit.web.login.passkeys import INVITATION, INVITED_FOR
from deploykit.web.login.rights import GROUP, viewer_for


@attrs.frozen(kw_only=True, slots=True)
class Invitation:
    """An invitation that was made.

    Args:
        url: the link, with the code that is good once.
        seconds: for which it is good.
        may: whether the settings let them see anything.
    """

    name: str
    url: str = attrs.field(repr=False)
    seconds: float
    may: bool


def make_invitation(settings: WebSettings, state: Path, name: str) -> Invitation:
    """Return a new invitation for a name.

    Args:
        settings: `[web]`.
        state: the machine's directory, for a ledger in a file.
        name: as `[[web.access]]` has it.

    Raises:
        UsageError: the console takes no passkeys, or nobody can be called like that.
        SettingsError: the password file cannot be used.
        LedgerError: the console's ledger cannot be written.
    """
    if settings.login != "passkey" and not settings.passkeys:
        raise UsageError("this console takes no passkeys", 'set [web] login = "passkey", or passkeys = true')
    if not is_login_name(name) or name.startswith(GROUP):
        raise UsageError(f"{name[:60]!a} is no name of a person", "give it as [[web.access]] users has it")
    file = settings.password_file if settings.login == "password" else None
    if file is not None and name not in PasswordFile(file).table.hashes:
        raise UsageError(f"{name} is not in {file}", "add them there first: a passkey stands beside a password")
    with closing(Ledger.open(settings, state)) as ledger:
        code = ledger.once.put(INVITATION, name, INVITED_FOR)
    return Invitation(
        name=name,
        url=f"{settings.url.rstrip('/')}/invite/{code}",
        seconds=INVITED_FOR,
        may=bool(viewer_for(name, settings.access).grants),
    )


__all__ = ["Invitation", "make_invitation"]
