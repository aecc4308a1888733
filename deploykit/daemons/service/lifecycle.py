"""Start, reload and stop a daemon: TERM and INT end it well, HUP reads the settings again (bad ones: the old stay).

`serve` is the whole life of a daemon that has settings; `signals`, `read_again` and `say_read_again` are its parts.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, Generic, TypeVar

import attrs

from deploykit.errors import DeploykitError, KeyFileError, LockBusy, LoginRefused, SettingsError
from deploykit.settings.node import Settings

T = TypeVar("T")

_log = logging.getLogger(__name__)

_AGAIN = 0.5
#: What signals ask of `serve`.
_AGAIN_PLEASE: Final = object()
_END: Final = object()


@contextmanager
def signals(
    *, on_reload: Callable[[], None] | None = None, on_end: Callable[[], None] = lambda: None
) -> Iterator[threading.Event]:
    """Yield an event that TERM or INT sets; HUP calls `on_reload`. For the main thread of a process of ours.

    Args:
        on_reload: called in the signal handler.
        on_end: called in the signal handler, once the event is set.

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
        on_end()

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


def serve(
    load: Callable[[], Settings],
    make: Callable[[Settings], T],
    work: Callable[[T, threading.Event], None],
    *,
    set_up: Callable[[Settings], None] = lambda _: None,
    tell: Callable[[str], None] = _log.info,
    complain: Callable[[str], None] = _log.error,
) -> None:
    """Make a daemon of the settings and let it work until TERM; HUP makes the next one of the settings as they are.

    Settings that are not right never interrupt the one at work; where nobody takes the next one, the old are back.

    Args:
        load: reads the settings.
        make: makes what works by them, without starting it: the one before may still be at work.
        work: lets it work until the event is set, and ends it.
        set_up: called with the settings that are in force from now on, before anything is made of the first ones.
        tell: takes the line that says that the settings were read again.
        complain: takes a line for each mistake in them.

    Raises:
        DeploykitError: the first settings are wrong, or what `make` or `work` raised.
    """
    wishes: queue.SimpleQueue[object] = queue.SimpleQueue()  # a signal handler may put into it, whatever is locked
    with signals(on_reload=lambda: wishes.put(_AGAIN_PLEASE), on_end=lambda: wishes.put(_END)):
        settings = load()
        before: Settings | None = None
        set_up(settings)
        daemon = make(settings)

        def another() -> tuple[Settings, T]:
            loaded = load()
            return loaded, make(loaded)

        while True:
            follower = _Follower(wishes, another, complain)
            follower.start()
            try:
                work(daemon, follower.done)
            except (LockBusy, LoginRefused) as error:
                if before is None:
                    raise
                complain(f"settings given up, the old ones are back: {error}")
                follower.made, before = (before, make(before)), None
            else:
                before = settings
            finally:
                follower.finish()
            following = follower.made
            if following is None:
                return
            said = settings
            settings, daemon = following
            set_up(settings)
            say_read_again(said, settings, tell)


class _Follower(threading.Thread, Generic[T]):
    """Waits for HUP beside a daemon at work, and makes the next one; `done` is set when this one is to end."""

    def __init__(
        self, wishes: queue.SimpleQueue[object], make: Callable[[], T], complain: Callable[[str], None]
    ) -> None:
        super().__init__(name="deploykit-follower", daemon=True)
        self.done = threading.Event()
        self.made: T | None = None
        self._wishes = wishes
        self._make = make
        self._complain = complain

    def run(self) -> None:
        """Make one after the other until one is right, or the wish is to end."""
        try:
            while self.made is None and (wish := self._wishes.get()) is not _END:
                if wish is self:
                    return
                if wish is _AGAIN_PLEASE:
                    self.made = read_again(self._make, self._complain)
            if self.made is not None:
                notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        finally:
            self.done.set()

    def finish(self) -> None:
        """End: nobody waits for a next one any more. What it left unread is for the one after it."""
        self._wishes.put(self)
        self.join()


def read_again(make: Callable[[], T], complain: Callable[[str], None] = _log.error) -> T | None:
    """Return what `make` makes of the settings as they are now; None when they are not right, and say why not."""
    try:
        return make()
    except DeploykitError as error:
        problems = error.problems if isinstance(error, SettingsError | KeyFileError) else (str(error),)
    except OSError as error:
        problems = (str(error),)
    except Exception as error:  # noqa: BLE001 - the daemon at work goes on, and still hears HUP and TERM
        problems = (f"{type(error).__name__}: {error}",)
    for problem in problems:
        complain(f"settings not reloaded, the old ones stay: {problem}")
    return None


def say_read_again(before: Settings, after: Settings, tell: Callable[[str], None] = _log.info) -> None:
    """Say that the settings were read again, and which of them differ; never what they hold."""
    tell(f"settings read again: {', '.join(differing(before, after)) or 'nothing is different'}")


def differing(before: object, after: object, name: str = "") -> list[str]:
    """Return the names of the settings that differ, with dots; of a table of tables the table's name."""
    if before == after:
        return []
    kind = type(before)
    if not attrs.has(kind) or kind is not type(after):
        return [name]
    found: list[str] = []
    for field in attrs.fields(kind):
        where = f"{name}.{field.name}" if name else field.name
        found += differing(getattr(before, field.name), getattr(after, field.name), where)
    return found


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
