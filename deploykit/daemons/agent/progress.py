"""Sends what deploys do while they run: signed `DeployProgressed`, straight on the agent's bus, not persistent.

Rules:

* A deploy never waits for it: listeners only note what happened. A thread of its own signs and sends.
* It never fills the bus: at most `MOST_UNCONFIRMED` events wait for receipts. While they do, others are dropped.
* A broker that refuses events may end the connection over them, and reports share it: after a refusal nothing is sent
  for a while.
* Any event may be lost, and nothing is decided by it. The final report goes through the outbox and has every step.
* What a script printed is the text that the report has, too: neither more secret nor less.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final, Literal, Protocol, Self

import attrs

from deploykit.daemons.agent.progressevents import CommandEvents, ProgressLimits, StepEvent
from deploykit.daemons.service.throttle import LogThrottle
from deploykit.errors import PublishRefused
from deploykit.messages import DeployProgressed, DeployRequested, utc_now
from deploykit.messages.topics import TopicMap, topic_of
from deploykit.names import NodeName
from deploykit.release import StepRecord
from deploykit.trust.signature import BodySigner, sign
from deploykit.wire import Frame
from deploykit.wire.codec import encode_fitted

_log = logging.getLogger(__name__)

#: Events on their way to the broker. Its own reports share the bus with them.
MOST_UNCONFIRMED: Final = 64
#: Seconds until an event that no broker confirmed is given up: late ones are of no use.
_TIMEOUT: Final = 10.0
#: Seconds for which nothing is sent after the broker refused an event, or did not confirm one.
_AFTER_REFUSAL: Final = 600.0
_AFTER_SILENCE: Final = 10.0


class ProgressBus(Protocol):
    """What is needed of a bus."""

    def publish_nowait(
        self, destination: str, frame: Frame, *, timeout: float | None = None, persistent: bool = True
    ) -> Future[None]:
        """Send a message without waiting."""
        ...


class ProgressSender:
    """Sends the progress of a node's deploys. Its methods may be called from any thread, and do not wait.

    Args:
        node: who we are.
        bus: the agent's.
        topics: where progress goes.
        key: the node's own; without one, events go out unsigned and nobody believes them.
        limits: how much one command may say.
        clock, now: monotonic seconds; the wall clock, aware UTC.
    """

    def __init__(
        self,
        node: NodeName,
        bus: ProgressBus,
        topics: TopicMap,
        key: BodySigner | None,
        *,
        limits: ProgressLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._node = node
        self._bus = bus
        self._topics = topics
        self._key = key
        self._limits = limits or ProgressLimits()
        self._clock = clock
        self._now = now
        self._changed = threading.Condition()
        self._commands: list[CommandProgress] = []
        self._unconfirmed = 0
        self._quiet_until = float("-inf")
        self._stopped = False
        self._failed = LogThrottle()

    def command(self, request: DeployRequested) -> CommandProgress:
        """Return what listens to the steps of one command, to be entered while it is carried out."""
        return CommandProgress(self, request, CommandEvents(self._limits), self._changed, self._clock)

    def stop(self) -> None:
        """Have `run` return, once what waits was sent."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def run(self) -> None:
        """Send events as they come, until `stop`."""
        while True:
            with self._changed:
                stopped = self._stopped
                wait = 0.0 if stopped else self._due() - self._clock()
                if wait > 0:
                    self._changed.wait(None if wait == float("inf") else wait)
                taken = [(each, each.take(self._clock(), end=stopped)) for each in self._commands]
                self._commands = [each for each in self._commands if not each.over]
            for command, events in taken:
                for event in events:
                    self._send(command.request, event)
            if stopped:
                return

    def _due(self) -> float:
        return min((each.due for each in self._commands), default=float("inf"))

    def _enter(self, command: CommandProgress) -> None:
        with self._changed:
            self._commands.append(command)

    def _send(self, request: DeployRequested, event: StepEvent) -> None:
        """Sign and send one event. What fails is dropped: the number of the next one shows it."""
        if self._unconfirmed >= MOST_UNCONFIRMED or self._clock() < self._quiet_until:
            return
        message = DeployProgressed(
            source=f"agent/{self._node}",
            time=self._now() - timedelta(seconds=max(0.0, self._clock() - event.at)),
            correlation_id=request.correlation_id or request.id,
            node=self._node,
            site=request.site,
            request=request.id,
            rollout=request.rollout,
            phase=request.phase,
            number=event.number,
            step=event.step,
            state=event.state,
            seconds=event.seconds,
            exit_code=event.exit_code,
            output=event.output,
        )
        try:
            frame = encode_fitted(message)
            if self._key is not None:
                frame = sign(frame, self._key)
            future = self._bus.publish_nowait(
                topic_of(message, self._topics), frame, timeout=_TIMEOUT, persistent=False
            )
            with self._changed:
                self._unconfirmed += 1
            future.add_done_callback(self._confirmed)
        except Exception as error:  # noqa: BLE001 -- a deploy goes on whatever happens to the news of it
            if count := self._failed.add(str(error), time.monotonic()):
                _log.info("%d events of a deploy's progress were not sent: %s", count, error)

    def _confirmed(self, receipt: Future[None]) -> None:
        error = None if receipt.cancelled() else receipt.exception()
        with self._changed:
            self._unconfirmed -= 1
            if error is not None:
                pause = _AFTER_REFUSAL if isinstance(error, PublishRefused) else _AFTER_SILENCE
                self._quiet_until = max(self._quiet_until, self._clock() + pause)
        if isinstance(error, PublishRefused):
            _log.warning("deploys are not shown while they run, for %.0f s: %s", _AFTER_REFUSAL, error)


@attrs.define
class OwnStep:
    """A step that no runner runs, and whether it is done."""

    done: bool = False


class CommandProgress:
    """Listens to the steps of one command: `on_step` and `on_output` are the listeners of a `Runner`."""

    def __init__(
        self,
        sender: ProgressSender,
        request: DeployRequested,
        events: CommandEvents,
        changed: threading.Condition,
        clock: Callable[[], float],
    ) -> None:
        self.request = request
        self._sender = sender
        self._events = events
        self._changed = changed
        self._clock = clock

    def __enter__(self) -> Self:
        self._sender._enter(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with self._changed:
            self._events.end(self._clock())
            self._changed.notify_all()

    def on_step(self, step: str, record: StepRecord | None) -> None:
        """Note that a step began (no record), or ended."""
        with self._changed:
            if record is None:
                self._events.began(step, self._clock())
            else:
                self._events.finished(
                    step, record.outcome, self._clock(), seconds=record.seconds, exit_code=record.exit_code
                )
            self._changed.notify_all()

    def on_output(self, step: str, _stream: str, text: str) -> None:
        """Note what a step printed."""
        with self._changed:
            waited = self._events.due
            self._events.printed(step, text, self._clock())
            if self._events.due < waited:
                self._changed.notify_all()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[OwnStep]:
        """Note the beginning and the end of a step that no runner runs; it is `failed` unless `done` is set."""
        begun = self._clock()
        step = OwnStep()
        self.on_step(name, None)
        try:
            yield step
        finally:
            outcome: Literal["done", "failed"] = "done" if step.done else "failed"
            self.on_step(name, StepRecord(name=name, outcome=outcome, seconds=round(self._clock() - begun, 3)))

    # -- for the sender, under the lock --------------------------------------------------------------------------------

    @property
    def due(self) -> float:
        """When `take` returns something, in monotonic seconds."""
        return float("-inf") if self.over else self._events.due

    @property
    def over(self) -> bool:
        """Whether the command has ended, and all was taken."""
        return self._events.ended and self._events.due == float("inf")

    def take(self, now: float, *, end: bool) -> list[StepEvent]:
        """Return the events to send now; all there are at the end."""
        return self._events.take(float("inf") if end else now)
