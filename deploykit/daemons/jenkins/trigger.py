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
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from deploykit.bus import Ack, Bus, Delivery, Reject, Retry, Subscription, Verdict
from deploykit.daemons.jenkins.ports import BuildServer
from deploykit.daemons.jenkins.queue import BuildQueue
from deploykit.daemons.jenkins.rules import BuildRules, WantedBuild, event_key
from deploykit.daemons.jenkins.worker import BuildWorker
from deploykit.daemons.relay import make_relay, open_outbox
from deploykit.errors import BuildQueueError, MessageError, SettingsError
from deploykit.messages import RefUpdated, RevisionCommitted, one_line
from deploykit.messages.topics import topics_of_class
from deploykit.settings.node import Settings
from deploykit.system.lock import FileLock
from deploykit.wire import CONTENT_TYPE, Frame

_log = logging.getLogger(__name__)

_STOP_SECONDS: Final = 10.0
_DAY: Final = 86400.0
#: Seconds until a message is handed over again that the queue had no room for, and how often: it waits at the broker.
_RETRY_AFTER: Final = 5.0
_TRIES: Final = 1_000_000
_PREFETCH: Final = 64
#: Seconds between two looks at what waits.
_LOOK_EVERY: Final = 1.0


class JenkinsTrigger:
    """Starts builds. Use it as a context manager; it owns threads, no signal handlers.

    Args:
        settings: the node's; its `[jenkins]` has a job at least.
        bus: a started bus to work on, which is neither started nor stopped here; None makes one of its own.
        servers: stand-ins for the build servers of the settings, by name.

    Raises:
        SettingsError: there is no job, or a file with a secret cannot be used.
        OutboxError, BuildQueueError: the spool or the queue cannot be opened.
    """

    def __init__(
        self, settings: Settings, *, bus: Bus | None = None, servers: Mapping[str, BuildServer] | None = None
    ) -> None:
        if not settings.jenkins.jobs:
            raise SettingsError("there is no [[jenkins.jobs]] in the settings", "see docs/jenkins.md for an example")
        self.settings = settings
        self._rules = BuildRules(settings.jenkins)
        self._outbox = open_outbox(settings.outbox)
        self._lock = queue_lock(settings.state)
        self._queue = BuildQueue(queue_path(settings.state))
        made = make_servers(settings) if servers is None else servers
        tokens = {(job.repo, job.job): job.token_file for job in settings.jenkins.jobs if job.token_file is not None}
        self._workers = {
            name: BuildWorker(name, server, self._queue, self._outbox, settings, tokens=tokens)
            for name, server in made.items()
        }
        self._own_bus = bus is None
        self._bus = bus or Bus(settings.broker, client_id=f"deploykit-{settings.node}-jenkins")
        self._relay = make_relay(self._outbox, self._bus, settings.outbox)
        self._subscriptions: list[Subscription] = []
        self._stop = threading.Event()
        self._waiting = 0
        self._problems: tuple[str, ...] = ()
        self._threads = [
            threading.Thread(target=target, args=args, name=f"deploykit-jenkins-{name}", daemon=True)
            for name, target, args in (
                ("relay", self._relay.run, (self._stop,)),
                ("upkeep", self._look_after, ()),
            )
        ]

    # -- life --------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.callback(self._queue.close)
            undo.enter_context(self._lock)
            self._start()
            undo.pop_all()
        return self

    def _start(self) -> None:
        if self._own_bus:
            self._bus.start()
        for worker in self._workers.values():
            worker.start()
        for topic, name in subscriptions_of(self.settings):
            self._subscriptions.append(
                self._bus.subscribe(topic, self.handle, durable=name, prefetch=_PREFETCH, max_attempts=_TRIES)
            )
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        try:
            self._end()
        finally:
            self._lock.__exit__(None, None, None)

    def _end(self) -> None:
        end = time.monotonic() + _STOP_SECONDS
        self._stop.set()
        for worker in self._workers.values():
            worker.stop()
        if self._own_bus:
            self._bus.stop(_STOP_SECONDS)
        else:
            for subscription in self._subscriptions:
                subscription.unsubscribe(timeout=_STOP_SECONDS)
        self._outbox.interrupt()
        for worker in self._workers.values():
            worker.join(end)
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        self._queue.close()

    def wait_connected(self, timeout: float) -> bool:
        """Wait until the bus is connected and subscribed; return whether it is.

        Raises:
            LoginRefused: no broker accepts the credentials.
        """
        return self._bus.wait_connected(timeout)

    @property
    def problems(self) -> tuple[str, ...]:
        """What a person should know: servers that do not answer, and builds for servers that the settings lack."""
        return self._problems

    @property
    def status(self) -> str:
        """One line: how many builds wait, and the problems."""
        waiting = f"{self._waiting} builds wait" if self._waiting else "no build waits"
        return one_line("; ".join((waiting, *self._problems)))

    @property
    def waiting(self) -> int:
        """How many builds wait, as of now."""
        return sum(each.waiting for each in self._queue.backlog().values())

    # -- messages ----------------------------------------------------------------------------------------------------

    def handle(self, delivery: Delivery) -> Verdict:
        """Write the builds of an event into the queue, and acknowledge it. Other messages are acknowledged."""
        try:
            message = delivery.message
        except MessageError as error:
            return Reject(str(error))
        if not isinstance(message, RefUpdated | RevisionCommitted):
            return Ack()
        legacy = not delivery.headers.get("content-type", "").startswith(CONTENT_TYPE)
        plan = self._rules.plan(message, event_key(message, legacy=legacy, sent_id=delivery.id))
        for each in plan.left_out:
            _log.debug("%s: not built: %s%s", message.summary, f"{each.job}: " if each.job else "", each.reason)
        if not plan.builds:
            return Ack()
        # Text without an id gets a new one at each delivery. A copy is known by its bytes, and by the broker's word
        # that it has given them out before.
        nameless = legacy and not delivery.id and isinstance(message, RefUpdated)
        digest = hashlib.sha256(delivery.body).digest() if nameless else None
        try:
            return self._store(plan.builds, delivery, message, digest)
        except BuildQueueError as error:
            _log.error("a push waits at the broker: %s", error)  # noqa: TRY400 - no bug
            return Retry(after=_RETRY_AFTER)

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
            _log.error("%d builds wait: a push is left at the broker", most)
            return Retry(after=_RETRY_AFTER)
        frame = Frame(delivery.headers, delivery.body)
        added = self._queue.add(builds, frame, delivery.destination, now, digest=digest)
        if added:
            _log.info("%s: %d builds to ask for", message.summary, added)
            for name in {build.order.server for build in builds} & self._workers.keys():
                self._workers[name].wake()
        return Ack()

    # -- upkeep ------------------------------------------------------------------------------------------------------

    def _look_after(self) -> None:
        """Keep the status up to date, log problems that are new, and forget old keys once a day."""
        pruned = float("-inf")
        while not self._stop.wait(_LOOK_EVERY):
            try:
                if time.monotonic() - pruned >= _DAY:
                    pruned = time.monotonic()
                    self._queue.prune(time.time() - self.settings.jenkins.remember)
                self._look()
            except BuildQueueError as error:
                self._set_problems((str(error),))
            except Exception:  # noqa: BLE001 -- upkeep goes on
                _log.exception("unforeseen failure in the upkeep")

    def _look(self) -> None:
        backlog = self._queue.backlog()
        self._waiting = sum(each.waiting for each in backlog.values())
        found = [
            worker.problem(backlog[name].waiting if name in backlog else 0) for name, worker in self._workers.items()
        ]
        found += [
            f"{name}: not in [jenkins.servers], {each.waiting} builds wait"
            for name, each in backlog.items()
            if name not in self._workers
        ]
        self._set_problems(tuple(filter(None, found)))

    def _set_problems(self, found: tuple[str, ...]) -> None:
        # Names alone: the minutes in a line are no news.
        known = {problem.partition(",")[0].rpartition(" for ")[0] or problem for problem in self._problems}
        for problem in found:
            if (problem.partition(",")[0].rpartition(" for ")[0] or problem) not in known:
                _log.warning("%s", problem)
        self._problems = found


def subscriptions_of(settings: Settings) -> tuple[tuple[str, str], ...]:
    """Return topic and durable name of each subscription: pushes that came while the daemon was down still build."""
    topics = dict.fromkeys(
        (*topics_of_class(RefUpdated, settings.topics), *topics_of_class(RevisionCommitted, settings.topics))
    )
    return tuple(
        (topic, f"deploykit-{settings.node}-jenkins" + (f"-{number}" if number else ""))
        for number, topic in enumerate(topics)
    )


def queue_path(state: Path) -> Path:
    """Return the file of the builds to ask for."""
    return state / "jenkins.sqlite"


def queue_lock(state: Path) -> FileLock:
    """Return the lock that keeps a second daemon off the same queue."""
    state.mkdir(parents=True, exist_ok=True)
    return FileLock(
        state / "jenkins.lock",
        busy=f"another build daemon works on state directory {state}",
        remedy="stop that one: two of them would ask for every build twice",
        mode=0o644,
    )


def make_servers(settings: Settings) -> Mapping[str, BuildServer]:
    """Return a client for each build server in the settings."""
    raise NotImplementedError


__all__ = ["JenkinsTrigger", "make_servers", "queue_lock", "queue_path", "subscriptions_of"]
