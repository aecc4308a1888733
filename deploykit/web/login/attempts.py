"""Attempts to log in by a password: limited, compared apart from the pages, noted in the audit.

Rules:

* Passwords are compared in two threads of their own, and few wait: whoever tries many cannot stop the pages.
* What a program sends with every request is remembered for a minute, as a keyed digest, so that the next is fast.
* A refusal does not show whether there is such a name, neither by its text nor by its time.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from deploykit.system.passwordfile import PasswordFile
from deploykit.web.login.auditnotes import AuditNotes
from deploykit.web.login.limits import LoginLimits
from deploykit.web.login.peers import RequestPeer
from deploykit.web.login.refusals import AccessRefusal

#: Passwords that wait for their comparison; more are refused at once.
MOST_WAITING: Final = 20
REMEMBERED_SECONDS: Final = 60.0
_MOST_REMEMBERED: Final = 500
_NO_NAMES: Final[Mapping[str, str]] = {}


class PasswordAttempts:
    """Compares passwords. Use it in one event loop at a time.

    Args:
        notes: where refusals are written.
        clock: monotonic seconds.
    """

    def __init__(self, notes: AuditNotes, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._notes = notes
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._file: PasswordFile | None = None
        self._waiting = 0
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="login")
        self._remembered: OrderedDict[bytes, float] = OrderedDict()
        self.limits = LoginLimits(clock=clock)

    def use(self, path: Path | None) -> None:
        """Compare with a file from now on; None: with none.

        Raises:
            SettingsError: the file cannot be used; the former one stays.
        """
        self._file = PasswordFile(path, clock=self._clock) if path is not None else None

    def close(self) -> None:
        """End the threads; passwords that wait are not compared any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def stored(self, name: str) -> str:
        """Return the hash of a name; empty: there is no such name."""
        return self._hashes.get(name, "")

    @property
    def _hashes(self) -> Mapping[str, str]:
        return self._file.table.hashes if self._file is not None else _NO_NAMES

    async def attempt(
        self, name: str, password: str, peer: RequestPeer, *, remember: bool = False
    ) -> AccessRefusal | None:
        """Return why a name and a password are refused; None: they are right.

        Args:
            name, password: as somebody has written them.
            peer: who sends them.
            remember: they come with every request: compare them again only after a minute.
        """
        if self._file is None:
            return AccessRefusal(status=404, detail="This console has no login by password.")
        table = self._file.table
        stored = table.hashes.get(name, "")
        digest = self._digest(name, password, stored)
        if remember and self._remembered.get(digest, float("-inf")) > self._clock():
            return None
        shown = name if stored else ""
        wait = self.limits.attempt(name, peer.group)
        if wait > 0:
            await self._notes.refused("login", f"too many attempts from {peer}", who=shown)
            return too_many(wait)
        if self._waiting >= MOST_WAITING:
            return AccessRefusal(status=503, detail="Too many logins at once.", headers={"Retry-After": "3"})
        self._waiting += 1
        try:
            fits = await asyncio.get_running_loop().run_in_executor(self._threads, table.check, name, password)
        finally:
            self._waiting -= 1
        if not fits:
            await self._notes.refused("login", f"wrong name or password from {peer}", who=shown)
            return AccessRefusal(status=401, detail="The name or the password is wrong.")
        self.limits.succeeded(name, peer.group)
        if remember:
            self._remembered[digest] = self._clock() + REMEMBERED_SECONDS
            while len(self._remembered) > _MOST_REMEMBERED:
                self._remembered.popitem(last=False)
        return None

    def _digest(self, name: str, password: str, stored: str) -> bytes:
        text = "\0".join((name, password, stored)).encode(errors="surrogatepass")
        return hmac.digest(self._key, text, "sha256")


def same_text(one: str, other: str) -> bool:
    """Return whether two texts are equal, in a time that does not depend on where they differ; empty ones are not."""
    return bool(other) and hmac.compare_digest(one.encode(errors="replace"), other.encode())


def too_many(wait: float) -> AccessRefusal:
    """Return the refusal of an attempt that came too early."""
    seconds = max(int(wait) + 1, 1)
    return AccessRefusal(
        status=429, detail=f"Too many attempts. Try again in {seconds} s.", headers={"Retry-After": str(seconds)}
    )


__all__ = ["MOST_WAITING", "REMEMBERED_SECONDS", "PasswordAttempts", "same_text", "too_many"]
