"""Start, reload and stop daemons: TERM and INT end them cleanly, HUP reads the settings again (wrong ones: no change).

`serve` is the whole life of a process of services; `signals`, `try_reload` and `reload_line` are its parts.

Rules:

* One thread, the main one, starts the services, looks at them, reads the settings again and speaks to the service
  manager: a ping of the watchdog says that this loop goes on, and that every service does.
* The new services are made before the old ones end, and started after that.
* After TERM nothing is started any more, whatever HUP asked for before.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, TypeVar

import attrs

from deploykit.bus.passcode import with_passcode
from deploykit.daemons.service.group import ServiceGroup
from deploykit.daemons.service.logs import set_up_from
from deploykit.daemons.service.metrics import Metrics
from deploykit.daemons.service.notify import ServiceManager
from deploykit.daemons.service.pages import Pages
from deploykit.daemons.service.service import Service
from deploykit.errors import DeploykitError, KeyFileError, LockBusy, LoginRefused, SettingsError
from deploykit.settings.node import Settings
from deploykit.system.memory import use_few_arenas

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: Seconds after the first TERM or INT within which another one is the same request.
_SAME_REQUEST = 0.5
#: Seconds between two looks at the services; while they start, and for how long that is.
_TICK: Final = 0.2
_FIRST_TICK: Final = 0.02
_SOON: Final = 5.0
#: Seconds after which a line says what the end of services waits for.
_MOMENT: Final = 1.0
#: Seconds the end of services may take that wait for nothing, before the watchdog hears no more of them.
_MOST_ENDING: Final = 60.0


class _EndRequest(threading.Event):
    """Set by TERM or INT. `is_set` knows of it from the instant of the signal; who waits is woken a moment later.

    Attributes:
        requested: monotonic seconds of the first signal; 0 before it. A signal handler may set it: it takes no lock.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requested = 0.0

    def is_set(self) -> bool:
        """Return whether the end was asked for."""
        return bool(self.requested) or super().is_set()


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
    stop = _EndRequest()
    received: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def end(number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if not stop.requested:
            stop.requested = now
            received.put(number)
        elif now - stop.requested > _SAME_REQUEST:  # timeout(1) signals child and group: one request
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


def serve_one(
    daemon: str,
    load: Callable[[], Settings],
    make: Callable[[Settings, Metrics], Service],
    *,
    on_ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Run one service as `serve` does, with pages and metrics.

    Args:
        daemon: whose address of the pages counts, see `ServiceSettings`.
        load, on_ready: as for `serve`.
        make: makes the service, which counts in the metrics it is given: the same after each reload.
    """
    metrics = Metrics()
    pages = Pages(daemon, metrics)
    serve(load, lambda settings: ServiceGroup([make(settings, metrics)]), pages=pages, on_ready=on_ready)


def serve(
    load: Callable[[], Settings],
    make: Callable[[Settings], ServiceGroup],
    *,
    pages: Pages | None = None,
    on_ready: Callable[[str], None] = lambda _: None,
    set_up: Callable[[Settings], None] = set_up_from,
    on_reloaded: Callable[[str], None] = _log.info,
    on_problem: Callable[[str], None] = _log.error,
) -> None:
    """Run services made of the settings until TERM; HUP reads the settings again and replaces the services by new ones.

    Wrong settings never interrupt the running services. Where a new one finds a lock taken, or its login refused, the
    old settings are back in force.

    Args:
        load: returns the settings.
        make: makes services of them without starting any: the previous ones may still run.
        pages: where the settings want them; None: never.
        on_ready: called with the name of each service that has begun its work, again after a reload.
        set_up: called with the settings that are in force from now on, before the first services are made.
        on_reloaded: called with a line once the settings were read again.
        on_problem: called with a line for each problem in them.

    Raises:
        DeploykitError: the first settings are wrong, or a service cannot start or go on.
    """
    use_few_arenas()
    manager = ServiceManager.take()
    pages = pages or Pages("", Metrics())
    wake, reload = threading.Event(), threading.Event()

    def ask_to_reload() -> None:
        reload.set()
        wake.set()

    with signals(on_reload=ask_to_reload, on_end=wake.set) as stop, pages:
        settings = load()
        kept = keep_passcode(settings)
        before: Settings | None = None
        set_up(settings)
        runner = _Runner(manager, stop, reload, wake, on_ready, pages)
        with pages.opening(settings):
            group = make(settings)

        def another() -> tuple[Settings, ServiceGroup]:
            loaded = load()
            # A refused login brings the old settings back, and that at once: `login_retry` is for the first start.
            impatient = attrs.evolve(loaded, broker=loaded.broker.at_once())
            with pages.opening(loaded):
                return loaded, make(impatient)

        while True:
            following: tuple[Settings, ServiceGroup] | None
            try:
                following = runner.run(group, lambda: try_reload(another, on_problem))
            except (LockBusy, LoginRefused) as error:
                if before is None:
                    raise
                on_problem(f"settings given up, the old ones are back: {error}")
                following, before = (before, make(before)), None
                _take_back(pages, following[0], on_problem)
            else:
                before = kept
            if following is not None and stop.is_set():
                following[1].discard()
            if following is None or stop.is_set():
                return
            previous = kept
            settings, group = following
            kept = keep_passcode(settings)
            set_up(settings)
            on_reloaded(reload_line(previous, kept))


class _Runner:
    """Runs one group after another, in the main thread.

    Args:
        manager: hears how it goes.
        stop: set by TERM.
        reload: set by HUP.
        wake: set by both.
        on_ready: called with the name of each service that has begun its work.
        pages: show what was found at each look.
    """

    def __init__(
        self,
        manager: ServiceManager,
        stop: threading.Event,
        reload: threading.Event,
        wake: threading.Event,
        on_ready: Callable[[str], None],
        pages: Pages,
    ) -> None:
        self._pages = pages
        self._manager = manager
        self._stop = stop
        self._reload = reload
        self._wake = wake
        self._on_ready = on_ready
        self._stuck = ""

    def run(self, group: ServiceGroup, read_again: Callable[[], T | None]) -> T | None:
        """Run a group until TERM, or until it has finished: return None. Or until HUP: return what follows it.

        Args:
            group: not yet started.
            read_again: returns what follows; None where that cannot be made, and this group goes on.
        """
        following: T | None = None
        self._pages.wait_for("starting")
        group.__enter__()
        try:
            self._manager.ready(group.status)
            soon = time.monotonic() + _SOON
            while following is None and not (self._stop.is_set() or group.finished):
                if self._reload.is_set():
                    self._reload.clear()
                    self._manager.reloading()
                    following = read_again()
                    if following is None:
                        self._manager.ready(group.status)
                    continue
                group.check()
                for name in group.newly_ready():
                    self._on_ready(name)
                self._manager.status(group.status)
                self._pages.look(group)
                self._ping(group)
                self._wake.wait(_TICK if group.all_ready or time.monotonic() > soon else _FIRST_TICK)
                self._wake.clear()
        finally:
            self._end(group, last=self._stop.is_set() or group.finished)
        return following

    def _ping(self, group: ServiceGroup) -> None:
        """Send the watchdog its ping, where the work goes on."""
        now = time.monotonic()
        if not self._manager.ping_due(now):
            return
        if stuck := group.stuck(now):
            if not self._stuck:
                _log.error("no ping for the watchdog: %s", stuck)
        else:
            self._manager.ping(now)
        self._stuck = stuck

    def _end(self, group: ServiceGroup, *, last: bool) -> None:
        """End a group. Meanwhile ask the manager for time, for as long as a service has work that must not be cut off.

        The main thread only waits here, so that a second TERM ends the process at once.

        Args:
            last: no other group follows. After an error that is not known yet, and the manager hears nothing of it.
        """
        errors: list[BaseException] = []

        def end() -> None:
            try:
                group.__exit__(None, None, None)
            except BaseException as error:  # noqa: BLE001 -- raised below
                errors.append(error)

        begun, announced, logged = time.monotonic(), last, ""
        if last:
            self._manager.stopping(f"ending{_because(group.busy)}")
        thread = threading.Thread(target=end, name="deploykit-ending", daemon=True)
        thread.start()
        while thread.is_alive():
            now, busy = time.monotonic(), group.busy
            last = last or self._stop.is_set()
            if last and not announced:
                self._manager.stopping(f"ending{_because(busy)}")
            announced = last
            if busy:
                self._manager.extend(now)
            if self._manager.ping_due(now) and (busy or now < begun + _MOST_ENDING):
                self._manager.ping(now)
            line = f"{'ending' if last else 'reading the settings again'}{_because(busy)}"
            if busy and line != logged and now > begun + _MOMENT:
                _log.info("%s", line)
                logged = line
            self._manager.status(line)
            self._pages.wait_for(line)
            thread.join(_TICK)
        if errors:
            raise errors[0]


def _because(busy: str) -> str:
    return f": waits for {busy}" if busy else ""


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


def _take_back(pages: Pages, settings: Settings, on_problem: Callable[[str], None]) -> None:
    """Serve the pages where they were; the services go on without where that is not possible any more."""
    try:
        with pages.opening(settings):
            pass
    except DeploykitError as error:
        on_problem(str(error))


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
