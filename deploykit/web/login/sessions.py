"""Sessions of people who logged in by password. Use them from any thread.

Rules:

* The id is 256 random bits, which only the browser has. We keep its SHA-256, so that a memory dump opens no session.
* A session ends after a time without a request, after a week at the latest, at the logout, and when its name's hash in
  the password file changes.
* They are in memory: when the console starts anew, people log in anew.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import attrs

#: Seconds after which the longest session ends, however busy it is.
LONGEST: Final = 7 * 86400.0
#: Most sessions of one name, and of all: the one that was idle longest is ended for a new one.
MOST_OF_ONE: Final = 50
MOST_SESSIONS: Final = 10_000


@attrs.frozen(kw_only=True, slots=True)
class BrowserSession:
    """A login that lasts.

    Args:
        key: SHA-256 of the id.
        name: who logged in.
        proof: the hash of the password at that time.
        token: what our forms carry, so that no other page can send them.
        began: monotonic seconds.
    """

    key: str
    name: str
    proof: str = attrs.field(repr=False)
    token: str = attrs.field(repr=False)
    began: float


class SessionStore:
    """All sessions.

    Args:
        idle: seconds without a request after which one ends.
        clock: monotonic seconds.
    """

    def __init__(self, idle: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._idle = idle
        self._clock = clock
        self._lock = threading.Lock()
        # The one that was idle longest comes first; with each the time of its last request.
        self._sessions: OrderedDict[str, tuple[BrowserSession, float]] = OrderedDict()

    def begin(self, name: str, proof: str) -> tuple[str, BrowserSession]:
        """Return the id of a new session, for the cookie alone, and the session."""
        id_ = secrets.token_urlsafe(32)
        now = self._clock()
        session = BrowserSession(key=_key(id_), name=name, proof=proof, token=secrets.token_urlsafe(32), began=now)
        with self._lock:
            self._forget_old(now)
            same = [key for key, (other, _) in self._sessions.items() if other.name == name]
            for key in same[: max(len(same) - MOST_OF_ONE + 1, 0)]:
                del self._sessions[key]
            while len(self._sessions) >= MOST_SESSIONS:
                self._sessions.popitem(last=False)
            self._sessions[session.key] = (session, now)
        return id_, session

    def find(self, id_: str) -> BrowserSession | None:
        """Return the session of an id that a browser sent, which is used by that; None: there is none any more."""
        key, now = _key(id_), self._clock()
        with self._lock:
            session = self._alive(key, now)
            if session is not None:
                self._sessions[key] = (session, now)
                self._sessions.move_to_end(key)
            return session

    def lives(self, key: str) -> bool:
        """Return whether a session goes on; it is not used by that."""
        with self._lock:
            return self._alive(key, self._clock()) is not None

    def end(self, key: str) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(key, None)

    def end_all(self) -> None:
        """End every session."""
        with self._lock:
            self._sessions.clear()

    def set_idle(self, idle: float) -> None:
        """Set after how many seconds without a request a session ends."""
        with self._lock:
            self._idle = idle

    def __len__(self) -> int:
        return len(self._sessions)

    def _alive(self, key: str, now: float) -> BrowserSession | None:
        found = self._sessions.get(key)
        if found is None:
            return None
        session, used = found
        if now >= used + self._idle or now >= session.began + LONGEST:
            del self._sessions[key]
            return None
        return session

    def _forget_old(self, now: float) -> None:
        while self._sessions:
            key, (_, used) = next(iter(self._sessions.items()))
            if now < used + self._idle:
                return
            del self._sessions[key]


def _key(id_: str) -> str:
    return hashlib.sha256(id_.encode()).hexdigest()


__all__ = ["LONGEST", "MOST_OF_ONE", "MOST_SESSIONS", "BrowserSession", "SessionStore"]
