"""Where messages go in the embedded broker: queues, topics, durable subscriptions, dead letters, expiry. No I/O.

The rules for messages in the embedded dialect:

* `/queue/NAME`: each message goes to one of the competing subscriptions. `/topic/NAME`: to each subscription there is.
* A topic subscription with a durable name is a queue of its own, known by that name and its topic; several connections
  may subscribe to it and then compete. It is filled also while no client is connected.
* A rejected message (NACK) goes to `/queue/DLQ.NAME` with `original-destination`, `dead-letter-reason` and
  `dead-letter-deliveries`; with `requeue:true` it goes back to its place. A rejected dead letter is dropped, and a dead
  letter queue that is full drops its oldest.
* `persistent:true` on SEND makes a message outlive the process (with a data directory); anything else is in memory.
* An expired message is dropped.
* A non-durable topic subscription whose queue is full is ended with ERROR: it would lose messages.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

from attrs import evolve

from deploykit.broker.fault_state import FaultState
from deploykit.broker.frames import StompFrame
from deploykit.broker.state import (
    Add,
    Bind,
    BrokerLimits,
    BrokerSubscription,
    Count,
    JournalEntry,
    Queue,
    QueueEntry,
    Remove,
    Session,
    StoredMessage,
    Unbind,
)

QUEUE: Final = "/queue/"
TOPIC: Final = "/topic/"
DEAD_LETTERS: Final = "/queue/DLQ."


class RefusedError(Exception):
    """A frame is answered with ERROR. `message` goes into the header, `detail` into the body."""

    def __init__(self, message: str, detail: str = "", **headers: str) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.headers = headers


def durable_key(name: str, destination: str) -> str:
    """Return the key of a durable subscription's queue; no destination starts like it."""
    return f"durable {len(name)} {name} {destination}"


def dead_letter_queue(destination: str) -> str:
    """Return where rejected messages of `destination` go.

    >>> dead_letter_queue("/topic/builds")
    '/queue/DLQ.builds'
    """
    return DEAD_LETTERS + destination.removeprefix(QUEUE).removeprefix(TOPIC)


class Router:
    """All queues, and what moves between them. `journal` holds what must be on disk before any output is sent."""

    def __init__(
        self, *, limits: BrokerLimits, faults: FaultState, keep: bool, epoch: str, first_seq: int, record: int
    ) -> None:
        self.limits = limits
        self.faults = faults
        self.queues: dict[str, Queue] = {}
        self.topics: dict[str, dict[str, Queue]] = {}
        self.journal: list[JournalEntry] = []
        self.counters: Counter[str] = Counter()
        self.overrun: list[Session] = []
        self.recorded: deque[StoredMessage] = deque(maxlen=record)
        self._keep = keep
        self._epoch = epoch
        self._seq = first_seq

    # -- restoring ---------------------------------------------------------------------------------------------

    def restore(self, bindings: Iterable[tuple[str, str]], entries: Iterable[tuple[str, QueueEntry]]) -> None:
        """Restore what the data directory kept."""
        for name, destination in bindings:
            self._bind(name, destination)
        for key, entry in entries:
            queue = self.queues.get(key) or self._queue(key)
            entry.stored = True
            queue.add(entry)

    # -- publishing --------------------------------------------------------------------------------------------

    def has_room(self, destination: str) -> bool:
        """Return whether there is room for a message. Topic subscriptions that are not durable never make it wait."""
        if destination.startswith(QUEUE):
            queue = self.queues.get(destination)
            return queue is None or not queue.full
        return not any(queue.durable and queue.full for queue in self.topics.get(destination, {}).values())

    def publish(self, message: StoredMessage, now: float) -> None:
        """Put the message into each queue it belongs to, and deliver it where a client can take it."""
        self.counters["published"] += 1
        self.recorded.append(message)
        copies = 2 if self.faults.take_duplicate() else 1
        if message.destination.startswith(QUEUE):
            queues = [self.queues.get(message.destination) or self._queue(message.destination)]
        else:
            queues = list(self.topics.get(message.destination, {}).values())
            if not queues:
                self.counters["unrouted"] += 1
        for queue in queues:
            for _ in range(copies):
                self._put(queue, message)
            self.dispatch(queue, now)
            if queue.full and not queue.kept:
                self.overrun.extend(consumer.session for consumer in queue.consumers)

    def _put(self, queue: Queue, message: StoredMessage) -> None:
        entry = QueueEntry(seq=self._seq, message=message, stored=self._keep and message.persistent and queue.kept)
        self._seq += 1
        queue.add(entry)
        if entry.stored:
            self.journal.append(Add(queue=queue.key, entry=entry))

    def admit(self, key: str) -> None:
        """Refuse a new queue when there are too many; topics need none."""
        if key not in self.queues and not key.startswith(TOPIC) and len(self.queues) >= self.limits.max_queues:
            raise RefusedError("too many destinations", f"this broker keeps at most {self.limits.max_queues}")

    def _queue(self, destination: str) -> Queue:
        queue = self.queues[destination] = Queue(key=destination, destination=destination, limits=self.limits)
        return queue

    def _bind(self, name: str, destination: str) -> Queue:
        key = durable_key(name, destination)
        queue = Queue(key=key, destination=destination, limits=self.limits, durable=name)
        self.queues[key] = queue
        self.topics.setdefault(destination, {})[key] = queue
        return queue

    # -- subscribing -------------------------------------------------------------------------------------------

    def queue_for(self, destination: str, *, durable: str, private: str) -> Queue:
        """Return the queue of a new subscription, made if missing; `private` is its key where it is not shared."""
        if destination.startswith(QUEUE):
            self.admit(destination)
            return self.queues.get(destination) or self._queue(destination)
        if durable:
            self.admit(durable_key(durable, destination))
            found = self.queues.get(durable_key(durable, destination))
            if found is not None:
                return found
            if self._keep:
                self.journal.append(Bind(name=durable, destination=destination))
            return self._bind(durable, destination)
        queue = Queue(key=private, destination=destination, limits=self.limits, kept=False)
        self.topics.setdefault(destination, {})[private] = queue
        return queue

    def end_subscription(self, subscription: BrokerSubscription, now: float) -> None:
        """Remove a subscription; its unacknowledged messages go to the others, or wait."""
        queue = subscription.queue
        if subscription in queue.consumers:
            queue.consumers.remove(subscription)
        for key, entry in subscription.unacked.items():
            subscription.session.by_ack.pop(key, None)
            subscription.session.late.append(key)
            queue.give_back(entry)
        subscription.unacked.clear()
        if queue.kept:
            self.dispatch(queue, now)
        self._forget_if_idle(queue)

    def delete_durable(self, queue: Queue, now: float) -> list[BrokerSubscription]:
        """Delete a durable subscription and its messages; return the other subscriptions that consumed it."""
        others = list(queue.consumers)
        queue.consumers.clear()
        self.queues.pop(queue.key, None)
        self._leave_topic(queue)
        if self._keep:
            self.journal.append(Unbind(name=queue.durable, destination=queue.destination))
        return others

    def _forget_if_idle(self, queue: Queue) -> None:
        if not queue.kept:
            self._leave_topic(queue)
        elif queue.idle:
            self.queues.pop(queue.key, None)

    def _leave_topic(self, queue: Queue) -> None:
        bound = self.topics.get(queue.destination, {})
        bound.pop(queue.key, None)
        if not bound:
            self.topics.pop(queue.destination, None)

    # -- delivering --------------------------------------------------------------------------------------------

    def dispatch(self, queue: Queue, now: float) -> None:
        """Deliver what waits, to each subscription in turn, as far as they can take it."""
        while queue.has_ready:
            consumer = queue.next_consumer()
            if consumer is None:
                return
            entry = queue.take(self.faults.shuffle)
            if entry is None:
                return
            if entry.message.expired(now):
                self.counters["expired"] += 1
                self.settle(queue, entry)
            else:
                self._deliver(consumer, entry)

    def output_drained(self, session: Session, now: float) -> None:
        """Deliver what waits for a session that can take output again."""
        for subscription in list(session.subscriptions.values()):
            self.dispatch(subscription.queue, now)

    def _deliver(self, subscription: BrokerSubscription, entry: QueueEntry) -> None:
        session, message = subscription.session, entry.message
        message_id = f"{self._epoch}-{entry.seq}"
        headers = {**message.headers, "destination": message.destination, "message-id": message_id}
        if subscription.id:
            headers["subscription"] = subscription.id
        entry.deliveries += 1
        if entry.deliveries > 1:
            headers["redelivered"] = "true"
            headers["delivery-count"] = str(entry.deliveries)
        if subscription.ack == "auto":
            self.settle(subscription.queue, entry)
        else:
            session.deliveries += 1
            key = message_id
            if session.version == "1.2":
                key = headers["ack"] = f"{session.number}-{session.deliveries}"
                session.by_ack[key] = subscription
            subscription.unacked[key] = entry
            if entry.stored:
                self.journal.append(Count(seq=entry.seq, deliveries=entry.deliveries))
        self.counters["delivered"] += 1
        session.send(StompFrame(command="MESSAGE", headers=headers, body=message.body))

    # -- settling ----------------------------------------------------------------------------------------------

    def settle(self, queue: Queue, entry: QueueEntry) -> None:
        """Remove a message that is finished."""
        queue.settle(entry)
        if entry.stored:
            self.journal.append(Remove(seq=entry.seq))
        if queue.kept:
            self._forget_if_idle(queue)

    def dead_letter(self, queue: Queue, entry: QueueEntry, reason: str, now: float) -> None:
        """Move a message to its dead letter queue, or drop it when it is in one already."""
        message = entry.message
        self.settle(queue, entry)
        if message.destination.startswith(DEAD_LETTERS):
            self.counters["dropped"] += 1
            return
        headers = {
            **message.headers,
            "original-destination": message.destination,
            "dead-letter-reason": reason,
            "dead-letter-deliveries": str(entry.deliveries),
        }
        if queue.durable:
            headers["dead-letter-subscription"] = queue.durable
        destination = dead_letter_queue(message.destination)
        target = self.queues.get(destination) or self._queue(destination)
        if target.full:
            oldest = target.take()
            if oldest is not None:
                self.counters["dropped"] += 1
                self.settle(target, oldest)
                target = self.queues.setdefault(destination, target)
        self.counters["dead-lettered"] += 1
        self._put(target, evolve(message, destination=destination, headers=headers, expires=None))
        self.dispatch(target, now)

    def expire(self, now: float) -> None:
        """Drop the messages that have expired at `now` (seconds since the epoch)."""
        for queue in [
            *self.queues.values(),
            *(q for bound in self.topics.values() for q in bound.values() if not q.kept),
        ]:
            for entry in queue.expired(now):
                self.counters["expired"] += 1
                self.settle(queue, entry)

    def take_journal(self) -> list[JournalEntry]:
        """Return and clear what has to be on disk before any output is sent."""
        journal, self.journal = self.journal, []
        return journal
