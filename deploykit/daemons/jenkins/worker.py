"""The worker of one build server: it asks for the builds in the queue, reports them, and follows them to their number.

Rules:

* Two threads a server, one that asks and one that follows: a server that is down or slow holds up no other one.
* `asked` is written before each request, the answer after it, the report after that. Each step is done again where the
  process ended in between: a lost answer is looked for first, a report has the same ids.
* A server that cannot be reached, or takes nothing now, is tried with one build at a time. The others wait untouched.
* A build whose work fails in an unforeseen way is put off, as if its server were down: no other job waits for it.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from deploykit.daemons.jenkins.decisions import (
    NextStep,
    after_failed_look,
    after_follow,
    after_look,
    after_report,
    after_start,
    asked_to_wait,
)
from deploykit.daemons.jenkins.model import FOLLOWED, UNSETTLED, BuildState, QueuedBuild, wait_text
from deploykit.daemons.jenkins.ports import BuildAnswer, BuildOrder, BuildServer, QueueState
from deploykit.daemons.jenkins.queue import Backlog, BuildQueue
from deploykit.daemons.jenkins.reports import report, request_of
from deploykit.daemons.service.threads import ServiceThreads
from deploykit.errors import (
    AuditError,
    BuildQueueError,
    BuildServerError,
    DeploykitError,
    MayNotLook,
    MessageError,
    OutboxError,
)
from deploykit.messages import one_line
from deploykit.names import RepoName
from deploykit.outbox import Outbox
from deploykit.settings.node import Settings
from deploykit.system.backoff import Backoff

_log = logging.getLogger(__name__)

#: Seconds until a step is tried again that the disk had no room for, or that failed in an unforeseen way.
_AGAIN: Final = 5.0
#: Longest sleep without a look at the queue: a clock may have been set meanwhile.
_LONGEST_SLEEP: Final = 10.0
#: Seconds by which a clock that was set differs from one that goes a little wrong.
_CLOCK_STEP: Final = 5.0
#: Seconds for which a server's failure is nothing that a person must know.
_SHORT: Final = 60.0
#: Seconds between two log lines about a server that still does not answer.
_LOG_AGAIN: Final = 3600.0


@attrs.frozen(kw_only=True, slots=True)
class ServerHealth:
    """Whether a server answers. `since` is the monotonic time of the first failure; 0: it answers.

    `down`: its builds wait only for it to answer; `busy`: it answers, and takes no builds now. `logged` is the
    monotonic time of the last log line about a failure that lasts.
    """

    down: bool = False
    busy: bool = False
    failures: int = 0
    since: float = 0.0
    paused_until: float = 0.0
    problem: str = ""
    logged: float = float("-inf")


class BuildWorker:
    """Works the builds of one server off. `start` and `stop` it, or call `step` yourself.

    Args:
        name: the server's, as in the settings.
        server: the server.
        queue: where the builds are.
        outbox: where reports go.
        settings: the node's.
        tokens: (repository, job) -> the file with the job's own token.
        wall: seconds since 1970.
        clock: monotonic seconds.
        chance: 0 to 1, spreads the pauses.
        on_ask: called with each build before it is asked for the first time; may raise `AuditError`: it is not then.
        on_answer: called with each build that has its server's answer, before that is reported.
    """

    def __init__(
        self,
        name: str,
        server: BuildServer,
        queue: BuildQueue,
        outbox: Outbox,
        settings: Settings,
        *,
        tokens: Mapping[tuple[RepoName, str], Path] | None = None,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        on_ask: Callable[[QueuedBuild], None] = lambda _: None,
        on_answer: Callable[[QueuedBuild], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.health = ServerHealth()
        #: Answers that were reported since the start, and whether nothing can be done just now.
        self.reports = 0
        self.idle = False
        self._server = server
        self._queue = queue
        self._outbox = outbox
        self._settings = settings
        self._patience = settings.jenkins
        self._deadline = settings.jenkins.servers[name].timeout
        self._tokens = dict(tokens or {})
        self._wall = wall
        self._clock = clock
        self._chance = chance
        self._on_ask = on_ask
        self._on_answer = on_answer
        self._announced = ""
        self._offset = wall() - clock()
        self._pauses = Backoff(initial=1.0, maximum=self._patience.pause_max, low=0.5)
        self._stop = threading.Event()
        self._wakes = [threading.Event(), threading.Event()]
        roles: tuple[tuple[str, Sequence[BuildState], threading.Event], ...] = (
            ("asks", UNSETTLED, self._wakes[0]),
            ("follows", FOLLOWED, self._wakes[1]),
        )
        self.threads = ServiceThreads()
        for role, states, wake in roles:
            self.threads.add(f"jenkins-{name}-{role}", partial(self._run, states, wake))

    # -- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the threads. What waits is due at once."""
        try:
            self._queue.hurry(self.name, ("waiting", "asked"))
        except BuildQueueError as error:  # a full disk: then they are due at their times
            _log.error("%s: %s", self.name, error)
        self.threads.start()

    def wake(self) -> None:
        """Look at the queue now: something was added."""
        self.idle = False
        for event in self._wakes:
            event.set()

    def stop(self) -> None:
        """Begin nothing more. What is on its way is found again at the next start."""
        self._stop.set()
        self.wake()

    def join(self, end: float) -> None:
        """Wait for the threads until `end` (monotonic)."""
        self.threads.join(end)

    def _run(self, states: Sequence[BuildState], wake: threading.Event) -> None:
        problem = ""
        while not self._stop.is_set():
            wake.clear()
            try:
                sleep = self.step(states)
                problem = ""
                if states is UNSETTLED:
                    self.idle = sleep > 0
            except (AuditError, BuildQueueError, OutboxError) as error:
                if str(error) != problem:
                    _log.error("%s: cannot go on, retrying: %s", self.name, error)
                problem, sleep = str(error), _AGAIN
            except Exception:  # noqa: BLE001 -- a bug with one build must not end the work for all
                _log.exception("%s: unforeseen failure, retrying", self.name)
                sleep = _AGAIN
            if sleep:
                wake.wait(sleep)

    # -- one step ----------------------------------------------------------------------------------------------------

    def step(self, states: Sequence[BuildState] = UNSETTLED) -> float:
        """Do what is due for one build in one of these states; return the seconds until something may be due.

        Raises:
            AuditError, BuildQueueError, OutboxError: there is no room on the disk. Nothing is lost; try again.
        """
        paused = self.health.paused_until - self._clock()
        if paused > 0 and states == UNSETTLED:
            states = ("answered",)  # a report needs no server
        now = self._wall()
        if states is not FOLLOWED:
            self._watch_clock(now)
        build = self._queue.next(self.name, states, now)
        if build is None:
            return self._rest(states, paused, now)
        match build.state:
            case "answered" | "followed":
                self._guarded(build, self._report)
            case "queued":
                self._guarded(build, self._follow)
            case _:
                self._guarded(build, self._ask)
        return 0.0

    def _guarded(self, build: QueuedBuild, work: Callable[[QueuedBuild], None]) -> None:
        """Do one build's work. One that fails in an unforeseen way is put off: no other waits for it."""
        try:
            work(build)
        except (AuditError, BuildQueueError, OutboxError):
            raise
        except Exception as error:  # noqa: BLE001 -- a bug with one build must not hold up the others
            _log.exception("%s: unforeseen failure, retrying", build.label)
            now = self._queue.get(build.wanted.key)
            if now is None:
                return
            problem = f"unforeseen failure: {type(error).__name__}; see the log of the build daemon"
            step = after_failed_look(now, problem, self._patience, self._wall(), self._chance())
            if step.answer is not None and now.state in ("waiting", "asked"):
                self._take(now, step)
            else:
                self._queue.postpone(now.wanted.key, now.state, step.due, problem, unanswered=now.asks)

    def _watch_clock(self, now: float) -> None:
        """Notice that the clock was set: what waits is to wait neither longer for it nor shorter."""
        offset = now - self._clock()
        if abs(offset - self._offset) > _CLOCK_STEP:
            _log.warning("%s: the clock was set by %.0f seconds", self.name, offset - self._offset)
            self._queue.clock_was_set(self.name, offset - self._offset)
        self._offset = offset

    def _rest(self, states: Sequence[BuildState], paused: float, now: float) -> float:
        due = self._queue.next_due(self.name, states, now)
        rest = _LONGEST_SLEEP if due is None else min(_LONGEST_SLEEP, max(0.05, due - now))
        return min(rest, paused) if paused > 0 else rest

    def _ask(self, build: QueuedBuild) -> None:
        """Ask for a build, once the server was searched for it where an earlier request had no answer."""
        order = self._order(build)
        doubtful = False
        if build.state == "asked":
            step, doubtful = self._look(build, order)
            if step is not None:
                self._take(build, step)
                return
        self._announced = ""
        if not build.tries and not build.asks:
            self._on_ask(build)
        self._queue.asking(build.wanted.key, self._wall(), doubtful=doubtful)
        answer = self._start(build, order)
        if answer.kind in ("busy", "unreachable", "unanswered"):
            busy, wait = answer.kind == "busy", asked_to_wait(answer)
            self._failed(answer.detail, down=answer.kind != "unanswered", busy=busy, wait=wait)
        else:
            self._answers()
        self._take(build, after_start(build, answer, self._patience, self._wall(), self._chance()))

    def _look(self, build: QueuedBuild, order: BuildOrder) -> tuple[NextStep | None, bool]:
        """Search the server for a build. Return what is next (None: ask again), and whether it may be there unseen."""
        blind, found = "", None
        try:
            found = self._server.find(order, deadline=self._deadline)
        except MayNotLook as error:
            blind = str(error)
        except BuildServerError as error:
            self._failed(str(error))
            return after_failed_look(build, str(error), self._patience, self._wall(), self._chance()), False
        except Exception as error:  # noqa: BLE001 -- a bug with one build must not hold up the others
            _log.exception("%s: unforeseen failure", build.label)
            blind = f"unforeseen failure: {type(error).__name__}"
        self._answers()
        step = after_look(build, found, self._patience, self._wall(), blind=blind)
        if step is None and blind:
            _log.warning("%s: asked again, perhaps twice: %s", build.label, blind)
        return step, bool(blind)

    def _start(self, build: QueuedBuild, order: BuildOrder) -> BuildAnswer:
        """Ask the server. A branch that a multibranch project does not know yet makes it look for branches."""
        try:
            answer = self._server.start(order, deadline=self._deadline)
            if answer.kind != "missing" or order.job == build.wanted.job:
                return answer
            scan = attrs.evolve(order, job=build.wanted.job, parameters={})
            return self._server.start(scan, deadline=self._deadline)
        except DeploykitError as error:  # a secret that cannot be read: nothing was sent
            return BuildAnswer(kind="unreachable", detail=str(error), retry=True)
        except Exception as error:  # noqa: BLE001 -- a bug with one build must not hold up the others
            _log.exception("%s: unforeseen failure", build.label)
            return BuildAnswer(kind="unanswered", detail=f"unforeseen failure: {type(error).__name__}", retry=True)

    def _take(self, build: QueuedBuild, step: NextStep) -> None:
        """Write what is next for a build; report it at once where there is an answer."""
        key = build.wanted.key
        if step.answer is None:
            if step.state in ("waiting", "asked"):
                # One line for a server that is down, not one for each build.
                level = logging.WARNING if build.tries == 0 and not self.health.failures else logging.DEBUG
                _log.log(level, "%s: waits: %s", build.label, step.problem)
                self._queue.postpone(key, step.state, step.due, step.problem, unanswered=step.unanswered)
            else:
                self._queue.postpone(key, step.state, step.due, "", unanswered=build.asks)
            return
        now = self._wall()
        self._queue.answered(key, step.state, step.answer, now)
        written = self._queue.get(key)
        if written is not None:
            self._report(written)

    def _report(self, build: QueuedBuild) -> None:
        """Put the report of an answer into the outbox, and write that it is there."""
        if build.state == "answered" and build.wanted.key != self._announced:
            self._on_answer(build)
            self._announced = build.wanted.key  # not again while the outbox has no room
        node, topics = self._settings.node, self._settings.topics
        frame = self._queue.frame_of(build.wanted.key)
        dead_letter = self._settings.broker.dead_letter
        try:
            legacy = self._settings.legacy
            items = report(build, node, topics, dead_letter=dead_letter, frame=frame, legacy=legacy)
        except MessageError as error:  # it would fail each time; the build itself was asked for
            _log.error("%s: cannot be reported: %s", build.label, error)
        else:
            self._outbox.put_many(items)
        event = request_of(build, node)
        level = logging.INFO if build.answer is not None and build.answer.accepted else logging.ERROR
        _log.log(level, "%s: %s", self.name, event.summary)
        self.reports += build.state == "answered"
        step = after_report(build, self._patience, self._wall())
        self._queue.reported(build.wanted.key, step.state, step.due)
        self._wakes[1].set()

    def _follow(self, build: QueuedBuild) -> None:
        item = build.answer.queue_item if build.answer is not None else None
        if item is None:
            self._queue.reported(build.wanted.key, "done")
            return
        try:
            state = self._server.follow(item, order=self._order(build), deadline=self._deadline)
        except Exception as error:  # noqa: BLE001 -- tried again for as long as a build is followed
            _log.exception("%s: unforeseen failure", build.label)
            state = QueueState(kind="unreachable", why=f"unforeseen failure: {type(error).__name__}")
        step = after_follow(build, state, self._patience, self._wall())
        if step.state == "done":
            self._queue.reported(build.wanted.key, "done")
        else:
            self._take(build, step)

    def _order(self, build: QueuedBuild) -> BuildOrder:
        token = self._tokens.get((build.wanted.repo, build.wanted.job))
        return attrs.evolve(build.wanted.order, token_file=token, since=build.asked)

    # -- the server's health -----------------------------------------------------------------------------------------

    def _failed(self, problem: str, *, down: bool = False, busy: bool = False, wait: float = 0.0) -> None:
        failures = self.health.failures + 1
        now = self._clock()
        if failures == 1:
            what = "takes no builds now, they wait" if busy else "does not answer, its builds wait"
            _log.warning("%s: %s: %s", self.name, what, problem)
        pause = max(wait, self._pauses.pause(failures, self._chance()))
        since = self.health.since or now
        down = down or self.health.down
        self.health = attrs.evolve(
            self.health, down=down, busy=busy, failures=failures, since=since, paused_until=now + pause, problem=problem
        )
        if now - since >= _SHORT and now >= self.health.logged + _LOG_AGAIN:
            self.health = attrs.evolve(self.health, logged=now)
            _log.warning("%s", self.problem(self._queue.backlog().get(self.name, Backlog()).waiting))

    def _answers(self) -> None:
        before, self.health = self.health, ServerHealth()
        if before.failures:
            _log.info("%s: goes on", self.name)
        if before.down:
            self._queue.hurry(self.name)

    def problem(self, waiting: int) -> str:
        """Return what a person should know of this server; empty where it answers, or has failed a short while only."""
        health = self.health
        seconds = self._clock() - health.since
        if not health.failures or seconds < _SHORT:
            return ""
        minutes = round(seconds / 60)
        long = f"{minutes} minute{'s'[: minutes != 1]}" if minutes < 120 else f"{minutes // 60} hours"
        what = "takes no builds" if health.busy else "not reachable"
        return one_line(f"{self.name}: {what} for {long}, {wait_text(waiting)}: {health.problem}")


__all__ = ["BuildWorker", "ServerHealth"]
