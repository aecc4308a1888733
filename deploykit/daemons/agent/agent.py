"""The node's daemon: connects bus, outbox, mirrors and releases, and keeps them running through TERM and HUP."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from deploykit.audit import open_audit
from deploykit.builds.store import builds_of
from deploykit.bus import Bus
from deploykit.bus.events import Connected, ConnectFailed, Event
from deploykit.config.crosschecks import warnings
from deploykit.daemons.agent import buildresults, mirrors
from deploykit.daemons.agent.buildresults import BuildResultHandler, wants_builds
from deploykit.daemons.agent.deployer import SiteDeployer
from deploykit.daemons.agent.deploys import DeployHandler
from deploykit.daemons.agent.description import NodeDescriber
from deploykit.daemons.agent.factsources import FactSources
from deploykit.daemons.agent.gate import BuildGate, gate_problems
from deploykit.daemons.agent.lock_audit import LockAudit
from deploykit.daemons.agent.lock_guard import LockGuard
from deploykit.daemons.agent.locks import LockKeeper
from deploykit.daemons.agent.lockstore import lock_store_of
from deploykit.daemons.agent.locksync import LockSync
from deploykit.daemons.agent.mandates import mandates_of
from deploykit.daemons.agent.mirrors import MirrorHandler
from deploykit.daemons.agent.presence import Presence
from deploykit.daemons.agent.progress import ProgressSender
from deploykit.daemons.agent.queries import QueryHandler
from deploykit.daemons.agent.question_audit import QuestionAudit
from deploykit.daemons.agent.recovery import recover_sites
from deploykit.daemons.agent.reports import Reporter
from deploykit.daemons.agent.result_audit import ResultAudit
from deploykit.daemons.agent.rollouts import rollouts_of
from deploykit.daemons.agent.selfdescription import SelfDescription
from deploykit.daemons.agent.statelock import StateLock
from deploykit.daemons.agent.trustcheck import trust_problems
from deploykit.daemons.agent.twinfile import remove_twins
from deploykit.daemons.relay import make_relay, open_outbox
from deploykit.daemons.service import lifecycle
from deploykit.daemons.service.auditing import AuditWriter
from deploykit.daemons.service.durable import forget_subscriptions
from deploykit.daemons.service.metrics import Metrics
from deploykit.daemons.service.service import Service
from deploykit.daemons.service.throttle import INTERVAL
from deploykit.errors import IdStoreError, RolloutMemoryError
from deploykit.ids import IdStore
from deploykit.messages import BuildFinished, DeployReported, SiteLocked, SiteUnlocked, utc_now
from deploykit.messages.topics import topics_of_class
from deploykit.release import Site
from deploykit.settings.node import Settings
from deploykit.system.ownership import user_name
from deploykit.trust.check import Trust
from deploykit.trust.keyfiles import load_signing_key

_log = logging.getLogger(__name__)

_DAY = 86400.0


def run(load: Callable[[], Settings], *, on_ready: Callable[[str], None]) -> None:
    """Run the agent until TERM. HUP reads the settings again; while those are bad, the old ones stay in force.

    Args:
        load: reads the settings.
        on_ready: called with `agent on NODE` once it is connected and subscribed.

    Raises:
        SettingsError: the first settings are wrong.
        LoginRefused: no broker accepts the credentials.
        LockBusy: another agent uses the state directory.
        DeploykitError: outbox, ids or a key cannot be opened.
    """
    lifecycle.serve_one("agent", load, lambda settings, metrics: Agent(settings, metrics=metrics), on_ready=on_ready)


def forget(settings: Settings) -> None:
    """Delete this node's durable subscriptions at the broker, for a node that will not come back.

    Raises:
        LockBusy: its agent runs here, and would lose commands.
    """
    with ExitStack() as held:
        if settings.state.is_dir():
            held.enter_context(StateLock(settings.state))
        bus = held.enter_context(Bus(settings.broker, client_id=f"deploykit-{settings.node}"))
        bus.wait_connected(settings.broker.connect_timeout)
        subscriptions = (*_subscriptions(settings), *_build_subscriptions(settings))
        forget_subscriptions(bus, subscriptions, settings.broker.connect_timeout)


def _subscriptions(settings: Settings) -> tuple[tuple[str, str], ...]:
    """Return topic and durable name of each: messages that came while the node was down still reach it."""
    topics = settings.topics
    return (
        (topics.source, f"deploykit-{settings.node}-source"),
        (topics.deploy, f"deploykit-{settings.node}-deploy"),
        (topics.deploy_to(settings.node), f"deploykit-{settings.node}-deploy-node"),
    )


def _build_subscriptions(settings: Settings) -> tuple[tuple[str, str], ...]:
    """Return topic and durable name of each topic that build results come on."""
    name = f"deploykit-{settings.node}-build"
    topics = topics_of_class(BuildFinished, settings.topics)
    return tuple((topic, f"{name}-{at}" if at > 1 else name) for at, topic in enumerate(topics, 1))


class Agent(Service):
    """One node's agent. Use it as a context manager; it owns threads, no signal handlers.

    Leaving it waits for the deploys that run: a script is never cut off. They are bounded by their own time limits.

    Args:
        settings: the node's.
        bus: a started bus that it shares; its client_id should be `deploykit-NODE`. None: it makes its own.
        metrics: where it counts.

    Raises:
        SettingsError, KeyFileError: a setting, or a file it names, is wrong.
        OutboxError, IdStoreError: the spool, or the store of ids, cannot be opened.
    """

    def __init__(self, settings: Settings, *, bus: Bus | None = None, metrics: Metrics | None = None) -> None:
        self.settings = settings
        metrics = metrics or Metrics()
        self._trust_problems: tuple[str, ...] = ()
        self._recovered, self._leaving = threading.Event(), threading.Event()
        for warning in warnings(settings, user_name(os.geteuid())):
            _log.warning("settings: %s", warning)
        key = load_signing_key(settings.signing_key) if settings.signing_key else None
        outbox = open_outbox(settings.outbox)
        settings.state.mkdir(parents=True, exist_ok=True)
        self._lock = StateLock(settings.state)
        trust = Trust.from_settings(settings.trust, settings.node, repos=settings.site_repos)
        self._presence = Presence(settings, key, trust)
        facts = FactSources(settings.facts)
        audit = open_audit(settings, on_record=metrics.audit_recorded)
        writer = AuditWriter(audit, f"agent/{settings.node}", utc_now)
        locks = LockKeeper(
            *(settings.sites, trust, lock_store_of(settings.state), LockAudit(writer)),
            ending=self._leaving,
            on_change=self._changed,
        )
        self._locks = LockSync(settings.node, settings.topics, key, locks)
        describer = NodeDescriber(
            *(settings, facts),
            me=lambda: self._presence.me,
            twins=lambda: self._presence.twins,
            lock=locks.shown,
        )
        self._unasked = SelfDescription(settings.facts, settings.topics, describer, facts, key)
        reporter = Reporter(outbox, settings.topics, key, stamp=self._stamp, legacy=settings.legacy)
        self._mirrors = MirrorHandler(settings, reporter, metrics=metrics)
        self._ids = IdStore(settings.state / "ids.sqlite")
        builds = builds_of(settings.state)
        self._results = ResultAudit(writer, settings.node, builds)
        asked = QuestionAudit(writer, settings.node)
        self._queries = QueryHandler(
            *(settings.topics, describer, key, trust, asked),
            others=self._locks.asked,
            metrics=metrics,
        )
        self._builds = BuildResultHandler(settings, trust, builds, self._mirrors, self._results)
        gate = BuildGate(settings, trust, builds, self._results, metrics=metrics)
        super().__init__(
            f"agent on {settings.node}",
            settings.broker,
            bus=bus,
            client_id=f"deploykit-{settings.node}",
            on_event=self._on_event,
            metrics=metrics,
        )
        self._progress = ProgressSender(settings.node, self.link.bus, settings.topics, key)
        deployer = SiteDeployer(settings, self._mirrors, gate, self._progress)
        self._rollouts = rollouts_of(settings.state)
        self._mandates = mandates_of(settings, trust, reporter, writer, self._rollouts)
        self._deploys = DeployHandler(
            *(settings.node, deployer, reporter, self._ids, trust, audit),
            rollouts=self._rollouts,
            sites=settings.sites,
            guards=[partial(LockGuard.of, locks=locks, mandates=self._mandates)],
            handlers={SiteLocked: self._locks.handle, SiteUnlocked: self._locks.handle},
            mandates=self._mandates,
            metrics=metrics,
        )
        self._relay = make_relay(outbox, self.link.bus, settings.outbox)
        # A rollout comes on the topic of the node, its abort on the broadcast topic: it waits behind no deploy of it.
        handlers = ((self._mirrors.handle, mirrors.WORKERS), (self._deploys.handle, 4), (self._deploys.handle, 4))
        self._handlers = [(*names, *handler) for names, handler in zip(_subscriptions(settings), handlers, strict=True)]
        self.threads.add("relay", partial(self._relay.run, self.ending))
        self.threads.add("progress", self._progress.run)
        self.threads.add("upkeep", self._look_after)
        self.threads.add("presence", partial(self._presence.run, self.ending))
        self.threads.add("answers", partial(self._queries.run, self.ending))
        self.threads.add("locks", partial(self._locks.run, self.link.bus, self.ending))
        self.threads.add("description", partial(self._unasked.run, self.link.bus, self.ending))

    def _start(self) -> None:
        with ExitStack() as undo:
            for release in (self._ids.close, self._mirrors.stop, partial(self.link.stop, 0)):
                undo.callback(release)
            undo.enter_context(self._lock)
            remove_twins(self.settings.state)
            self._trust_problems = (*trust_problems(self.settings, utc_now()), *gate_problems(self.settings))
            for problem in self._trust_problems:
                _log.error("%s", problem)
            self._mirrors.start()
            self.link.start()
            self._show()
            for topic, name, handler, workers in self._handlers:
                counted = self.metrics.counted(handler)
                self.link.subscribe(topic, counted, durable=name, workers=workers, prefetch=4 * workers)
            for topic, name in _build_subscriptions(self.settings) if wants_builds(self.settings) else ():
                self.link.subscribe(
                    topic,
                    self.metrics.counted(self._builds.handle),
                    durable=name,
                    workers=buildresults.WORKERS,
                    prefetch=4 * buildresults.WORKERS,
                    max_attempts=buildresults.ATTEMPTS,
                )
            self._presence.listen(self.link)
            self._queries.listen(self.link)
            self.threads.start()
            undo.pop_all()

    def _show(self) -> None:
        """Have the metrics show this node's sites, repositories and spool."""
        settings = self.settings
        gated = ("gate_decisions_total",) if any(s.gated for s in settings.sites.values()) else ()
        self.metrics.expect(
            "agent",
            sites=settings.sites,
            repositories=settings.repositories,
            counters=("deploys_total", "mirror_fetches_total", "questions_total", "audit_records_total", *gated),
        )
        self.metrics.watch_sites({name: Site(site.path).resolved_name for name, site in settings.sites.items()})
        self.watch_outbox(settings.outbox.path)

    def _end(self) -> None:
        try:
            self.ending.set()
            self._leaving.set()
            for sleeper in (self._presence, self._queries, self._unasked, self._locks):
                sleeper.wake()
            self._recovered.wait()
            self._deploys.finish()
            self._progress.stop()
            self._mirrors.stop()
            super()._end()
            for flushed in (self._results, self._queries):
                flushed.flush(float("inf"))
            self._ids.close()
        finally:
            self._lock.__exit__(None, None, None)

    @property
    def problems(self) -> tuple[str, ...]:
        """What a person should know: why the agent can obey no command, and other agents under its name."""
        return (*self._trust_problems, *self._presence.problems)

    @property
    def busy(self) -> str:
        """The deploys that run, or that a crash cut off and that are being finished."""
        if not self._recovered.is_set():
            return "an interrupted deploy"
        count = self._deploys.at_work
        return f"{count} deploy{'s' if count > 1 else ''}" if count else ""

    def _changed(self) -> None:
        """Have the node described soon: what is known of a lock has changed."""
        self._unasked.on_change()

    def _stamp(self, report: DeployReported) -> DeployReported:
        """Return a deploy's report with which agent made it: a deploy has ended, so the node may have changed."""
        self._unasked.on_change()
        return self._presence.stamp(report)

    def _look_after(self) -> None:
        """Finish what a crash cut off; then log refused messages, and prune old ids once a day."""
        try:
            recover_sites(self.settings, self.ending)
        finally:
            self._recovered.set()
        pruned, retried = float("-inf"), time.monotonic()
        while not self.ending.is_set():
            if time.monotonic() - pruned >= _DAY:
                pruned = time.monotonic()
                try:
                    self._ids.prune(utc_now())
                    self._rollouts.prune(utc_now())
                    self._mandates.prune()
                except (IdStoreError, RolloutMemoryError) as error:
                    _log.warning("cannot prune what is remembered of commands: %s", error)
                self._builds.prune()
            if time.monotonic() - retried >= self.settings.reconcile_every:
                retried = time.monotonic()
                self._mirrors.retry_directories()
            self.ending.wait(INTERVAL)
            self._deploys.flush(time.monotonic())
            self._results.flush(time.monotonic())
            self._queries.flush(time.monotonic())

    def _on_event(self, event: Event) -> None:
        match event:
            case Connected():
                # Messages may have been missed while there was no connection.
                self._mirrors.reconcile_soon()
                self._presence.on_connected()
                self._unasked.on_connected()
                self._locks.on_connected()
            case ConnectFailed():
                self._presence.on_refused(self.link.bus.problem)
            case _:
                _log.debug("%s", event)
