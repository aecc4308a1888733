"""The node's daemon: wires bus, outbox, mirrors and releases together, and holds them through TERM and HUP."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from deploykit.bus import Bus
from deploykit.bus.events import Connected, Event
from deploykit.daemons import lifecycle, logs
from deploykit.daemons.deploying import Deploying
from deploykit.daemons.mirroring import Mirroring
from deploykit.daemons.relay import make_relay, open_outbox
from deploykit.daemons.reporting import Reporter
from deploykit.errors import DeploykitError, SettingsError
from deploykit.ids import IdStore
from deploykit.keys import load_signing_key, load_trusted
from deploykit.release import Runner, Site
from deploykit.settings import Settings
from deploykit.wire.allowed_signers import AllowedSigners

_log = logging.getLogger(__name__)

_STOP_SECONDS = 30.0


def run(load: Callable[[], Settings], *, on_ready: Callable[[str], None]) -> None:
    """Run the agent until TERM. HUP reads the settings again; bad ones are logged and the old ones stay.

    Args:
        load: reads the settings.
        on_ready: called with the node's name once it is connected and subscribed.

    Raises:
        SettingsError: the first settings are wrong.
        DeploykitError: outbox, ids or a mirror cannot be opened.
    """
    settings = load()
    changed = threading.Event()
    while True:
        logs.set_up(settings.log, secrets=[settings.broker.passcode])
        changed.clear()
        with lifecycle.signals(on_reload=changed.set) as stop, Agent(settings) as agent:
            if agent.wait_ready(stop):
                on_ready(settings.node)
                lifecycle.notify("READY=1")
            _wait_for_either(stop, changed)
            lifecycle.notify("STOPPING=1" if stop.is_set() else "RELOADING=1")
            ended = stop.is_set()
        if ended:
            return
        settings = _reloaded(load, settings)


def forget(settings: Settings) -> None:
    """Drop this node's durable subscriptions at the broker: it will not come back, and nothing is kept for it."""
    with Bus(settings.broker, client_id=f"deploykit-{settings.node}") as bus:
        bus.wait_connected(settings.broker.connect_timeout)
        for topic, name in _subscriptions(settings):
            subscription = bus.subscribe(topic, lambda _: None, durable=name)
            subscription.wait_active(settings.broker.connect_timeout)
            subscription.unsubscribe(forget=True)


def _reloaded(load: Callable[[], Settings], old: Settings) -> Settings:
    try:
        return load()
    except SettingsError as error:
        for problem in error.problems:
            _log.error("settings not reloaded, the old ones stay: %s", problem)
        return old


def _wait_for_either(stop: threading.Event, changed: threading.Event) -> None:
    while not stop.wait(0.2) and not changed.is_set():
        pass


def _subscriptions(settings: Settings) -> tuple[tuple[str, str], ...]:
    """Topic and durable name of each: a message that came while the node was down still reaches it."""
    topics = settings.topics
    return (
        (topics.source, f"deploykit-{settings.node}-source"),
        (topics.deploy, f"deploykit-{settings.node}-deploy"),
    )


class Agent:
    """One node's agent. Use it as a context manager; it owns threads, no signal handlers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        key = load_signing_key(settings.signing_key) if settings.signing_key else None
        outbox = open_outbox(settings.outbox)
        settings.state.mkdir(parents=True, exist_ok=True)
        reporter = Reporter(outbox, settings.topics, key)
        self._mirroring = Mirroring(settings, reporter)
        self._ids = IdStore(settings.state / "ids.sqlite")
        deploying = Deploying(settings, self._mirroring, reporter, self._ids, self._trusted)
        self._bus = Bus(settings.broker, on_event=self._on_event, client_id=f"deploykit-{settings.node}")
        self._relay = make_relay(outbox, self._bus, settings.outbox)
        handlers = (self._mirroring.handle, deploying.handle)
        self._wanted = [
            (topic, name, handler) for (topic, name), handler in zip(_subscriptions(settings), handlers, strict=True)
        ]
        self._threads = [
            threading.Thread(target=self._mirroring.run, args=(self._stop,), name="deploykit-mirrors"),
            threading.Thread(target=self._relay.run, args=(self._stop,), name="deploykit-relay"),
        ]

    def __enter__(self) -> Agent:
        self._recover()
        self._bus.start()
        for topic, name, handler in self._wanted:
            self._bus.subscribe(topic, handler, durable=name, workers=4, prefetch=16)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._mirroring.wake()
        self._bus.stop(_STOP_SECONDS)
        for thread in self._threads:
            thread.join(_STOP_SECONDS)
        self._ids.close()

    def wait_ready(self, stop: threading.Event) -> bool:
        """Wait until the broker answered and knows our subscriptions, or `stop` is set."""
        while not stop.is_set():
            if self._bus.wait_connected(0.2):
                return True
        return False

    def _recover(self) -> None:
        """Bring to an end what a crash cut off. A site that cannot be recovered is for a person, not for the others."""
        for name, site in self._settings.sites.items():
            try:
                result = Runner(Site(site.path, site.release), node=self._settings.node).recover()
            except DeploykitError:
                _log.exception("site %s: cannot finish what was cut off", name)
            else:
                if result is not None:
                    _log.info("site %s: finished what was cut off: %s %s", name, result.outcome, result.detail)

    def _trusted(self) -> AllowedSigners:
        """Read whom to obey, afresh for each command: a key taken out counts at once."""
        return load_trusted(self._settings.trust)

    def _on_event(self, event: Event) -> None:
        match event:
            case Connected():
                # Messages may have been missed while there was no connection.
                self._mirroring.reconcile_soon()
            case _:
                _log.debug("%s", event)
