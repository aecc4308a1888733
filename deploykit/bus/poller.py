"""The one place where the supervisor thread waits: a socket, a wake-up from another thread, a time, or the end.

Rules:

* a wait never outlives its time;
* while it waits, `housekeeping` is called when that is due: deadlines of callers pass on time, also while connecting;
* other threads wake it with one small write, and only when it sleeps.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable
from time import monotonic
from typing import Final

READ: Final = select.POLLIN | select.POLLHUP | select.POLLERR
WRITE: Final = select.POLLOUT
_FOREVER: Final = 3600.0


class Interrupted(Exception):
    """The bus is being closed while something was waited for."""


class Poller:
    """Waits for one socket with poll(2), and for a wake-up.

    Args:
        housekeeping: takes the time (monotonic), does what is due, returns when it wants to be called again.
    """

    def __init__(self, housekeeping: Callable[[float], float]) -> None:
        self._housekeeping = housekeeping
        self._poll = select.poll()
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._theirs.setblocking(False)
        self._poll.register(self._ours.fileno(), select.POLLIN)
        self._wake_fd = self._ours.fileno()
        self._registered: tuple[int, int] | None = None
        self._asleep = False
        self.stopping = False

    def wake(self) -> None:
        """Let the wait end now. Any thread; free when the supervisor does not sleep."""
        if self._asleep:
            self._asleep = False
            # A full pipe means that a wake-up is already on its way; a closed one, that no one waits any more.
            with contextlib.suppress(OSError):
                self._theirs.send(b"\x00")

    def stop(self) -> None:
        """Make every wait of `wait_for` end with `Interrupted`, now and later."""
        self.stopping = True
        self.wake()

    def poll_once(self, fd: int | None, mask: int, until: float, ready: Callable[[], bool] | None = None) -> int:
        """Wait for the socket, a wake-up or the time, whichever is first; return the socket's events (0: none).

        Args:
            fd, mask: the socket, and what to wait for there; an empty mask still shows hang-ups.
            until: monotonic time.
            ready: looked at after the sleep was announced; True: do not sleep, there is something to do.
        """
        if fd is not None and (fd, mask) != self._registered:
            self._poll.register(fd, mask)
            self._registered = (fd, mask)
        now = monotonic()
        due = self._housekeeping(now)
        timeout = min(until, due, now + _FOREVER) - now
        self._asleep = True
        if self.stopping or (ready is not None and ready()):
            timeout = 0.0
        # Rounded up: a poll that ends a fraction too early would be followed by one that spins.
        events = self._poll.poll(max(0, int(timeout * 1000 + 0.999)))
        self._asleep = False
        found = 0
        for ready_fd, event in events:
            if ready_fd == self._wake_fd:
                with contextlib.suppress(OSError):
                    self._ours.recv(4096)
            else:
                found = event
        return found

    def wait_for(self, fd: int | None, mask: int, until: float) -> bool:
        """Return whether the socket is ready, waiting for it until a time.

        Raises:
            Interrupted: the bus is being closed.
        """
        while True:
            found = self.poll_once(fd, mask, until)
            self.check()
            if found:
                return True
            if monotonic() >= until:
                return False

    def check(self) -> None:
        """Raise `Interrupted` when the bus is being closed."""
        if self.stopping:
            raise Interrupted

    def forget(self, fd: int) -> None:
        """Stop watching a socket, before it is closed."""
        with contextlib.suppress(KeyError, ValueError, OSError):
            self._poll.unregister(fd)
        self._registered = None

    def close(self) -> None:
        """Free the wake-up pair. The supervisor's last act."""
        self._ours.close()
        self._theirs.close()
