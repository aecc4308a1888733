"""The agent's answers to questions: which nodes are there, and what do they hold?

    Trust.check -> authorize -> wait for the asker's second -> describe -> sign -> straight onto the bus

Rules:

* Only a signed question that a grant allows is answered, once; and one of each asker in a second (`questionqueue.py`).
* A question is no command: no id is claimed, nothing is stored, and an answer that is lost is asked for again.
* An unsigned message costs no file, no record and no answer. A copy that was just seen costs a hash.
* An answer is not persistent and skips the outbox: an hour later it would be wrong.
* A question that has expired when its turn comes is not answered.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from deploykit.bus import Ack, Bus, Delivery, Verdict
from deploykit.daemons.agent.description import NodeDescriber
from deploykit.daemons.agent.question_audit import QuestionAudit
from deploykit.daemons.agent.questionqueue import AcceptedQuestion, QuestionQueue
from deploykit.daemons.service.link import BusLink
from deploykit.daemons.service.metrics import Metrics
from deploykit.errors import (
    BusError,
    DeploykitError,
    KeyFileError,
    MessageError,
    NotAddressed,
    PolicyRefused,
    SignatureError,
)
from deploykit.messages import NodeDescribed, NodeQueried, utc_now
from deploykit.messages.topics import TopicMap, topic_of
from deploykit.trust.check import Trust, Verified
from deploykit.trust.signature import HEADER, BodySigner, copy_digest, sign
from deploykit.wire import Frame, encode

_log = logging.getLogger(__name__)

#: Seconds after which an answer that no broker took is dropped.
_PUBLISH_WITHIN: Final = 10.0


def publish_description(bus: Bus, topics: TopicMap, key: BodySigner, described: NodeDescribed) -> None:
    """Sign a description and send it, without waiting for a broker.

    Raises:
        BusError: there is no connection, or no room.
        MessageError: it holds what no reader would accept.
    """
    frame = sign(encode(described), key)
    bus.publish_nowait(topic_of(described, topics), frame, timeout=_PUBLISH_WITHIN, persistent=False)


class QueryHandler:
    """Answers `NodeQueried` for one node. Use it from any thread.

    Args:
        topics: where questions come from and answers go.
        describer: knows the answers.
        key: the node's own; without one nothing is answered: nobody would believe it.
        trust: judges the questions.
        audit: where refusals are recorded.
        others: takes genuine messages for this node that are no `NodeQueried`.
        metrics: counts the questions.
        now: the wall clock, aware UTC.
    """

    def __init__(
        self,
        topics: TopicMap,
        describer: NodeDescriber,
        key: BodySigner | None,
        trust: Trust,
        audit: QuestionAudit,
        *,
        others: Callable[[Verified], None] = lambda _: None,
        metrics: Metrics | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._topics = topics
        self._describer = describer
        self._key = key
        self._trust = trust
        self._audit = audit
        self._others = others
        self._metrics = metrics or Metrics()
        self._now = now
        self._queue = QuestionQueue()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._bus: Bus | None = None

    def listen(self, link: BusLink) -> None:
        """Subscribe to the questions, not durably: nobody waits for the answers to those of an hour ago."""
        self._bus = link.bus
        if self._key is not None:
            link.subscribe(self._topics.node, self.handle, prefetch=16, on_failure="drop")

    def handle(self, delivery: Delivery) -> Verdict:
        """Judge one delivery; a question that is to be answered waits for `run`. Every delivery is acknowledged."""
        frame = Frame(delivery.headers, delivery.body)
        if HEADER in frame.headers and self._was_just_seen(frame):
            self._metrics.question_decided("repeated")
            return Ack()
        now = self._now()
        try:
            asked = self._trust.check(frame, now, destination=delivery.destination)
        except NotAddressed:
            return Ack()
        except (MessageError, KeyFileError) as error:
            self._refuse(error)
            return Ack()
        question = asked.message
        if not isinstance(question, NodeQueried):
            self._others(asked)
            return Ack()
        try:
            asked.authorize(now)
        except PolicyRefused as error:
            self._metrics.question_decided("denied")
            if self._audit.denied(question, asked, str(error)):
                _log.warning("not answered: %s: %s", asked.signer, error)
            return Ack()
        with self._lock:
            accepted = AcceptedQuestion(question=question, asked=asked)
            outcome = self._queue.offer(accepted, time.monotonic())
        if outcome == "waits":
            self._wake.set()
        else:
            self._metrics.question_decided("repeated" if outcome == "repeated" else "dropped")
        return Ack()

    def run(self, stop: threading.Event) -> None:
        """Answer what waits, until `stop` is set and `wake` was called."""
        while not stop.is_set():
            now = time.monotonic()
            with self._lock:
                accepted = self._queue.take(now)
                pause = self._queue.wait(now)
            if accepted is not None:
                self._answer(accepted)
            else:
                self._wake.wait(None if pause == float("inf") else pause)
                self._wake.clear()

    def wake(self) -> None:
        """Have `run` look at `stop`."""
        self._wake.set()

    def flush(self, now: float) -> None:
        """Record what was refused since the last record; `now` in monotonic seconds, infinite at the end."""
        self._audit.flush(now)

    def _was_just_seen(self, frame: Frame) -> bool:
        """Return whether an unverified frame claims to be a question that was accepted: a copy, or not worth a look."""
        try:
            copy = copy_digest(frame)
        except SignatureError:
            return False
        with self._lock:
            return self._queue.knows(copy, time.monotonic())

    def _refuse(self, problem: DeploykitError) -> None:
        self._metrics.question_decided("unverified")
        if count := self._audit.unverified(str(problem)):
            _log.warning(
                "not answered: %d messages that are unsigned, untrusted or unreadable; the last one: %s", count, problem
            )

    def _answer(self, accepted: AcceptedQuestion) -> None:
        question, asked = accepted.question, accepted.asked
        if question.expires is not None and self._now() - question.expires > asked.policy.skew:
            self._metrics.question_decided("expired")
            return
        if self._bus is None or self._key is None:
            return
        try:
            described = self._describer.answer(
                question,
                asked.copy,
                visible=lambda site: asked.policy.may_ask_about(question, asked.signer, site),
            )
            with contextlib.suppress(BusError):  # the asker asks again
                publish_description(self._bus, self._topics, self._key, described)
                self._metrics.question_decided("answered")
        except Exception:  # noqa: BLE001 -- one question that cannot be answered must not end the answers to others
            _log.exception("cannot answer a question: %s", question.summary)
