"""The console as a daemon: it hears the bus, keeps what it hears, and serves pages and the API.

Rules:

* It serves with the broker up or down, and says so. What it missed it asks the nodes for.
* HUP keeps the socket and who is logged in. Wrong settings change nothing. Rollouts go on in the new service.
* At its end the event streams end first: TERM takes less than 3 s, however many are open.
* Webhooks of `[webhook.sources]` are taken at their paths, too. The receiver's own service may run beside it: both
  share the store of deliveries.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from typing import ClassVar, Final
from weakref import WeakKeyDictionary

from deploykit.bus import Bus
from deploykit.bus.events import Connected, ConnectFailed, ConnectionLost, Event
from deploykit.daemons.nodetopics import NodeTopics
from deploykit.daemons.relay import make_relay
from deploykit.daemons.service import lifecycle
from deploykit.daemons.service.metrics import Metrics
from deploykit.daemons.service.service import Service
from deploykit.daemons.service.threads import ServiceThreads
from deploykit.errors import LedgerError, ProjectionError, ServiceFailed
from deploykit.messages import utc_now
from deploykit.operations.trace import trace_trust
from deploykit.settings.node import Settings
from deploykit.settings.service import parse_listen_address
from deploykit.trust.trustreader import TrustReader
from deploykit.web.actionparts import ActionParts, make_actions, make_signing
from deploykit.web.assembly import assemble
from deploykit.web.context import ConsoleContext
from deploykit.web.feed import ConsoleFeed, FeedPorts, destinations_of
from deploykit.web.feedhealth import FeedHealth
from deploykit.web.hosting.host import RolloutHost
from deploykit.web.ledger.ledger import Ledger
from deploykit.web.listener import SharedListener
from deploykit.web.live.describe import EventDraft
from deploykit.web.live.events import EventRing
from deploykit.web.login.console import ConsoleLogin
from deploykit.web.projection.activityviews import AuditView
from deploykit.web.projection.store import Store
from deploykit.web.rebuild import NodesAsker, NodesRebuilder, ask_everybody
from deploykit.web.receiver.assembly import WebhookReceiver
from deploykit.web.server import WebServer

_log = logging.getLogger(__name__)

_SETTING: Final = "[web] listen"
#: For `Metrics.expect`.
_SERVICE: Final = "web"
_COUNTERS: Final = ("web_requests_total", "web_messages_total", "web_events_total")
#: Seconds between two removals of what is too old, and between two steps of one.
_PRUNE_EVERY: Final = 600.0
_PRUNE_STEP: Final = 0.2
#: Seconds for the threads, and for the bus, to end: with the server's they stay below 3.
_THREADS_END: Final = 2.2
_BUS_END: Final = 2.0


def run(load: Callable[[], Settings], *, on_ready: Callable[[str], None] = lambda _: None) -> None:
    """Serve until TERM. HUP reads the settings again; wrong ones change nothing.

    Args:
        load: returns the settings.
        on_ready: called with `console at ADDRESS` once it serves.

    Raises:
        SettingsError: the first settings are wrong.
        UsageError: it cannot listen where they say.
        ProjectionError, LedgerError: a database cannot be used.
        LoginRefused: every broker refuses the login.
    """
    lifecycle.serve_one(
        "web", load, lambda settings, metrics: ConsoleService(settings, metrics=metrics), on_ready=on_ready
    )


class ConsoleMemory:
    """What outlasts a reload: who is logged in. One for a process, which is known by its metrics."""

    _of: ClassVar[WeakKeyDictionary[Metrics, ConsoleMemory]] = WeakKeyDictionary()
    _lock: ClassVar = threading.Lock()

    def __init__(self, settings: Settings) -> None:
        #: Takes the decisions of the login; of the service that runs now.
        self.note: Callable[[AuditView], None] = lambda _: None
        self.login = ConsoleLogin(settings.web, self._noted)
        self._holders = 0

    @classmethod
    def hold(cls, metrics: Metrics, settings: Settings) -> ConsoleMemory:
        """Return the memory of a process, with one more holder.

        Raises:
            SettingsError: the file of passwords cannot be used.
        """
        with cls._lock:
            memory = cls._of.get(metrics)
            if memory is None:
                memory = cls._of[metrics] = cls(settings)
            else:
                ConsoleLogin(settings.web).close()  # wrong settings are an error now, while the old ones are in force
            memory._holders += 1
            return memory

    def let_go(self) -> None:
        """Let one holder go; the last one ends it."""
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                self.login.close()
                for metrics in [key for key, each in self._of.items() if each is self]:
                    del self._of[metrics]

    def _noted(self, entry: AuditView) -> None:
        self.note(entry)


class ConsoleService(Service):
    """The web console. Use it as a context manager; it owns threads, no signal handlers.

    Args:
        settings: of this machine.
        bus: a started bus that it shares; None: it makes its own.
        metrics: counts requests and messages.
        ask: asks all nodes.
        now: the wall clock, aware UTC.

    Raises:
        SettingsError: a file that the settings name cannot be used, or a webhook's path is a page.
        UsageError: it cannot listen where the settings say.
        ProjectionError, LedgerError: a database cannot be used.
        WebError, OutboxError: with webhooks: the store of deliveries or the spool cannot be opened.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        bus: Bus | None = None,
        metrics: Metrics | None = None,
        ask: NodesAsker = ask_everybody,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        counted = metrics or Metrics()
        self._settings = settings
        self._now = now
        self._opened = ExitStack()
        with self._opened, ExitStack() as undo:
            trust = trace_trust(settings)
            self._memory = ConsoleMemory.hold(counted, settings)
            self._opened.callback(self._memory.let_go)
            self._events = EventRing(time.time_ns() // 1_000_000)
            self._health = FeedHealth(now, unverified=trust is None, on_change=self._health_changed)
            self._store = Store.open(settings.web, settings.state, now=now)
            self._opened.callback(self._store.close)
            self._ledger = Ledger.open(settings.web, settings.state)
            self._opened.callback(self._ledger.close)
            self._hooks = WebhookReceiver(settings, counted) if settings.webhook.sources else None
            if self._hooks is not None:
                self._opened.callback(self._hooks.close)
            listener = SharedListener(parse_listen_address(settings.web.listen), setting=_SETTING)
            self._opened.callback(listener.close)
            super().__init__(
                f"console at {listener.url}",
                settings.broker,
                bus=bus,
                client_id=f"deploykit-{settings.node}-web",
                on_event=self._on_event,
                metrics=counted,
            )
            undo.callback(self.link.stop, 0)
            self._host = RolloutHost(settings, self.link.bus, self._ledger, now=now)
            self._host.on_looked = counted.web_rollouts
            self._opened.callback(self._host.close)
            context = self._context()
            hooks = self._hooks.routes() if self._hooks is not None else ()
            app = assemble(context, self._memory.login, counted, hooks=hooks)
            self._server = WebServer(app, listener, on_ending=self._events.close)
            self._opened.callback(self._server.close)
            self._rebuilder = NodesRebuilder(settings, self.link.bus, self._store, self._health, ask=ask, now=now)
            self._nodes = NodeTopics(self.link.bus, settings.topics, self._listen)
            ports = FeedPorts(
                announce=self._announce,
                rebuild=self._rebuilder.soon,
                heard=self._nodes.heard,
                count=counted.web_heard,
                lag=counted.web_lag,
            )
            self._feed = ConsoleFeed(self._store, trust, self._health, ports, now=now)
            undo.pop_all()
            self._opened = self._opened.pop_all()
        self.threads.add("web-feed", partial(self._feed.run, self.ending))
        self.threads.add("web-upkeep", self._look_after)
        if self._hooks is not None:
            relay = make_relay(self._hooks.outbox, self.link.bus, settings.outbox)
            self.threads.add("web-relay", partial(relay.run, self.ending))
        #: Apart from the others: a question to the nodes may take longer than the end may.
        self._asking = ServiceThreads()
        self._asking.add("web-rebuild", partial(self._rebuilder.run, self.ending))
        self._serving = False

    def _context(self) -> ConsoleContext:
        queries = self._store.queries(lambda: self._health.shown)
        parts = ActionParts(
            settings=self._settings,
            ledger=self._ledger,
            host=self._host,
            bus=self.link.bus,
            queries=queries,
            note=self._note,
            came=self._somebody_came,
            now=self._now,
        )
        return ConsoleContext(
            settings=self._settings,
            queries=queries,
            events=self._events,
            now=self._now,
            actions=make_actions(parts),
            signing=make_signing(parts),
            answers=self._ledger.answers,
        )

    # -- its life ------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        try:
            signers = TrustReader(self._settings.trust) if self._settings.trust.allowed_signers else None
            self._memory.login.keep_in(self._ledger, signers)
            self._memory.login.reload(self._settings.web)
            self._memory.note = self._note
            self.metrics.expect(_SERVICE, sources=self._settings.webhook.sources, counters=_COUNTERS)
            self.link.start()
            for destination in destinations_of(self._settings.topics):
                self._listen(destination)
            if self.link.shared and self.link.connected:
                self._health.connected()
            self.threads.start()
            self._asking.start()
            if self._hooks is not None:
                self._hooks.expect()
                self.watch_outbox(self._hooks.outbox.path)
            self._host.serve()
            self._server.start()
            self._serving = True
        except BaseException:
            self.ending.set()
            self.discard()
            raise

    def _listen(self, destination: str) -> None:
        self.link.subscribe(destination, self._feed.hear, on_failure="drop")

    def _end(self) -> None:
        self._serving = False
        self.ending.set()
        self._rebuilder.end()
        begun = time.monotonic()
        try:
            self._server.close()  # the streams first; then what was heard is kept, while the relay hands back
            self._host.close()
            self.threads.join(begun + _THREADS_END)
            self.link.stop(_BUS_END)
            self._asking.join(time.monotonic())
        finally:
            self._opened.close()

    def discard(self) -> None:
        """Free what was made: the database, the share of the socket, a bus."""
        super().discard()
        self._opened.close()

    # -- what it hears -------------------------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        match event:
            case Connected():
                self._health.connected()
                self._rebuilder.soon("connected to a broker")
            case ConnectionLost(reason=reason):
                self._health.lost(reason)
            case ConnectFailed(problem=problem):
                self._health.lost(problem)

    def _announce(self, drafts: Sequence[EventDraft]) -> None:
        for draft in drafts:
            self._events.add(draft.kind, draft.time, site=draft.site, correlation=draft.correlation, data=draft.data)
        self.metrics.web_announced(len(drafts))

    def _health_changed(self) -> None:
        shown = self._health.shown
        self._events.add("health", self._now(), data={"connected": shown.connected, "rebuilding": shown.rebuilding})
        self.metrics.web_announced(1)

    def _somebody_came(self, site: str) -> None:
        self._events.add("presence", self._now(), site=site)

    def _note(self, entry: AuditView) -> None:
        self._store.note(entry)

    def _look_after(self) -> None:
        while not self.ending.wait(_PRUNE_STEP):
            try:
                if self._store.prune(self._now()):
                    continue
                self._ledger.prune(self._settings.web.keep_days * 86400.0)
                if self.ending.wait(_PRUNE_EVERY):
                    return
            except (ProjectionError, LedgerError) as error:
                _log.warning("nothing old is removed now: %s", error)
                if self.ending.wait(_PRUNE_EVERY):
                    return

    # -- what it says of itself ----------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where it serves."""
        return self._server.url

    @property
    def working(self) -> bool:
        """Whether it serves: a broker that is away changes nothing."""
        return self._serving and not self._server.failure

    @property
    def status(self) -> str:
        """Where it serves, and whether a broker is connected."""
        return f"serves at {self.url}; {super().status}"

    @property
    def problems(self) -> tuple[str, ...]:
        """A database that is away, nodes that cannot be asked, rollouts that wait, what is wrong with webhooks."""
        hooks = self._hooks.intake.problems if self._hooks is not None else ()
        found = (self._cannot_ask, *self._host.problems, *hooks)
        return (*self.blocking, *(each for each in found if each and each not in self.blocking))

    @property
    def blocking(self) -> tuple[str, ...]:
        """The database, and an outbox that webhooks cannot be put into."""
        failure = self._hooks.intake.failure if self._hooks is not None else ""
        return tuple(filter(None, (self._health.cannot_keep, failure)))

    @property
    def _cannot_ask(self) -> str:
        why = self._health.cannot_ask
        return f"cannot ask the nodes what they hold: {why}" if why else ""

    def check(self) -> None:
        """Make sure that it can still do its work; see `Service.check`."""
        super().check()
        self._nodes.look()
        if self._server.failure:
            raise ServiceFailed(self._server.failure)
        if self._asking.error is not None:
            thread, error = self._asking.error
            raise ServiceFailed(f"the thread {thread} has failed: {type(error).__name__}: {error}") from error


__all__ = ["ConsoleMemory", "ConsoleService", "run"]
