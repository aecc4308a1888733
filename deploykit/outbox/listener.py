"""Waking a relay at once, and keeping it alone.

A FIFO in the spool, which writers poke without blocking. Against inotify: no ctypes, and a writer learns in the same
step whether a relay is alive, so a hook knows whether to start one. Against a socket: no `socket` import on a push's
path. Bytes stay in the pipe until they are read, so no wake-up is lost between a scan and a wait. A record that came
without a poke (moved in by hand) is found by the rescan that every relay does now and then.

Where the disk has no inode left for FIFO and lock, a relay starts all the same, because only a relay makes room: it
listens to itself alone, and locks the directory. It makes both as soon as it can. A user's relay listens to itself
alone, too, where another user's file is in its FIFO's place; where one is in its lock's place, it does not start.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
import threading
from types import TracebackType
from typing import Self

from deploykit.errors import LockBusy, OutboxError
from deploykit.outbox.directory import STRANGE, Spool, refused
from deploykit.outbox.notes import NO_ROOM
from deploykit.outbox.spool import WAKE

#: What `wake` writes; a writer's poke is anything else.
_OWN = b"."


#: What making the FIFO ends with that does not keep a relay from its work.
_WITHOUT = (*NO_ROOM, errno.EPERM)


class Listener:
    """The reading end of the FIFO. Descriptors are closed on exec; a forked child must make its own."""

    def __init__(self, path: str) -> None:
        self.pid = os.getpid()
        self._path = path
        self._lock = threading.Lock()
        self._out = -1  # the writing end of a pipe, where there is no FIFO
        with Spool(path, "listen in") as spool:
            try:
                self._fd = _open_fifo(spool)
            except OSError as error:
                if error.errno not in _WITHOUT:
                    raise refused("listen in", path, error) from error
                self._fd, self._out = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def _try_fifo(self) -> None:
        """Listen to writers as soon as there is room for a FIFO."""
        try:
            with Spool(self._path, "listen in") as spool:
                fd = _open_fifo(spool)
        except (OSError, OutboxError):
            return
        with self._lock:
            if self._fd < 0:
                os.close(fd)
                return
            os.write(fd, b"\n")  # whoever put something before found nobody listening
            os.close(self._fd)
            os.close(self._out)
            self._fd, self._out = fd, -1

    def wait(self, timeout: float) -> bool:
        """Wait for a poke, at most `timeout` seconds; return whether one came."""
        if self._out >= 0:
            self._try_fifo()
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        if not poll.poll(max(0.0, timeout) * 1000):
            return False
        try:
            # One block: who writes faster than it is read must not keep us here.
            return bool(os.read(self._fd, 65536).strip(_OWN))
        except BlockingIOError:
            return False

    def wake(self) -> None:
        """End a `wait` without saying that something was put."""
        with self._lock:
            if self._fd >= 0 and self.pid == os.getpid():
                with contextlib.suppress(OSError):  # full: it will wake anyway; else the rescan comes
                    os.write(self._fd if self._out < 0 else self._out, _OWN)

    def close(self) -> None:
        """Listen no more."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                if self._out >= 0:
                    os.close(self._out)
                self._fd = self._out = -1


def _open_fifo(spool: Spool) -> int:
    name = WAKE if spool.settles_all else f"{WAKE}-{os.geteuid()}"
    # Read and write: a FIFO without a writer would be at its end for ever and never wait.
    flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    for _ in (1, 2):
        try:
            os.mkfifo(name, 0o600, dir_fd=spool.fd)
        except FileExistsError:
            made = False
        else:
            made = True
        try:
            fd = os.open(name, flags, dir_fd=spool.fd)
            if made:
                if os.geteuid() == 0 and name == WAKE:
                    os.fchown(fd, spool.owner, spool.gid)
                os.fchmod(fd, 0o620)
            found = os.fstat(fd)
            if stat.S_ISFIFO(found.st_mode) and (found.st_uid == os.geteuid() or spool.trusts(found.st_uid)):
                return fd
            os.close(fd)
        except OSError as error:
            if error.errno not in STRANGE:
                raise
        spool.clear(name)
    raise PermissionError(errno.EPERM, f"{name} is somebody else's")


class RelayLock:
    """One relay for each spool and user, by flock: it ends with the process, however that ends.

    A relay of the spool's owner (or of root) holds `.relay.lock`, another user's `.relay-<uid>.lock`. Both are 0600:
    who cannot open a lock cannot hold it against us.

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
        return self

    def secure(self) -> None:
        """Take the lock's own file, where there was no room for it before. Called now and then; mostly does nothing.

        Raises:
            LockBusy: another relay was quicker.
            OutboxError: somebody's file is in its place.
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
                    os.close(fd)  # another one was put there before we had it
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
                        f"cannot lock spool {self._path}: {name} is somebody else's",
                        "a relay of the spool's owner takes it away; it also sends what waits",
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
    raise PermissionError(errno.EPERM, f"{name} is somebody else's")
