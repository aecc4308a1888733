"""One lock for files and directories: flock(2), which the kernel drops with its process, so no lock is ever stale.

Rules:

* Who waits says so in the log, once, and names the holder's process where it is known.
* A lock file is never removed by us. One that was replaced while we waited is not the lock: the new one is taken.
* The descriptor closes on exec. A child keeps the lock only where it is handed the descriptor on purpose.
* A symbolic link in the place of a lock file is not followed.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from deploykit.errors import LockBusy

_log = logging.getLogger(__name__)

_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_FIRST_PAUSE: Final = 0.002
_LONGEST_PAUSE: Final = 0.1


class FileLock:
    """Holds a lock file while its `with` block runs; a process may have several, which exclude each other too.

    Args:
        path: the lock file, made where it is missing; its directory must be there.
        wait: seconds to wait for another holder; 0 does not wait, None waits for as long as it takes.
        busy: what is going on while another one holds it, such as "another deploy of /srv/shop is running".
        remedy: the way out, for the error.
        mode: of the lock file, when it is made.
        named: the holder writes its pid into the file. That costs a write to the disk, each time.
        quiet: seconds of a bounded wait that are no line of the log: of a lock that is held for milliseconds, often.
        clock: monotonic seconds.

    Raises:
        LockBusy: (on entering) another one held it for all of that time.
        OSError: (on entering) the file cannot be opened.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        wait: float | None = 0.0,
        busy: str = "",
        remedy: str = "",
        mode: int = 0o600,
        named: bool = True,
        quiet: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = Path(path)
        #: The descriptor while the lock is held, for children that must keep it; else -1.
        self.fd = -1
        self._wait = wait
        self._busy = busy
        self._remedy = remedy
        self._mode = mode
        self._named = named
        self._quiet = quiet
        self._clock = clock

    def __enter__(self) -> Self:
        end = None if self._wait is None else self._clock() + self._wait
        while self.fd < 0:
            fd = os.open(self.path, _FLAGS, self._mode)
            try:
                wait = None if end is None else end - self._clock()
                lock_descriptor(
                    fd,
                    self.path,
                    wait=wait,
                    busy=self._busy,
                    remedy=self._remedy,
                    quiet=self._quiet,
                    clock=self._clock,
                )
                if not self._is_in_place(fd):
                    os.close(fd)
                    continue
                if self._named:
                    with contextlib.suppress(OSError):  # on a full disk the holder stays unnamed
                        os.ftruncate(fd, 0)
                        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
            except BaseException:
                os.close(fd)
                raise
            self.fd = fd
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _is_in_place(self, fd: int) -> bool:
        """Return whether the file that is locked is still the one at `path`."""
        try:
            return os.path.samestat(os.fstat(fd), self.path.stat(follow_symlinks=False))
        except FileNotFoundError:
            return False


def lock_descriptor(
    fd: int,
    path: Path | str,
    *,
    wait: float | None = 0.0,
    busy: str = "",
    remedy: str = "",
    quiet: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Lock an open file or directory, until its descriptor is closed everywhere.

    Args:
        fd: its descriptor.
        path: what to call it.
        wait, busy, remedy, quiet, clock: as for `FileLock`.

    Raises:
        LockBusy: another one held it for all of that time.
        OSError: the file system has no locks.
    """
    if _try(fd):
        return
    text = (busy or f"{path} is locked by another process") + _holder(fd)
    if wait is None:
        _log.info("waiting for the lock %s: %s", path, text)
        fcntl.flock(fd, fcntl.LOCK_EX)
        return
    begun, logged = clock(), False
    pause = _FIRST_PAUSE
    while not _try(fd):
        now = clock()
        left = begun + wait - now
        if left <= 0:
            raise LockBusy(text, remedy or "wait for it; it needs no unlock")
        if not logged and now >= begun + quiet:
            _log.info("waiting for the lock %s: %s", path, text)
            logged = True
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, _LONGEST_PAUSE)


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(fd: int) -> str:
    """Return ` (pid N)` as the holder wrote it into the file, or nothing."""
    try:
        written = os.pread(fd, 20, 0).strip()
    except OSError:  # of a directory, or opened for writing alone
        return ""
    return f" (pid {written.decode()})" if written.isdigit() else ""
