"""The state of the embedded broker: messages, queues, subscriptions, sessions, and changes for the disk. No I/O.

Rules kept here:

* A queue delivers its messages in the order they came, and a message that comes back takes its old place.
* A message is held until it is settled (acknowledged, dead-lettered, expired); `Queue.full` counts unacknowledged ones
  too.
* A change that must survive the process is a `JournalEntry`; the shell writes it before it sends the core's output.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Iterator, Mapping

from attrs import define, field, frozen

from deploykit.broker.frames import StompFrame


@frozen(kw_only=True)
class BrokerLimits:
    """How much the embedded broker holds. Counts, or bytes; `login_timeout` in seconds."""

    max_connections: int = 512
    login_timeout: float = 10.0
    max_subscriptions: int = 1000
    max_queues: int = 10_000
    max_queue_messages: int = 200_000
    max_queue_bytes: int = 256 * 1024 * 1024
    max_transaction_frames: int = 10_000
    max_transaction_bytes: int = 16 * 1024 * 1024
    #: Output held for one client beyond what its socket takes; above it the broker stops reading from that client.
    max_output: int = 8 * 1024 * 1024
    #: A subscription gets no further message while this much output waits for its client.
    high_water: int = 256 * 1024


@frozen(kw_only=True)
class StoredMessage:
    """One message as the publisher sent it. `expires` is in seconds since the epoch."""

    destination: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    persistent: bool = False
    expires: float | None = None

    @property
    def size(self) -> int:
        """Bytes this message counts for in a queue's bound."""
        return len(self.body) + 256

    def expired(self, now: float) -> bool:
        """Return whether it has expired at `now` (seconds since the epoch)."""
        return self.expires is not None and self.expires <= now


@define(kw_only=True, eq=False)
class QueueEntry:
    """A message in one queue. `settled` entries may still be in a heap and are skipped there."""

    seq: int
    message: StoredMessage
    deliveries: int = 0
    stored: bool = False
    settled: bool = False


@frozen(kw_only=True)
class Add:
    """A message was added to a queue."""

    queue: str
    entry: QueueEntry


@frozen(kw_only=True)
class Remove:
    """A message left its queue."""

    seq: int


@frozen(kw_only=True)
class Count:
    """A message was delivered once more."""

    seq: int
    deliveries: int


@frozen(kw_only=True)
class Bind:
    """A durable subscription was made."""

    name: str
    destination: str


@frozen(kw_only=True)
class Unbind:
    """A durable subscription and its messages were deleted."""

    name: str
    destination: str


JournalEntry = Add | Remove | Count | Bind | Unbind


@define(kw_only=True, eq=False)
class BrokerSubscription:
    """One SUBSCRIBE of one session.

    `unacked` holds what was delivered, oldest first, by the key its ACK will have: the `ack` header on 1.2, else the
    `message-id`.
    """

    id: str
    session: Session
    queue: Queue
    destination: str
    ack: str
    prefetch: int | None
    unacked: dict[str, QueueEntry] = field(factory=dict)

    @property
    def ready(self) -> bool:
        """Whether one more message may be delivered to this client now."""
        session = self.session
        if session.closing or not session.writable or session.unflushed >= session.high_water:
            return False
        return self.prefetch is None or len(self.unacked) < self.prefetch


@define(kw_only=True, eq=False)
class Transaction:
    """Frames held between BEGIN and COMMIT."""

    frames: list[StompFrame] = field(factory=list)
    size: int = 0


@define(kw_only=True, eq=False)
class Session:
    """One connection as the core sees it. The shell takes `output` and sets `writable`."""

    number: int
    high_water: int
    version: str = "1.0"
    connected: bool = False
    closing: bool = False
    muted: bool = False
    writable: bool = True
    client_id: str = ""
    login: str = ""
    #: Milliseconds between heart-beats: those of the broker, those of the client. 0 is none.
    beat_out: int = 0
    beat_in: int = 0
    output: list[StompFrame] = field(factory=list)
    unflushed: int = 0
    subscriptions: dict[str, BrokerSubscription] = field(factory=dict)
    transactions: dict[str, Transaction] = field(factory=dict)
    by_ack: dict[str, BrokerSubscription] = field(factory=dict)
    #: Acknowledgements that may still come for a subscription that was ended; they are ignored.
    late: deque[str] = field(factory=lambda: deque(maxlen=10_000))
    deliveries: int = 0

    def send(self, frame: StompFrame) -> None:
        """Queue a frame for the client."""
        self.output.append(frame)
        self.unflushed += len(frame.body) + 256


class Queue:
    """Messages waiting or unacknowledged: of a `/queue/…`, a durable subscription, or one topic subscription."""

    def __init__(
        self, *, key: str, destination: str, limits: BrokerLimits, durable: str = "", kept: bool = True
    ) -> None:
        self.key = key
        self.destination = destination
        self.durable = durable
        self.kept = kept
        self.consumers: deque[BrokerSubscription] = deque()
        self.count = 0
        self.size = 0
        self.expiring = 0
        self._limits = limits
        self._ready: list[tuple[int, QueueEntry]] = []

    @property
    def full(self) -> bool:
        """Whether the bound is reached, by count or by bytes."""
        return self.count >= self._limits.max_queue_messages or self.size >= self._limits.max_queue_bytes

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost by forgetting this queue."""
        return not self.count and not self.consumers and not self.durable

    @property
    def has_ready(self) -> bool:
        """Whether a message may be waiting."""
        return bool(self._ready)

    def add(self, entry: QueueEntry) -> None:
        """Add a new message."""
        self.count += 1
        self.size += entry.message.size
        self.expiring += entry.message.expires is not None
        heapq.heappush(self._ready, (entry.seq, entry))

    def give_back(self, entry: QueueEntry) -> None:
        """Put a delivered message back in its place."""
        heapq.heappush(self._ready, (entry.seq, entry))

    def take(self, shuffle: random.Random | None = None) -> QueueEntry | None:
        """Return the next message that is not settled (any of them, with `shuffle`), or None."""
        while self._ready:
            if shuffle is not None:
                index = shuffle.randrange(len(self._ready))
                self._ready[0], self._ready[index] = self._ready[index], self._ready[0]
                entry = self._ready[0][1]
                del self._ready[0]
                heapq.heapify(self._ready)
            else:
                entry = heapq.heappop(self._ready)[1]
            if not entry.settled:
                return entry
        return None

    def settle(self, entry: QueueEntry) -> None:
        """Remove a message for good."""
        entry.settled = True
        self.count -= 1
        self.size -= entry.message.size
        self.expiring -= entry.message.expires is not None
        if len(self._ready) > 2 * self.count + 64:
            self._ready = [item for item in self._ready if not item[1].settled]
            heapq.heapify(self._ready)

    def expired(self, now: float) -> list[QueueEntry]:
        """Return the waiting messages that have expired at `now` (seconds since the epoch)."""
        if not self.expiring:
            return []
        return [entry for _, entry in self._ready if not entry.settled and entry.message.expired(now)]

    def next_consumer(self) -> BrokerSubscription | None:
        """Return the next subscription in turn that can take a message, or None."""
        for _ in range(len(self.consumers)):
            consumer = self.consumers[0]
            self.consumers.rotate(-1)
            if consumer.ready:
                return consumer
        return None

    def waiting(self) -> Iterator[QueueEntry]:
        """Yield the messages that are not delivered, in order."""
        return (entry for _, entry in sorted(self._ready, key=lambda item: item[0]) if not entry.settled)
