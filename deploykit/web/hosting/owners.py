"""The name under which a console holds leases, and a lock that shows it is alive.

Rules:

* Each start of a console has a name of its own.
* Consoles that share the directory need not wait for the lease of one that was killed: its lock is free.
* Consoles on other machines see the lease alone.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from pathlib import Path
from typing import Final

from deploykit.errors import LedgerError, LockBusy
from deploykit.system.lock import FileLock

_END: Final = ".lock"
#: Seconds for which another console may hold our lock to look whether we live.
_LOOKED_AT: Final = 5.0


class ConsoleOwner:
    """The name of this console, and its lock.

    Args:
        directory: for the locks of all consoles that share it; made where it is missing.

    Raises:
        LedgerError: it cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:60]
        self.name = f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
        self._directory = directory
        self._lock = FileLock(directory / f"{self.name}{_END}", wait=_LOOKED_AT, named=False, quiet=_LOOKED_AT)
        try:
            directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._lock.__enter__()
        except (OSError, LockBusy) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise LedgerError(f"cannot use {directory}: {why}", "make it writable for the console") from error

    def gone(self) -> frozenset[str]:
        """Return the names of consoles that have ended, and left their locks."""
        try:
            found = [entry for entry in self._directory.iterdir() if entry.name.endswith(_END)]
        except OSError:
            return frozenset()
        return frozenset(path.name.removesuffix(_END) for path in found if path != self._lock.path and _is_free(path))

    def forget(self, names: frozenset[str]) -> None:
        """Remove the locks of consoles that have ended, and whose leases were taken over."""
        for name in names:
            (self._directory / f"{name}{_END}").unlink(missing_ok=True)

    def close(self) -> None:
        """Give the name up, and its lock."""
        self._lock.path.unlink(missing_ok=True)
        self._lock.__exit__(None, None, None)


def _is_free(path: Path) -> bool:
    try:
        with FileLock(path, wait=0, named=False):
            return True
    except (LockBusy, OSError):
        return False


__all__ = ["ConsoleOwner"]
