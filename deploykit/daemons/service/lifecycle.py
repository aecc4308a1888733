"""Start, reload and stop a daemon: TERM and INT end it cleanly, HUP reads the settings again (wrong ones: no change).

`serve` is the whole life of a daemon that has settings; `signals`, `try_reload` and `reload_line` are its parts.
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

from deploykit.bus.passcode import with_passcode
from deploykit.errors import DeploykitError, KeyFileError, LockBusy, LoginRefused, SettingsError
from deploykit.settings.node import Settings

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: Seconds after the first TERM or INT within which another one is the same request.
_SAME_REQUEST = 0.5
#: What signals ask of `serve`.
_RELOAD: Final = object()
_END: Final = object()


@contextmanager
def signals(
    *, on_reload: Callable[[], None] | None = None, on_end: Callable[[], None] = lambda: None
) -> Iterator[threading.Event]:
    """Yield an event that TERM or INT sets; HUP calls `on_reload`. For the main thread of a process of ours.

    Args:
        on_reload: called for each HUP, in a thread of its own.
        on_end: called in that thread, once the event is set.

    A second TERM or INT, more than half a second later, raises `KeyboardInterrupt` in the main thread.

    A handler runs in the middle of anything, another handler included, so it takes no lock: it puts the signal into a
    queue that allows that, and a thread acts on it. An event that a handler sets itself deadlocks in a burst of HUPs.
    """
    stop = threading.Event()
    received: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    requested = 0.0

    def end(number: int, _frame: FrameType | None) -> None:
        nonlocal requested
        now = time.monotonic()
        if not requested:
            requested = now
            received.put(number)
        elif now - requested > _SAME_REQUEST:  # timeout(1) signals its child and then its group: that is one request
            raise KeyboardInterrupt  # a second request: do not wait

    def act() -> None:
        while (number := received.get()) is not None:
            if number != signal.SIGHUP:
                _log.info("got %s: ending", signal.Signals(number).name)
                stop.set()
                on_end()
            elif on_reload is not None:
                on_reload()

    thread = threading.Thread(target=act, name="deploykit-signals", daemon=True)
    thread.start()
    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda number, _: received.put(number))
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        received.put(None)
        thread.join()


def serve(
    load: Callable[[], Settings],
    make: Callable[[Settings], T],
    work: Callable[[T, threading.Event], None],
    *,
    set_up: Callable[[Settings], None] = lambda _: None,
    on_reloaded: Callable[[str], None] = _log.info,
    on_problem: Callable[[str], None] = _log.error,
) -> None:
    """Run a daemon made of the settings until TERM; HUP reads the settings again and replaces it by a new one.

    Wrong settings never interrupt the running daemon. Where the new one finds a lock taken, or its login refused, the
    old settings are back in force.

    Args:
        load: returns the settings.
        make: makes a daemon of them without starting it: the previous one may still run.
        work: runs a daemon until the event is set, and ends it.
        set_up: called with the settings that are in force from now on, before the first daemon is made.
        on_reloaded: called with a line once the settings were read again.
        on_problem: called with a line for each problem in them.

    Raises:
        DeploykitError: the first settings are wrong, or `make` or `work` raised it.
    """
    requests: queue.SimpleQueue[object] = queue.SimpleQueue()
    with signals(on_reload=lambda: requests.put(_RELOAD), on_end=lambda: requests.put(_END)):
        settings = load()
        kept = keep_passcode(settings)
        before: Settings | None = None
        set_up(settings)
        daemon = make(settings)

        def another() -> tuple[Settings, T]:
            loaded = load()
            return loaded, make(loaded)

        while True:
            reloader = _Reloader(requests, another, on_problem)
            reloader.start()
            try:
                work(daemon, reloader.done)
            except (LockBusy, LoginRefused) as error:
                if before is None:
                    raise
                on_problem(f"settings given up, the old ones are back: {error}")
                reloader.made, before = (before, make(before)), None
            else:
                before = kept
            finally:
                reloader.finish()
            following = reloader.made
            if following is None:
                return
            previous = kept
            settings, daemon = following
            kept = keep_passcode(settings)
            set_up(settings)
            on_reloaded(reload_line(previous, kept))


class _Reloader(threading.Thread, Generic[T]):
    """Waits for HUP while a daemon runs, and makes the next one; sets `done` when the running one is to end."""

    def __init__(
        self, requests: queue.SimpleQueue[object], make: Callable[[], T], on_problem: Callable[[str], None]
    ) -> None:
        super().__init__(name="deploykit-reloader", daemon=True)
        self.done = threading.Event()
        self.made: T | None = None
        self._requests = requests
        self._make = make
        self._on_problem = on_problem

    def run(self) -> None:
        """Make a daemon for each HUP until one can be made, or a request to end comes."""
        try:
            while self.made is None and (request := self._requests.get()) is not _END:
                if request is self:
                    return
                if request is _RELOAD:
                    self.made = try_reload(self._make, self._on_problem)
            if self.made is not None:
                notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        finally:
            self.done.set()

    def finish(self) -> None:
        """End the thread. Requests that it left unread are for the next one."""
        self._requests.put(self)
        self.join()


def try_reload(make: Callable[[], T], on_problem: Callable[[str], None] = _log.error) -> T | None:
    """Return what `make` makes of the current settings; None if they are wrong, with a line for each problem."""
    try:
        return make()
    except DeploykitError as error:
        problems = error.problems if isinstance(error, SettingsError | KeyFileError) else (str(error),)
    except OSError as error:
        problems = (str(error),)
    except Exception as error:  # noqa: BLE001 - the running daemon goes on, and still handles HUP and TERM
        problems = (f"{type(error).__name__}: {error}",)
    for problem in problems:
        on_problem(f"settings not reloaded, the old ones stay: {problem}")
    return None


def keep_passcode(settings: Settings) -> Settings:
    """Return the settings with the passcode that is in its file now: they stay in force where a reload fails."""
    try:
        return attrs.evolve(settings, broker=with_passcode(settings.broker))
    except SettingsError:  # it was readable when the settings were loaded
        return settings


def reload_line(before: Settings, after: Settings) -> str:
    """Return the line that the settings were read again, with the names of those that differ, never the values."""
    return f"settings read again: {', '.join(differing(before, after)) or 'nothing is different'}"


def differing(before: object, after: object, name: str = "") -> list[str]:
    """Return the dotted names of the settings that differ; of a table of tables only the table's name."""
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
    """Send systemd `READY=1` and the like, if it set NOTIFY_SOCKET (sd_notify(3)); else do nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), f"\0{address[1:]}" if address[0] == "@" else address)
        except OSError as error:
            _log.warning("cannot notify the service manager: %s", error)
