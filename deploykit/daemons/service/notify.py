"""What the service manager hears of a daemon: sd_notify(3) by datagram, no library.

Rules:

* Its variables are taken out of the environment, so that no child process speaks in our name.
* `WATCHDOG=1` is sent by whoever does the main work, and only while that goes on: see `lifecycle`.
* A manager that cannot be reached costs a log line, never the daemon.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final, Self

_log = logging.getLogger(__name__)

#: Seconds between two requests for more time, and how much each asks for.
EXTEND_EVERY: Final = 5.0
EXTEND_BY: Final = 30.0


class ServiceManager:
    """systemd, or another program that understands its datagrams. Without one, nothing is sent.

    Args:
        address: the socket's path, or `@` and an abstract name; anything else: there is no manager.
        watchdog: seconds after which a daemon that has sent no `WATCHDOG=1` is ended; 0: never.
    """

    def __init__(self, address: str = "", *, watchdog: float = 0.0) -> None:
        self._address = address if address.startswith(("/", "@")) else ""
        self._every = watchdog / 2
        self._status = ""
        self._next_ping = self._next_extension = float("-inf")
        self._warned = False

    @classmethod
    def take(cls, environ: MutableMapping[str, str] | None = None) -> Self:
        """Return the manager that started this process, and take its variables out of the environment.

        `WATCHDOG_USEC` counts where `WATCHDOG_PID` is this process, or is not set.
        """
        environ = os.environ if environ is None else environ
        address = environ.pop("NOTIFY_SOCKET", "")
        period, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        ours = pid in ("", str(os.getpid()))
        return cls(address, watchdog=int(period) / 1e6 if ours and period.isascii() and period.isdecimal() else 0.0)

    def ready(self, status: str) -> None:
        """Report that the daemon has started, or that its settings were read again, well or not."""
        self._status = status
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """Report a line for people, where it is another one than before."""
        if status != self._status:
            self._status = status
            self._send(f"STATUS={status}")

    def reloading(self) -> None:
        """Report that the settings are read again. `ready` has to follow."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """Report that the daemon is ending."""
        self._status = status
        self._send(f"STOPPING=1\nSTATUS={status}")

    def ping_due(self, now: float) -> bool:
        """Return whether the watchdog waits for a ping: each half of its period."""
        return self._every > 0 and now >= self._next_ping

    def ping(self, now: float) -> None:
        """Report that the main work goes on."""
        self._next_ping = now + self._every
        self._send("WATCHDOG=1")

    def extend(self, now: float) -> None:
        """Ask for more time to end, or to start again; at most once in some seconds."""
        if now >= self._next_extension:
            self._next_extension = now + EXTEND_EVERY
            self._send(f"EXTEND_TIMEOUT_USEC={int(EXTEND_BY * 1e6)}")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address[0] == "@" else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            try:
                sock.settimeout(1.0)  # a manager that does not read must not stop the daemon
                sock.sendto(state.encode(), address)
            except OSError as error:
                if not self._warned:
                    _log.warning("cannot notify the service manager: %s", error)
                self._warned = True
            else:
                self._warned = False
