"""API tokens: made once, shown once, kept as a digest, judged at each request. Every method of the class may block.

Rules:

* A token is `dk_` and 256 random bits. It counts in the header `Authorization: Bearer` of the API, and nowhere else.
* Its role and sites are a cap on what its owner may do at that moment; it never has more than its owner.
* It has an end, of at most `[web] token_days`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from deploykit.errors import ActionRefused
from deploykit.settings.web import ROLES, WebRole
from deploykit.web.ledger.tokens import KeptToken, TokenLedger
from deploykit.web.login.rights import highest_role
from deploykit.web.login.uses import NotedUses
from deploykit.web.viewer import RoleCap, Viewer

#: Before each token, so that people and scanners of repositories know what it is.
PREFIX: Final = "dk_"
#: Tokens of one owner.
MOST_TOKENS: Final = 100
_FORM: Final = re.compile(r"dk_[A-Za-z0-9_-]{43}\Z")
_DAYS: Final = re.compile(r"[0-9]{1,5}\Z")
_MOST_LABEL: Final = 100
_MOST_SITES: Final = 50
_DAY: Final = 86400.0
#: Seconds between two notes that a token is in use.
_USE_EVERY: Final = 60.0


@attrs.frozen(kw_only=True, slots=True)
class TokenAsked:
    """A token that somebody asks for, checked.

    Args:
        seconds: for which it is good.
    """

    label: str
    role: WebRole
    sites: tuple[str, ...]
    seconds: float


def token_asked(fields: Mapping[str, str], viewer: Viewer, most_days: float) -> TokenAsked:
    """Return what a form asks for. Pure.

    Args:
        fields: `label`, `role`, `sites` (patterns between blanks), `days`.
        viewer: who asks.
        most_days: the longest that a token lasts.

    Raises:
        ActionRefused: 403 for a role that they do not have themselves, 422 for what makes no sense, by field.
    """
    label = " ".join(fields.get("label", "").split())
    sites = tuple(dict.fromkeys(fields.get("sites", "").replace(",", " ").split()))
    role = next((each for each in ROLES if each == fields.get("role", "")), None)
    days = fields.get("days", "").strip()
    problems: dict[str, str] = {}
    if not label or len(label) > _MOST_LABEL or not label.isprintable():
        problems["label"] = f"Say what it is for, in at most {_MOST_LABEL} characters."
    if not sites or len(sites) > _MOST_SITES or not all(each.isprintable() and len(each) <= 200 for each in sites):
        problems["sites"] = "Give names or patterns of sites, as shop blog-*, or * for all."
    if role is None:
        problems["role"] = f"Choose one of {', '.join(ROLES)}."
    if not _DAYS.match(days) or not 1 <= int(days) <= most_days:
        problems["days"] = f"Give days from 1 to {int(most_days)}."
    if problems or role is None:
        raise ActionRefused("the token cannot be made like that", status=422, **problems)
    held = highest_role(viewer)
    if held is None or ROLES.index(role) > ROLES.index(held):
        raise ActionRefused(
            f"a token cannot have the role {role}: you have {held or 'none'} yourself",
            "[[web.access]] in the console's settings gives roles",
            role=f"You have {held or 'no role'} yourself: choose that or less.",
        )
    return TokenAsked(label=label, role=role, sites=sites, seconds=int(days) * _DAY)


def cap_of(token: KeptToken) -> RoleCap:
    """Return the most that a token may do."""
    return RoleCap(role=token.role, sites=token.sites)


class ApiTokens:
    """The tokens of a console.

    Args:
        ledger: keeps them.
        clock: monotonic seconds.
    """

    def __init__(self, ledger: TokenLedger, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._uses = NotedUses(clock=clock)

    def make(self, asked: TokenAsked, owner: str, groups: Sequence[str] = ()) -> tuple[str, KeptToken]:
        """Return a new token, to be shown this once, and what is kept of it.

        Raises:
            ActionRefused: the owner has too many.
            LedgerError: the ledger cannot be written.
        """
        if len(self._ledger.list(owner)) >= MOST_TOKENS:
            raise ActionRefused(f"you have {MOST_TOKENS} tokens", "revoke those that are not needed", status=409)
        text = PREFIX + secrets.token_urlsafe(32)
        token = KeptToken(
            key=_key(text),
            id=secrets.token_hex(8),
            owner=owner,
            groups=tuple(groups),
            label=asked.label,
            role=asked.role,
            sites=asked.sites,
        )
        return text, self._ledger.add(token, seconds=asked.seconds)

    def find(self, text: str) -> KeptToken | None:
        """Return the token that a program sent, which is used by that; None: there is none, or it is over.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        if not _FORM.match(text):
            return None
        found = self._ledger.find(_key(text))
        if found is not None and self._uses.due(found.key, _USE_EVERY):
            self._ledger.use(found.key)
        return found

    def again(self, token: KeptToken) -> KeptToken | None:
        """Return a token as it is now, unless it is over.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        return self._ledger.find(token.key)

    def list(self, owner: str = "") -> tuple[KeptToken, ...]:
        """Return the tokens of an owner, or of all, the newest first.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        return self._ledger.list(owner)

    def narrow(self, owner: str, groups: Sequence[str]) -> None:
        """Take from an owner's tokens the groups in which the owner is no more.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        self._ledger.narrow(owner, groups)

    def end(self, id_: str, *, owner: str = "") -> bool:
        """Revoke a token, only where it is the owner's if one is given; return whether there was one.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        return self._ledger.end(id_, owner=owner)


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


__all__ = ["MOST_TOKENS", "PREFIX", "ApiTokens", "TokenAsked", "cap_of", "token_asked"]
