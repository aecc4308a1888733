"""Sessions of people who logged in, in the ledger. Use them from any thread; every method may block.

Rules:

* The id is 256 random bits, which only the browser has. The ledger has its SHA-256, so a stolen one opens no session.
* The token of the forms is derived from the id, so that it is nowhere but in the browser and its pages.
* A session ends after a time without a request, after a week at the latest, at the logout, and when what proves the
  login has changed: the password's hash, the passkey, the provider.
* Sessions outlast a restart, and every console on the database knows them.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from deploykit.web.ledger.sessions import KeptSession, SessionLedger
from deploykit.web.login.uses import NotedUses

#: Seconds after which the longest session ends, however busy it is.
LONGEST: Final = 7 * 86400.0
#: Most sessions of one name, and of all: the one that was idle longest is ended for a new one.
MOST_OF_ONE: Final = 50
MOST_SESSIONS: Final = 10_000
#: Seconds between two notes that a session is in use, at most; and between two removals of what is over.
_USE_EVERY: Final = 60.0
_PRUNE_EVERY: Final = 300.0


@attrs.frozen(kw_only=True, slots=True)
class BrowserSession:
    """A login that lasts.

    Args:
        key: SHA-256 of the id.
        name: who logged in.
        groups: as the provider named them then.
        login: how: `password`, `oidc`, `passkey`.
        proof: what the login depends on, as a digest; see `proof_of`.
        token: what our forms carry, so that no other page can send them.
        began, used: seconds since 1970.
    """

    key: str
    name: str
    groups: tuple[str, ...]
    login: str
    proof: str = attrs.field(repr=False)
    token: str = attrs.field(repr=False)
    began: float
    used: float


class SessionStore:
    """The sessions of a console.

    Args:
        ledger: keeps them.
        idle: seconds without a request after which one ends.
        clock: monotonic seconds.
    """

    def __init__(self, ledger: SessionLedger, idle: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._idle = idle
        self._uses = NotedUses(clock=clock)

    def begin(self, name: str, *, login: str, proof: str, groups: Sequence[str] = ()) -> str:
        """Return the id of a new session, for the cookie alone.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        id_ = secrets.token_urlsafe(32)
        self._ledger.begin(_key(id_), name, groups=groups, login=login, proof=proof)
        if self._uses.due("", _PRUNE_EVERY) or len(self._ledger.list_of(name)) > MOST_OF_ONE:
            self._ledger.prune(idle=self._idle, longest=LONGEST, most_of_one=MOST_OF_ONE, most=MOST_SESSIONS)
        return id_

    def find(self, id_: str) -> BrowserSession | None:
        """Return the session of an id that a browser sent, which is used by that; None: there is none any more.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        found = self._ledger.find(_key(id_), idle=self._idle, longest=LONGEST)
        if found is None:
            return None
        if self._uses.due(found.key, min(_USE_EVERY, self._idle / 4)):
            self._ledger.use(found.key)
        return _session(found, form_token(id_))

    def again(self, session: BrowserSession) -> BrowserSession | None:
        """Return a session as it is now, unless it is over; it is not used by that.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        found = self._ledger.find(session.key, idle=self._idle, longest=LONGEST)
        return _session(found, session.token) if found is not None else None

    def list_of(self, name: str) -> tuple[KeptSession, ...]:
        """Return the sessions of a name that go on, the newest first.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        kept = self._ledger.list_of(name)
        return tuple(each for each in kept if self._ledger.find(each.key, idle=self._idle, longest=LONGEST) is not None)

    def end(self, key: str) -> bool:
        """End a session; return whether there was one.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        return self._ledger.end(key)

    def end_all_of(self, name: str, *, but: str = "") -> int:
        """End the sessions of a name, but for one; return how many.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        return self._ledger.end_all_of(name, but=but)


def form_token(id_: str) -> str:
    """Return the token of the forms of a session. It does not show the id, nor its key in the ledger."""
    return hmac.new(id_.encode(errors="surrogatepass"), b"deploykit form", hashlib.sha256).hexdigest()


def proof_of(login: str, *parts: str) -> str:
    """Return a digest of what a login depends on: when it changes, the session ends."""
    return hashlib.sha256("\0".join((login, *parts)).encode(errors="surrogatepass")).hexdigest()


def _session(kept: KeptSession, token: str) -> BrowserSession:
    return BrowserSession(
        key=kept.key,
        name=kept.name,
        groups=kept.groups,
        login=kept.login,
        proof=kept.proof,
        token=token,
        began=kept.began,
        used=kept.used,
    )


def _key(id_: str) -> str:
    return hashlib.sha256(id_.encode(errors="surrogatepass")).hexdigest()


__all__ = ["LONGEST", "MOST_OF_ONE", "MOST_SESSIONS", "BrowserSession", "SessionStore", "form_token", "proof_of"]
