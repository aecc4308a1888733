"""The relay's end of the FIFO through which writers notify it.

Against inotify: no ctypes, and a writer learns in the same step whether a relay is alive, so a hook knows whether to
start one. Against a socket: no `socket` import on a push's path. Bytes stay in the pipe until they are read, so no
notification is lost between a scan and a wait. A record that came without one (moved in by hand) is found by the
rescan that every relay does now and then.

Where the disk has no inode left for the FIFO, a relay starts all the same, because only a relay makes room: it listens
to itself alone, and makes the FIFO as soon as it can. A user's relay listens to itself alone, too, where another
user's file is in its FIFO's place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import threading

from deploykit.errors import OutboxError
from deploykit.outbox.directory import STRANGE, Spool, refused
from deploykit.outbox.notes import NO_ROOM
from deploykit.outbox.notify import FIFO

#: What `interrupt` writes; a writer's notification is anything else.
_OWN = b"."

#: Errors of making the FIFO with which a relay works all the same.
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
            os.write(fd, b"\n")  # a writer that put something before found nobody listening
            os.close(self._fd)
            os.close(self._out)
            self._fd, self._out = fd, -1

    def wait(self, timeout: float) -> bool:
        """Wait for a notification, at most `timeout` seconds; return whether one came."""
        if self._out >= 0:
            self._try_fifo()
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        if not poll.poll(max(0.0, timeout) * 1000):
            return False
        try:
            # One block: a writer that is faster than this loop must not keep it here.
            return bool(os.read(self._fd, 65536).strip(_OWN))
        except BlockingIOError:
            return False

    def interrupt(self) -> None:
        """End a `wait`, which then returns False if nothing was put."""
        with self._lock:
            if self._fd >= 0 and self.pid == os.getpid():
                with contextlib.suppress(OSError):  # full: the wait ends anyway; else the rescan comes
                    os.write(self._fd if self._out < 0 else self._out, _OWN)

    def close(self) -> None:
        """Stop listening."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                if self._out >= 0:
                    os.close(self._out)
                self._fd = self._out = -1


def _open_fifo(spool: Spool) -> int:
    name = FIFO if spool.settles_all else f"{FIFO}-{os.geteuid()}"
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
                if os.geteuid() == 0 and name == FIFO:
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
    raise PermissionError(errno.EPERM, f"{name} belongs to another user")
