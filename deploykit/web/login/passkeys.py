"""Passkeys that log in, over the ledger: made by who is logged in or invited, used at the login. All methods may block.

Rules:

* A step begins with an id from the ledger, good once, for minutes; the challenge is derived from it.
* A key that is in `allowed_signers` is neither registered nor let in. While that file cannot be read, nothing new is
  registered; known passkeys still log in, since somebody has to mend it.
"""

from __future__ import annotations

import json
import logging
from typing import Final, Literal

import attrs

from deploykit.errors import KeyFileError
from deploykit.web.ledger.passkeys import KeptPasskey
from deploykit.web.login.console import ConsoleLogin
from deploykit.web.login.failures import IdentityError
from deploykit.web.login.passkeyrules import (
    ANSWER_WITHIN,
    RelyingParty,
    challenge_of,
    counted,
    credential_in,
    is_signing_key,
    login_options,
    registered,
    registration_options,
    same_key,
)

_log = logging.getLogger(__name__)

#: What ids of the ledger are for.
INVITATION: Final = "invite"
_LOGIN: Final = "passkey-login"
_ADDING: Final = "passkey-add"
#: Seconds for which an invitation is good.
INVITED_FOR: Final = 24 * 3600.0
_MOST_LABEL: Final = 100
#: Passkeys of one person.
MOST_PASSKEYS: Final = 20


@attrs.frozen(kw_only=True, slots=True)
class PasskeyStep:
    """What our script gets to begin with.

    Args:
        id: comes back with the answer.
        options: for the browser, as JSON.
    """

    id: str
    options: str


class LoginPasskeys:
    """The passkeys of one console.

    Args:
        login: whose settings, ledger and trusted keys count.
    """

    def __init__(self, login: ConsoleLogin) -> None:
        self._login = login
        self._party = RelyingParty.of(login.settings.url)

    def begin_login(self) -> PasskeyStep:
        """Return the first step of a login.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        id_ = self._login.ledger.once.put(_LOGIN, "", ANSWER_WITHIN)
        return PasskeyStep(id=id_, options=login_options(self._party, challenge_of(id_)))

    def log_in(self, id_: str, answer: str) -> KeptPasskey:
        """Return the passkey by which somebody has shown who they are.

        Raises:
            IdentityError: nobody has, and why.
            LedgerError: the ledger cannot be read or written.
        """
        self._take(id_, _LOGIN)
        credential = credential_in(answer)
        passkeys = self._login.ledger.passkeys
        passkey = passkeys.find(credential, "login")
        if passkey is None or passkey.rp_id != self._party.id:
            if passkeys.find(credential, "signing") is not None:
                raise IdentityError("this passkey signs rollouts and logs nobody in", _OTHER)
            raise IdentityError("this console does not know this passkey", _OTHER)
        counter = counted(answer, self._party, challenge_of(id_), passkey)
        if self._signs(passkey.public_key, if_unknown=False):
            raise IdentityError("this passkey's key is in allowed_signers: it signs, so it logs nobody in", _OTHER)
        if not passkeys.used(credential, counter):
            raise IdentityError(
                "this passkey's counter has gone back: there is a copy of it", "remove it and add another"
            )
        return passkey

    def begin_adding(self, name: str, key: Literal["account", "invite"]) -> PasskeyStep:
        """Return the first step of making a passkey.

        Args:
            name: whose it will be.
            key: where it is made.

        Raises:
            IdentityError: they have too many.
            LedgerError: the ledger cannot be written.
        """
        have = self._login.ledger.passkeys.list(name, "login")
        if len(have) >= MOST_PASSKEYS:
            raise IdentityError(f"there are {MOST_PASSKEYS} passkeys of this name", "remove one first")
        id_ = self._login.ledger.once.put(_ADDING, json.dumps({"name": name, "for": key}), ANSWER_WITHIN)
        return PasskeyStep(id=id_, options=registration_options(self._party, name, challenge_of(id_), have))

    def made(self, id_: str, answer: str, *, name: str, key: Literal["account", "invite"], label: str) -> KeptPasskey:
        """Return the passkey that was made; `keep` keeps it.

        Raises:
            IdentityError: it does not count, and why.
            LedgerError: the ledger cannot be written.
        """
        if json.loads(self._take(id_, _ADDING)) != {"name": name, "for": key}:
            raise IdentityError("this was begun by somebody else", "try again")
        label = " ".join(label.split())[:_MOST_LABEL] or "passkey"
        if not label.isprintable():
            raise IdentityError("the passkey's name has a control character", "call it otherwise")
        passkey = registered(answer, self._party, challenge_of(id_), name=name, label=label)
        if self._signs(passkey.public_key, if_unknown=True):
            raise IdentityError("this key is in allowed_signers: a key that signs never logs in", "make another")
        return passkey

    def keep(self, passkey: KeptPasskey, invitation: str | None = None) -> None:
        """Keep a passkey, and use the invitation up by which it was made.

        Raises:
            IdentityError: this console has it already, or the invitation does not count any more.
            LedgerError: the ledger cannot be written.
        """
        ledger = self._login.ledger.passkeys
        if any(
            passkey.credential == each.credential or same_key(passkey.public_key, each.public_key)
            for each in ledger.list()
        ):
            raise IdentityError("this console has this passkey already", "use another device")
        if invitation is not None and self._login.ledger.once.take(invitation, INVITATION) is None:
            raise IdentityError("this invitation was used just now", "ask for another")
        ledger.add(passkey)

    def invited(self, code: str) -> str:
        """Return whom an invitation is for; empty: it was used, is over, or never was.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        return self._login.ledger.once.look(code, INVITATION) or ""

    def _take(self, id_: str, purpose: str) -> str:
        value = self._login.ledger.once.take(id_, purpose)
        if value is None:
            raise IdentityError("this has taken too long, or was answered before", "try again")
        return value

    def _signs(self, public_key: bytes, *, if_unknown: bool) -> bool:
        if self._login.signers is None:
            return False
        try:
            return is_signing_key(public_key, self._login.signers())
        except KeyFileError as error:
            _log.error("cannot tell which keys sign: %s", error)
            return if_unknown


_OTHER: Final = "use the passkey that you made for the login"

__all__ = ["INVITATION", "INVITED_FOR", "MOST_PASSKEYS", "LoginPasskeys", "PasskeyStep"]
