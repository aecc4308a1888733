"""Start, reload and stop a daemon: TERM and INT end it well, HUP reads the settings again (bad ones: the old stay)."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_log = logging.getLogger(__name__)

_AGAIN = 0.5


@contextmanager
def signals(*, on_reload: Callable[[], None] | None = None) -> Iterator[threading.Event]:
    """Yield an event that TERM or INT sets; HUP calls `on_reload`. For the main thread of a process of ours.

    A second TERM or INT, half a second later or more, raises `KeyboardInterrupt`.
    """
    stop = threading.Event()
    told = 0.0

    def end(number: int, _frame: FrameType | None) -> None:
        nonlocal told
        now = time.monotonic()
        if stop.is_set():
            # timeout(1) signals its child and then its group: that is still one wish.
            if now - told > _AGAIN:
                raise KeyboardInterrupt  # whoever asks again does not want to wait
            return
        told = now
        _log.info("got %s: ending", signal.Signals(number).name)
        stop.set()

    def reload(_number: int, _frame: FrameType | None) -> None:
        if on_reload is not None:
            on_reload()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, reload)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def notify(state: str) -> None:
    """Tell systemd `READY=1` and the like, where it asked for it (sd_notify(3)); elsewhere nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), f"\0{address[1:]}" if address[0] == "@" else address)
        except OSError as error:
            _log.warning("cannot notify the service manager: %s", error)
