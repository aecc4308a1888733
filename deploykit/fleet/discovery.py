"""Ask nodes what they hold, and collect the answers that can be believed.

Rules:

* The answers' topic is subscribed before the question goes out, so no answer can be missed.
* An answer counts only if a key that may speak for its node signed it, and if it names this very copy of the question.
* Answers are judged as they come, on the bus's thread: what waits is bounded by the bus, not by this process's memory.
* A connection that is lost meanwhile ends the discovery with an error: who was not heard then is not silent.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, TypeGuard

import attrs

from deploykit.bus import Ack, Bus, Delivery, Verdict
from deploykit.bus.events import ConnectionLost, Event
from deploykit.errors import ConnectError, DeploykitError, KeyFileError, MessageError, PolicyRefused
from deploykit.fleet.inventory import Answers, DiscoveryWindow, Inventory, longest
from deploykit.messages import NodeDescribed, NodeQueried, utc_now
from deploykit.messages.topics import TopicMap
from deploykit.names import NodeName
from deploykit.trust.check import Trust
from deploykit.trust.signature import BodySigner, copy_digest, sign
from deploykit.wire import Frame, decode, encode

_log = logging.getLogger(__name__)

#: Seconds within which the broker must confirm the subscription, and the question.
_AT_MOST: Final = 10.0
#: Seconds for which an agent holds back an answer: it answers each asker once a second, and does not drop the others.
HELD_BACK: Final = 1.0
#: Bytes of the longest answer that is looked at; agents keep theirs below 64 KiB.
MAX_ANSWER: Final = 256 * 1024


def discover(
    bus: Bus,
    topics: TopicMap,
    key: BodySigner,
    trust: Trust,
    query: NodeQueried,
    *,
    expected: frozenset[NodeName] | None = None,
    timeout: float = 10.0,
    quiet: float = 0.5,
    on_node: Callable[[NodeDescribed], object] | None = None,
    now: Callable[[], datetime] = utc_now,
) -> Inventory:
    """Ask nodes to describe themselves, and return what they answered.

    Args:
        bus: connected.
        topics: where questions and answers go.
        key: signs the question.
        trust: judges the answers.
        query: what to ask. Where it has no `expires`, it gets the end of this discovery.
        expected: the nodes that should answer: it ends as soon as all have. None: it ends when no new node answers.
        timeout: seconds to wait for the first answer, or for all that are expected.
        quiet: seconds without a new node after which it ends where nobody is expected, a second after it began.
        on_node: called with each node's first answer, on the caller's thread.
        now: the wall clock, aware UTC.

    Raises:
        ConnectError: no broker is connected, or the connection was lost meanwhile.
        BusError: the question was not sent, or the broker did not confirm it.
        KeyFileError: whose answers to believe cannot be found out.
    """
    asked = now()
    expires = query.expires or asked + timedelta(seconds=min(longest(timeout), trust.policy.max_expiry.total_seconds()))
    query = attrs.evolve(query, time=asked, expires=expires)
    frame = sign(encode(query), key)
    hearing = _Hearing(trust, query, frame, Answers(expected), now)
    forget = bus.add_listener(hearing.on_event)
    try:
        subscription = bus.subscribe(topics.inventory, hearing.take, on_failure="drop")
        try:
            if not subscription.wait_active(_AT_MOST):
                raise ConnectError("no broker reachable in time: nobody was asked", "try again")
            bus.publish(topics.node, frame, timeout=_AT_MOST, persistent=False, ttl=longest(timeout))
            window = DiscoveryWindow(
                began=time.monotonic(),
                listed=expected is not None,
                timeout=timeout,
                quiet=quiet,
                held_back=HELD_BACK,
            )
            while True:
                seconds = window.left(time.monotonic(), complete=hearing.complete, backlog=subscription.queued > 0)
                for node in hearing.next_nodes(seconds):
                    window = window.heard(time.monotonic())
                    if on_node is not None:
                        on_node(node)
                if not seconds:
                    return hearing.inventory()
        finally:
            hearing.close()
            subscription.unsubscribe()
    finally:
        forget()


class _Hearing:
    """What the bus's threads and the asking thread share: the answers, and what ends the wait early."""

    def __init__(
        self, trust: Trust, query: NodeQueried, sent: Frame, answers: Answers, now: Callable[[], datetime]
    ) -> None:
        self._trust = trust
        self._query = query
        self._copy = copy_digest(sent)  # once: the question may name a thousand nodes
        self._answers = answers
        self._now = now
        # Other askers' answers pass here too: this tells most of them apart without reading them.
        written = json.dumps(query.id)
        self._mark = query.id.encode() if written == f'"{query.id}"' else b""
        self._changed = threading.Condition()
        self._new: list[NodeDescribed] = []
        self._failure: DeploykitError | None = None
        self._closed = False

    @property
    def complete(self) -> bool:
        """Whether every expected node has answered."""
        with self._changed:
            return self._answers.complete

    def inventory(self) -> Inventory:
        """Return what was collected."""
        with self._changed:
            return self._answers.inventory()

    def next_nodes(self, seconds: float) -> list[NodeDescribed]:
        """Return nodes that answered since the last call, waiting for one at most so long.

        Raises:
            DeploykitError: the connection was lost, or answers cannot be judged.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._new or self._failure is not None, seconds)
            if self._failure is not None:
                raise self._failure
            new, self._new = self._new, []
            return new

    def close(self) -> None:
        """Take no more answers: those that still wait are let pass."""
        with self._changed:
            self._closed = True

    # -- the bus's threads -------------------------------------------------------------------------------------

    def on_event(self, event: Event) -> None:
        """End the wait when the connection is lost: answers that passed meanwhile were not heard."""
        if isinstance(event, ConnectionLost):
            self._fail(ConnectError(f"the connection was lost while nodes answered: {event.reason}", "ask again"))

    def take(self, delivery: Delivery) -> Verdict:
        """Judge one message. Whatever it is, the broker may forget it."""
        if not self._closed and self._mark in delivery.body:
            try:
                self._judge(delivery)
            except KeyFileError as error:
                self._fail(error)
        return Ack()

    def _fail(self, error: DeploykitError) -> None:
        with self._changed:
            if not self._closed and self._failure is None:
                self._failure = error
                self._changed.notify_all()

    def _judge(self, delivery: Delivery) -> None:
        now = self._now()
        try:
            if len(delivery.body) > MAX_ANSWER:
                raise MessageError(f"an answer of {len(delivery.body)} bytes is longer than {MAX_ANSWER}")
            frame = Frame(delivery.headers, delivery.body)
            verified = self._trust.check(frame, now, destination=delivery.destination)
            described = verified.message
            if not self._is_ours(described):
                return
            verified.believe(self._query, now, copy=self._copy)
        except (MessageError, PolicyRefused) as error:
            self._doubt(delivery, str(error))
            return
        with self._changed:
            if self._answers.add(described, len(delivery.body)):
                self._new.append(described)
                self._changed.notify_all()

    def _doubt(self, delivery: Delivery, reason: str) -> None:
        """Note why an answer is not believed, under the name that it claims."""
        try:
            claimed = decode(delivery.headers, delivery.body, delivery.destination)
        except MessageError as error:
            _log.debug("not a message on %s: %s", delivery.destination, error)
            return
        if self._is_ours(claimed):
            with self._changed:
                self._answers.doubt(claimed.node, reason)

    def _is_ours(self, message: object) -> TypeGuard[NodeDescribed]:
        return isinstance(message, NodeDescribed) and message.request == self._query.id


__all__ = ["discover"]
