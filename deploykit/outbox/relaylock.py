"""One relay for each spool and user.

Where the disk has no inode left for the lock's file, a relay starts all the same, because only a relay makes room: it
locks the directory, and takes the lock's own file as soon as it can. Where another user's file is in the place of a
user's lock, that user's relay does not start.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from types import TracebackType
from typing import Final, Self

from deploykit.errors import LockBusy, OutboxError
from deploykit.outbox.directory import STRANGE, Spool, refused
from deploykit.outbox.notes import NO_ROOM

#: The spools that relays of this process work on.
_HELD: Final[set[str]] = set()


class RelayLock:
    """The lock of one relay, by flock: it ends with the process, however that ends.

    A relay of the spool's owner (or of root) holds `.relay.lock`, another user's `.relay-<uid>.lock`. Both are 0600:
    a user who cannot open a lock cannot hold it against a relay.

    Raises:
        LockBusy: another relay is at work.
        OutboxError: the lock cannot be made.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._provisional = False

    def __enter__(self) -> Self:
        try:
            self._fd = self._take()
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            self._fd = self._take_directory()
            self._provisional = True
        _HELD.add(self._path)
        return self

    @property
    def held_here(self) -> bool:
        """Whether a relay of this process holds it: of several services in one, the first one sends for all."""
        return self._path in _HELD

    def secure(self) -> None:
        """Take the lock's own file, where there was no room for it before.

        Call it now and then; mostly there is nothing to do.

        Raises:
            LockBusy: another relay took it first.
            OutboxError: another user's file is in its place.
        """
        if not self._provisional:
            return
        try:
            fd = self._take()
        except OSError:
            return
        directory, self._fd = self._fd, fd
        os.close(directory)
        self._provisional = False

    def _take(self) -> int:
        """Lock the file.

        Raises:
            LockBusy: another relay has it.
            OSError: there is no room to make it.
            OutboxError: it cannot be made.
        """
        with Spool(self._path, "lock") as spool:
            name = ".relay.lock" if spool.settles_all else f".relay-{os.geteuid()}.lock"
            fd = -1
            try:
                while True:
                    fd = _open_lock(spool, name)
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if _is_at(spool, name, fd):
                        return fd
                    os.close(fd)  # another file was put there before this one was locked
                    fd = -1
            except OSError as error:
                if fd >= 0:
                    os.close(fd)
                if isinstance(error, BlockingIOError):
                    raise self._busy() from None
                if error.errno in NO_ROOM:
                    raise
                if isinstance(error, PermissionError):
                    # Not the directory's lock instead: any member could be a second relay of this user's, or keep it.
                    raise OutboxError(
                        f"cannot lock spool {self._path}: {name} belongs to another user",
                        "a relay of the spool's owner removes it, and sends what waits",
                    ) from error
                raise refused("lock", self._path, error) from error

    def _take_directory(self) -> int:
        """Lock the directory: weaker, because any member of the group can do that, but it takes no inode."""
        with Spool(self._path, "lock") as spool:
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=spool.fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if isinstance(error, BlockingIOError):
                raise self._busy() from None
            raise refused("lock", self._path, error) from error
        return fd

    def _busy(self) -> LockBusy:
        return LockBusy(f"another relay works on spool {self._path}", "it sends what waits")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._fd >= 0:
            _HELD.discard(self._path)
            os.close(self._fd)
            self._fd = -1
        self._provisional = False


def _is_at(spool: Spool, name: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(name, dir_fd=spool.fd, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _open_lock(spool: Spool, name: str) -> int:
    # For reading: that is enough for flock, and does not keep the file system from becoming read-only.
    flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    for _ in (1, 2):
        try:
            fd = os.open(name, flags, 0o600, dir_fd=spool.fd)
            found = os.fstat(fd)
            ours = found.st_uid == os.geteuid() or spool.trusts(found.st_uid)
            if ours and stat.S_ISREG(found.st_mode) and not found.st_mode & 0o077:
                if os.geteuid() == 0:
                    os.fchown(fd, spool.owner, spool.gid)
                return fd
            os.close(fd)
        except OSError as error:
            if error.errno not in STRANGE:
                raise
        spool.clear(name)
    raise PermissionError(errno.EPERM, f"{name} belongs to another user")
