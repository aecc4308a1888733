"""Only one agent works on a state directory: an flock, which ends with the process however that ends.

It lies in a file of its own, which readers of the state do not touch.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from deploykit.errors import LockBusy

_NAME: Final = "agent.lock"


class StateLock:
    """Holds a state directory, which is made when it is missing.

    Raises:
        LockBusy: another agent holds it, of this process or of another one.
        OSError: the directory or the lock cannot be made.
    """

    def __init__(self, state: Path) -> None:
        self._path = state / _NAME
        self._fd = -1

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        while self._fd < 0:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not self._is_in_place(fd):
                    os.close(fd)  # removed, and made anew by somebody, before we had it
                    continue
                with contextlib.suppress(OSError):  # a full disk: the holder stays unnamed
                    os.ftruncate(fd, 0)
                    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            except BlockingIOError:
                holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
                os.close(fd)
                raise LockBusy(
                    f"another agent works on state directory {self._path.parent}"
                    + (f" (pid {holder})" if holder.isdecimal() else ""),
                    "stop that one, or give this one a node name, a state and an outbox of its own",
                ) from None
            except BaseException:
                os.close(fd)
                raise
            self._fd = fd
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _is_in_place(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self._path.stat(follow_symlinks=False))
        except FileNotFoundError:
            return False
