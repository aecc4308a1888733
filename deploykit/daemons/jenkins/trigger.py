"""The build daemon: pushes and revisions from the bus, builds at the build servers.

    RefUpdated -> rules -> queue (one durable write) -> Ack
    queue -> worker of the server: POST -> answer -> BuildRequested into the outbox -> follow to the number

Rules:

* A message is acknowledged when its builds are in the queue, or when it starts none. No server is asked before that.
* What was acknowledged is asked for, now or after a restart, or it is reported as given up.
* One daemon a fleet: two of them, on two nodes, would each ask for every build.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Final

from deploykit.audit import open_audit
from deploykit.audit.record import AuditEntry, Decision
from deploykit.bus import Ack, Bus, Delivery, Reject, Retry, Verdict
from deploykit.daemons.jenkins.model import QueuedBuild, builds_text, wait_text
from deploykit.daemons.jenkins.ports import BuildServer
from deploykit.daemons.jenkins.queue import Backlog, BuildQueue
from deploykit.daemons.jenkins.rules import BuildRules, WantedBuild, event_key_of
from deploykit.daemons.jenkins.setup import check_secrets, make_servers, queue_lock, queue_path, subscriptions_of
from deploykit.daemons.jenkins.worker import BuildWorker
from deploykit.daemons.relay import make_relay, open_outbox
from deploykit.daemons.service.auditing import AuditWriter
from deploykit.daemons.service.metrics import Metrics
from deploykit.daemons.service.service import STOP_SECONDS, Service
from deploykit.daemons.service.throttle import LogThrottle
from deploykit.errors import BuildQueueError, MessageError, ServiceFailed, SettingsError
from deploykit.messages import RefUpdated, RevisionCommitted, utc_now
from deploykit.settings.node import Settings
from deploykit.wire import Frame

_log = logging.getLogger(__name__)

_DAY: Final = 86400.0
#: Seconds until a message is handed over again that the queue had no room for, and how often: it waits at the broker.
_RETRY_AFTER: Final = 5.0
_TRIES: Final = 1_000_000
#: How often a message is tried that fails in an unforeseen way, before it is given up.
_BUG_TRIES: Final = 5
_PREFETCH: Final = 64
#: Seconds between two looks at what waits.
_LOOK_EVERY: Final = 1.0
#: Seconds between two looks at the outbox.
_LOOK_OFTEN: Final = 0.05


class JenkinsTrigger(Service):
    """Starts builds. Use it as a context manager; it owns threads, no signal handlers.

    Args:
        settings: the node's; its `[jenkins]` has a job at least.
        bus: a started bus that it shares; None: it makes its own.
        servers: stand-ins for the build servers of the settings, by name.
        metrics: counts messages and builds.

    Raises:
        SettingsError: there is no job, or a file with a secret cannot be used.
        OutboxError, BuildQueueError, AuditError: the spool, the queue or the audit log cannot be opened.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        bus: Bus | None = None,
        servers: Mapping[str, BuildServer] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        if not settings.jenkins.jobs:
            raise SettingsError("there is no [[jenkins.jobs]] in the settings", "see docs/jenkins.md for an example")
        name, client_id = f"jenkins on {settings.node}", f"deploykit-{settings.node}-jenkins"
        super().__init__(name, settings.broker, bus=bus, client_id=client_id, metrics=metrics)
        self.settings = settings
        check_secrets(settings.jenkins)
        self._rules = BuildRules(settings.jenkins)
        self._outbox = open_outbox(settings.outbox)
        self._lock = queue_lock(settings.state)
        self._queue = BuildQueue(queue_path(settings.state))
        self._queue.close()  # it can be opened; the previous daemon may still use it
        log = open_audit(settings, on_record=self.metrics.audit_recorded)
        made = make_servers(settings) if servers is None else servers
        tokens = {(job.repo, job.job): job.token_file for job in settings.jenkins.jobs if job.token_file is not None}
        self._workers = {
            name: BuildWorker(
                name,
                server,
                self._queue,
                self._outbox,
                settings,
                tokens=tokens,
                on_ask=self._on_ask,
                on_answer=self._on_answer,
            )
            for name, server in made.items()
        }
        self._audit = AuditWriter(log, f"jenkins/{settings.node}", utc_now)
        self._relay = make_relay(self._outbox, self.link.bus, settings.outbox)
        self._backlog: Mapping[str, Backlog] = {}
        self._failure = ""
        self._left, self._left_at, self._throttle = "", float("-inf"), LogThrottle()
        self._subscribed, self._heard = False, time.monotonic()
        self.threads.add("jenkins-relay", partial(self._relay.run, self.ending))
        self.threads.add("jenkins-upkeep", self._look_after)

    # -- life --------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        with ExitStack() as undo:
            undo.enter_context(self._lock)
            undo.callback(self._queue.close)
            undo.callback(self.link.stop, 0)
            undo.callback(self._stop_workers, 0.0)
            self._backlog = self._queue.backlog()
            self.metrics.expect(
                "jenkins",
                repositories={job.repo for job in self.settings.jenkins.jobs},
                counters=("builds_requested_total", "audit_records_total"),
            )
            handle = self.metrics.counted(self.handle)
            for worker in self._workers.values():
                worker.start()
            self.link.start()
            self.watch_outbox(self._outbox.path)
            for topic, name in subscriptions_of(self.settings):
                self.link.subscribe(topic, handle, durable=name, prefetch=_PREFETCH, max_attempts=_TRIES)
            self.threads.start()
            undo.pop_all()

    def _end(self) -> None:
        end = time.monotonic() + STOP_SECONDS
        try:
            for worker in self._workers.values():
                worker.stop()
            super()._end()
            self._stop_workers(end)
            self._audit.flush(float("inf"))
            self._queue.close()
        finally:
            self._lock.__exit__(None, None, None)

    def _stop_workers(self, end: float) -> None:
        """End the workers, until `end` (monotonic). A request still on its way is looked for at the next start."""
        for worker in self._workers.values():
            worker.stop()
        for worker in self._workers.values():
            worker.join(end)

    def check(self) -> None:
        """Make sure that it can still do its work; see `Service.check`."""
        super().check()
        for name, worker in self._workers.items():
            if worker.threads.error is not None:
                raise ServiceFailed(f"the worker of build server {name} has failed: {worker.threads.error[1]}")

    @property
    def waiting(self) -> int:
        """How many builds wait to be accepted by their server."""
        return sum(each.waiting for each in self._queue.backlog().values())

    def wait_connected(self, timeout: float) -> bool:
        """Wait until the bus is connected and subscribed; see `Service.wait_connected`."""
        connected = super().wait_connected(timeout)
        if connected and not self._subscribed:
            self._subscribed, self._heard = True, time.monotonic()
        return connected

    def idle(self, seconds: float) -> bool:
        """Return whether no message came for so long, and nothing is due now that can be done."""
        quiet = self._subscribed and time.monotonic() - self._heard >= seconds
        return quiet and all(worker.idle for worker in self._workers.values())

    @property
    def asked(self) -> int:
        """How many builds got their server's answer since the start."""
        return sum(worker.reports for worker in self._workers.values())

    def wait_sent(self, end: float) -> None:
        """Wait until the outbox is empty, until `end` (monotonic)."""
        while time.monotonic() < end and next(self._outbox.pending(), None) is not None:
            time.sleep(_LOOK_OFTEN)

    @property
    def status(self) -> str:
        """Whether it is connected, and how many builds wait."""
        waiting = sum(each.waiting for each in self._backlog.values())
        return f"{super().status}; {wait_text(waiting)}" if waiting else super().status

    @property
    def problems(self) -> tuple[str, ...]:
        """Servers that do not answer, and builds for servers that are not in the settings any more."""
        backlog = self._backlog
        found = list(self.blocking)
        found += [worker.problem(backlog.get(name, Backlog()).waiting) for name, worker in self._workers.items()]
        found += [
            f"{name}: not in [jenkins.servers], {wait_text(each.waiting)} for it"
            for name, each in backlog.items()
            if name not in self._workers
        ]
        return tuple(filter(None, found))

    @property
    def blocking(self) -> tuple[str, ...]:
        """A queue that cannot be used, or is full. A server that does not answer keeps its own builds waiting only."""
        left = self._left if time.monotonic() - self._left_at < 2 * _RETRY_AFTER else ""
        return tuple(filter(None, (self._failure, left)))

    # -- messages ----------------------------------------------------------------------------------------------------

    def handle(self, delivery: Delivery) -> Verdict:
        """Write the builds of an event into the queue, and acknowledge it. Other messages are acknowledged."""
        self._heard = time.monotonic()
        try:
            message = delivery.message
        except MessageError as error:
            return Reject(str(error))
        if not isinstance(message, RefUpdated | RevisionCommitted):
            return Ack()
        try:
            return self._plan_and_store(message, delivery)
        except BuildQueueError as error:
            return self._left_at_the_broker(str(error))
        except Exception as error:
            if delivery.attempt < _BUG_TRIES:
                raise
            _log.exception("given up: %s", message.summary)
            return Reject(f"unforeseen failure: {type(error).__name__}; see the log of the build daemon")

    def _plan_and_store(self, message: RefUpdated | RevisionCommitted, delivery: Delivery) -> Verdict:
        """Write the builds of a push or revision into the queue.

        Raises:
            BuildQueueError: nothing was written.
        """
        plan = self._rules.plan(message, event_key_of(message, delivery.headers))
        for each in plan.left_out:
            _log.debug("%s: not built: %s%s", message.summary, f"{each.job}: " if each.job else "", each.reason)
        if not plan.builds:
            return Ack()
        # Text without an id gets a new one at each delivery. A copy is known by its bytes, and by the broker's word
        # that it has given them out before.
        nameless = not delivery.id and isinstance(message, RefUpdated)
        digest = hashlib.sha256(delivery.body).digest() if nameless else None
        try:
            return self._store(plan.builds, delivery, message, digest)
        except BuildQueueError as error:
            return self._left_at_the_broker(str(error))

    def _store(
        self,
        builds: tuple[WantedBuild, ...],
        delivery: Delivery,
        message: RefUpdated | RevisionCommitted,
        digest: bytes | None,
    ) -> Verdict:
        """Write builds into the queue, unless it is full, and wake their workers."""
        now = time.time()
        if digest is not None and delivery.redelivered and self._queue.knows(digest, now - _DAY):
            return Ack()
        most = self.settings.jenkins.most_waiting
        if self._queue.is_full(most):
            return self._left_at_the_broker(f"{most} builds wait, as many as most_waiting allows")
        frame = Frame(delivery.headers, delivery.body)
        added = self._queue.add(builds, frame, delivery.destination, now, digest=digest)
        self._left_at = float("-inf")
        if added:
            _log.info("%s: %s to ask for", message.summary, builds_text(added))
            for name in {build.order.server for build in builds} & self._workers.keys():
                self._workers[name].wake()
        return Ack()

    def _left_at_the_broker(self, why: str) -> Retry:
        """Leave a message at the broker for now; say so once a minute, and in the status for as long as it is so."""
        now = time.monotonic()
        self._left, self._left_at = f"pushes wait at the broker: {why}", now
        if self._throttle.add(why, now):
            _log.error("%s", self._left)
        return Retry(after=_RETRY_AFTER)

    # -- decisions ---------------------------------------------------------------------------------------------------

    def _on_ask(self, build: QueuedBuild) -> None:
        """Record that a build is about to be asked for.

        Raises:
            AuditError: it is not recorded. The build waits.
        """
        self._audit.require(_entry("build", "allowed", build, "to be asked for, as [[jenkins.jobs]] says"))

    def _on_answer(self, build: QueuedBuild) -> None:
        """Record what the server decided, now or later; count it."""
        answer = build.answer
        if answer is None:
            return
        decision: Decision = "allowed" if answer.accepted else "denied"
        self._audit.write(_entry("build.answer", decision, build, answer.detail, answer=answer.kind))
        self.metrics.build_requested(build.wanted.repo, answer.kind)

    # -- upkeep ------------------------------------------------------------------------------------------------------

    def _look_after(self) -> None:
        """Keep the numbers of the status up to date, and forget old keys once a day."""
        pruned = float("-inf")
        while not self.ending.wait(_LOOK_EVERY):
            try:
                if time.monotonic() - pruned >= _DAY:
                    pruned = time.monotonic()
                    self._queue.prune(time.time() - self.settings.jenkins.remember)
                self._backlog = self._queue.backlog()
                self._failure = ""
                self._audit.flush(time.monotonic())
            except BuildQueueError as error:
                if not self._failure:
                    _log.error("%s", error)
                self._failure = str(error)


def _entry(action: str, decision: Decision, build: QueuedBuild, reason: str, **more: str) -> AuditEntry:
    wanted = build.wanted
    return AuditEntry(
        actor="unverified",  # no push is signed
        action=action,
        target=f"{wanted.order.server}/{wanted.order.job}",
        decision=decision,
        reason=reason,
        request=wanted.key,
        correlation_id=wanted.order.correlation_id,
        details={"event": wanted.subject, "source": wanted.source, "pusher": wanted.pusher, **more},
    )


__all__ = ["JenkinsTrigger"]
