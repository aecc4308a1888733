"""Subscriptions: from a MESSAGE to a verdict, and from the verdict back to the broker.

Rules:

* the I/O thread only puts messages into a queue; handlers run in worker threads, and take as long as they want;
* an acknowledgement goes to the connection that delivered, or nowhere: then the broker delivers again;
* a message that is given up is copied to the dead letters, confirmed, before it is acknowledged;
* a message with an id is handled to the end once: a copy that comes while it is in work waits for the outcome, and one
  that comes after is acknowledged unseen (as long as this process remembers; with `ids=`, as long as the store does);
* what was not finished when the bus stops is handed back by saying nothing: the broker gives it to the next one.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from random import uniform
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

import attrs

from deploykit.bus.dialect import RESERVED, Compiled, Intent, read_destination
from deploykit.bus.events import Counters, DeadLettered, Dropped, Event
from deploykit.bus.verdicts import Ack, Reject, Retry, Verdict
from deploykit.errors import BusError, DeploykitError, IdStoreError
from deploykit.ids import Claim
from deploykit.wire.frame import Frame

if TYPE_CHECKING:
    from deploykit.bus.connection import Connection
    from deploykit.bus.frames import Received

logger = logging.getLogger(__name__)

#: The longest a message is kept here between two attempts. RabbitMQ ends consumers that sit on one for 30 minutes.
MAX_PAUSE: Final = 900.0
_REMEMBERED: Final = 10_000
_SETTLE_AGAIN: Final = 2.0
_GIVE_BACK_AFTER: Final = 1.0
_ID: Final = "deploykit-id"
#: Headers of a delivery that its dead-letter copy must not carry: they belong to the delivery or to another time.
_OF_DELIVERY: Final = RESERVED | {
    "redelivered",
    "delivery-count",
    "timestamp",
    "expires",
    "expiration",
    "priority",
    "persistent",
    "server",
    "session",
    "user-id",
    "version",
}


@attrs.frozen(kw_only=True, slots=True)
class Delivery:
    """One message as handed to a handler.

    `attempt` counts from 1 in this process; `redelivered` says that the broker has given it out before.
    `id` is the publisher's (header `deploykit-id`), empty where there is none.
    """

    destination: str
    headers: Mapping[str, str]
    body: bytes = attrs.field(repr=False)
    message_id: str
    id: str
    attempt: int
    redelivered: bool
    epoch: int


Handler = Callable[[Delivery], Verdict | None]


class Ids(Protocol):
    """The part of `deploykit.ids.IdStore` that settles duplicates."""

    def claim(self, key: str, id: str, digest: bytes, now: datetime) -> Claim:
        """Claim an id before acting."""

    def done(self, key: str, id: str, reply: bytes, now: datetime) -> None:
        """Mark it handled to the end."""


class Host(Protocol):
    """What a subscription needs of its bus."""

    counters: Counters

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after a while, on the supervisor's thread."""

    def dead_letter(self, frame: Frame) -> None:
        """Publish to the dead letters; return when confirmed, raise BusError otherwise."""

    def send_again(self, destination: str, frame: Frame) -> None:
        """Publish to a queue; return when confirmed, raise BusError otherwise."""

    def tell(self, event: Event) -> None:
        """Hand an event to the embedding program."""

    def end_subscription(self, subscription: Subscription, *, forget: bool) -> None:
        """Take a subscription away, at the broker too."""

    def resume(self) -> None:
        """Read on, if reading had been paused."""


class _Item:
    """One message in this process: what came, over which connection, and what is already decided about it."""

    __slots__ = ("attempt", "claimed", "connection", "decided", "frame", "gone_back", "key")

    def __init__(self, frame: Received, connection: Connection) -> None:
        self.frame = frame
        self.connection = connection
        self.attempt = 0
        #: Identity across deliveries: the id and the body's hash; None: it has no id.
        self.key: tuple[str, int] | None = None
        #: Set once the handler has spoken for good, so that only the settling is tried again.
        self.decided: Verdict | None = None
        #: It is ours in the store of ids, and has to be marked done there.
        self.claimed = False
        #: It was given back to the broker, so it will come again and is not finished.
        self.gone_back = False


class Subscription:
    """A subscription of a bus; made by `Bus.subscribe`. It survives reconnects.

    `active` tells whether the broker has confirmed it on the present connection.
    """

    def __init__(
        self,
        host: Host,
        intent: Intent,
        handler: Handler,
        *,
        workers: int,
        max_attempts: int,
        ids: Ids | None,
    ) -> None:
        self.intent = intent
        self.problem: BusError | None = None
        self.refusals = 0
        self.losses = 0
        self._host = host
        self._handler = handler
        self._max_attempts = max_attempts
        self._ids = ids
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._compiled: Compiled | None = None
        self._stopping = False
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._active = 0
        self._attempts: dict[tuple[str, int], int] = {}
        self._working: dict[tuple[str, int], list[_Item]] = {}
        self._recent: dict[tuple[str, int], None] = {}
        self._delayed: dict[int, _Item] = {}
        self._left: list[_Item] = []
        self._threads = [
            threading.Thread(target=self._work, name=f"deploykit-bus-{intent.id}-{n}", daemon=True)
            for n in range(1, workers + 1)
        ]

    def __repr__(self) -> str:
        return f"<Subscription {self.intent.destination} {'active' if self.active else 'not active'}>"

    @property
    def destination(self) -> str:
        """The destination as it was asked for."""
        return self.intent.destination

    @property
    def active(self) -> bool:
        """Whether the broker has confirmed this subscription on the present connection."""
        return self._active > 0

    @property
    def stopping(self) -> bool:
        """Whether it is being ended."""
        return self._stopping

    @property
    def queued(self) -> int:
        """Messages that wait for a worker."""
        return self._queue.qsize()

    def wait_active(self, timeout: float) -> bool:
        """Wait until the broker has confirmed the subscription.

        Raises:
            BusError: it was refused, and why.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._active or self.problem is not None, timeout)
            if self._active:
                return True
            if self.problem is not None:
                raise self.problem
            return False

    def unsubscribe(self, *, forget: bool = False, timeout: float = 10.0) -> None:
        """End the subscription: running handlers finish, queued messages go back to the broker.

        Args:
            forget: delete a durable subscription at the broker, with the messages it holds.
            timeout: seconds to wait for running handlers; what they do after that may be done again elsewhere.

        Raises:
            ConnectError: `forget`, and the broker did not confirm it.
        """
        self.stop()
        self.join(monotonic() + timeout)
        self._host.end_subscription(self, forget=forget)

    def leave(self) -> int:
        """Forget everything that is not settled; return how many messages that were."""
        with contextlib.suppress(queue.Empty):
            while True:
                if (item := self._queue.get_nowait()) is not None:
                    self._left.append(item)
        left = [item for item in (*self._left, *self._delayed.values()) if item.connection.up]
        self._left.clear()
        self._delayed.clear()
        self._host.counters.handed_back += len(left)
        return len(left) + len(self._working)

    # -- the supervisor's thread -------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the workers."""
        for thread in self._threads:
            thread.start()

    def compiled_for(self, compiled: Compiled) -> None:
        """A new connection: this is how the subscription is written there."""
        self._compiled = compiled

    def confirmed(self, epoch: int) -> None:
        """The broker confirmed it on this connection."""
        with self._changed:
            self._active, self.problem, self.refusals, self.losses = epoch, None, 0, 0
            self._changed.notify_all()

    def refused(self, problem: BusError) -> None:
        """It does not work on this connection."""
        with self._changed:
            self._active, self.problem = 0, problem
            self.refusals += 1
            self._changed.notify_all()

    def connection_lost(self) -> None:
        """Forget what waits: nobody could acknowledge it any more, and the broker will deliver it again."""
        self._active = 0
        lost = []
        while self._delayed:
            lost.append(self._delayed.popitem()[1])
        with contextlib.suppress(queue.Empty):
            while (item := self._queue.get_nowait()) is not None:
                lost.append(item)
            self._queue.put(None)  # that was a stop sign, not a message
        self._host.counters.handed_back += len(lost)
        for item in lost:
            self._release(item, finished=False)

    def take(self, frame: Received, connection: Connection) -> None:
        """Put a message into the queue."""
        self._queue.put(_Item(frame, connection))

    # -- stopping ----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Let every worker end after the handler it is in."""
        if not self._stopping:
            self._stopping = True
            for _ in self._threads:
                self._queue.put(None)

    def join(self, deadline: float) -> bool:
        """Wait for the workers until a monotonic time; tell whether all have ended."""
        for thread in self._threads:
            if thread is not threading.current_thread() and thread.ident is not None:
                thread.join(max(0.0, deadline - monotonic()))
        return not any(t.is_alive() and t is not threading.current_thread() for t in self._threads)

    # -- the workers -------------------------------------------------------------------------------------------

    def _work(self) -> None:
        take, counters = self._queue.get, self._host.counters
        while (item := take()) is not None:
            if self._stopping:
                self._left.append(item)
                continue
            if not item.connection.up:
                counters.handed_back += 1
                self._release(item, finished=False)
                continue
            if item.connection.paused:
                self._host.resume()
            try:
                self._handle(item)
            except Exception:
                # A bug of ours must not end the worker: the message stays unacknowledged and comes again.
                logger.exception("settling a message from %s failed", self.destination)
                self._release(item, finished=False)

    def _handle(self, item: _Item) -> None:
        if item.decided is None:
            if item.frame.oversized:
                self._too_large(item)
                return
            if item.attempt == 0 and not self._begin(item):
                return
            decided = self._attempt(item)
            if decided is None:
                return
            item.decided = decided
        self._settle(item, item.decided)

    def _begin(self, item: _Item) -> bool:
        """Recognise duplicates; tell whether the item is to be handled."""
        frame = item.frame
        item.attempt = 1
        identity = frame.headers.get(_ID)
        if not identity:
            return True
        key = item.key = (identity, hash(frame.body))
        with self._lock:
            if key in self._recent:
                known = True
            elif key in self._working:
                self._working[key].append(item)  # whoever works on it will settle this copy too
                return False
            else:
                known = False
                self._working[key] = []
                item.attempt = self._attempts.get(key, 0) + 1
        if known:
            self._acknowledge(item, duplicate=True)
            return False
        return True

    def _attempt(self, item: _Item) -> Verdict | None:
        """Let the handler speak. Return its final word, or None: it will be asked again."""
        if item.attempt > self._max_attempts:
            return Reject(f"gave up after {item.attempt - 1} attempts")
        claimed = self._claim(item)
        if claimed is not None:
            if isinstance(claimed, Retry):
                self._again(item, claimed.after, count=False)
                return None
            return claimed
        if item.key is not None:
            with self._lock:
                self._attempts[item.key] = item.attempt
                if len(self._attempts) > _REMEMBERED:
                    del self._attempts[next(iter(self._attempts))]
        verdict, why = self._ask(self._delivery(item))
        if not isinstance(verdict, Retry):
            return verdict
        if item.attempt >= self._max_attempts:
            return Reject(f"gave up after {item.attempt} attempts: {why}")
        self._again(item, verdict.after, count=True)
        return None

    def _ask(self, delivery: Delivery) -> tuple[Verdict, str]:
        try:
            said: object = self._handler(delivery)
        except Verdict as raised:
            said = raised
        except DeploykitError as error:
            logger.warning("the handler of %s failed: %s", self.destination, error)
            return Retry(_pause(delivery.attempt)), f"{type(error).__name__}: {error}"
        except BaseException as error:
            # Its text may hold anything; the log of the embedding program gets the traceback, the broker the type.
            logger.exception("the handler of %s failed", self.destination)
            return Retry(_pause(delivery.attempt)), f"handler raised {type(error).__name__}"
        if said is None:
            return _ACK, ""
        if not isinstance(said, Verdict):
            logger.error("the handler of %s returned no verdict but %s", self.destination, type(said).__name__)
            return Retry(_pause(delivery.attempt)), f"handler returned {type(said).__name__}"
        return said, "handler asked for another attempt"

    def _claim(self, item: _Item) -> Verdict | None:
        """Ask the store of ids. None: act."""
        if self._ids is None or item.key is None:
            return None
        digest = hashlib.sha256(item.frame.body).digest()
        try:
            claim = self._ids.claim(self._namespace, item.key[0], digest, datetime.now(UTC))
        except IdStoreError as error:
            logger.error("a message from %s waits: %s", self.destination, error)  # noqa: TRY400 - no bug
            return Retry(_pause(item.attempt + 2))
        if claim is Claim.CONFLICT:
            return Reject("its id was used before for a message with other bytes")
        if claim is Claim.DONE:
            self._host.counters.duplicates += 1
            return _ACK
        item.claimed = True
        return None

    @property
    def _namespace(self) -> str:
        return f"bus {self.intent.durable or self.intent.destination}"

    def _again(self, item: _Item, after: float, *, count: bool) -> None:
        self._host.counters.retried += 1
        if count:
            item.attempt += 1
        self._later(item, min(after, MAX_PAUSE))

    def _later(self, item: _Item, seconds: float) -> None:
        def put() -> None:
            if self._delayed.pop(id(item), None) is not None:
                self._queue.put(item)

        self._delayed[id(item)] = item
        self._host.later(seconds, put)

    def _delivery(self, item: _Item) -> Delivery:
        frame, connection = item.frame, item.connection
        headers = frame.headers
        return Delivery(
            destination=read_destination(connection.dialect, headers.get("destination", self.destination)),
            headers=headers,
            body=frame.body,
            message_id=headers.get("message-id", ""),
            id=item.key[0] if item.key else "",
            attempt=item.attempt,
            redelivered=headers.get("redelivered") == "true",
            epoch=connection.epoch,
        )

    # -- settling ----------------------------------------------------------------------------------------------

    def _settle(self, item: _Item, verdict: Verdict) -> None:
        try:
            if isinstance(verdict, Reject) and not self._give_up(item, verdict.reason):
                return
            if self._ids is not None and item.claimed and item.key is not None and not item.gone_back:
                self._ids.done(self._namespace, item.key[0], b"", datetime.now(UTC))
        except (BusError, IdStoreError) as error:
            logger.warning("a message from %s is not settled yet: %s", self.destination, error)
            self._later(item, _SETTLE_AGAIN)
            return
        self._acknowledge(item)
        self._release(item, finished=not item.gone_back)

    def _acknowledge(self, item: _Item, *, duplicate: bool = False) -> None:
        counters = self._host.counters
        if duplicate:
            counters.duplicates += 1
        if item.connection.up:
            item.connection.ack(item.frame.headers)
            counters.acked += 1
        else:
            counters.stale_acks += 1

    def _release(self, item: _Item, *, finished: bool) -> None:
        """The work on an id ended: remember it if it was finished, and settle the copies that came meanwhile."""
        key = item.key
        if key is None:
            return
        with self._lock:
            copies = self._working.pop(key, [])
            if finished or item.gone_back:
                self._attempts.pop(key, None)
            if finished:
                self._recent[key] = None
                if len(self._recent) > _REMEMBERED:
                    del self._recent[next(iter(self._recent))]
        for copy in copies:
            if finished:
                self._acknowledge(copy, duplicate=True)
            elif copy.connection.up:
                copy.attempt = 0  # it takes the place of the one that was lost with its connection
                self._queue.put(copy)

    def _give_up(self, item: _Item, reason: str) -> bool:
        """Do what `on_failure` means on the broker that delivered; tell whether an acknowledgement is to follow."""
        compiled = self._compiled
        how = compiled.on_failure if compiled is not None else "dead-letter"
        destination = read_destination(item.connection.dialect, item.frame.headers.get("destination", self.destination))
        identity = item.frame.headers.get(_ID, "")
        counters = self._host.counters
        if how in ("nack", "republish") and not item.gone_back:
            # Not at once, or a message that fails at once would go round and round as fast as it can.
            item.gone_back = True
            self._later(item, _GIVE_BACK_AFTER)
            return False
        if how == "nack":
            item.connection.nack(item.frame.headers, item.connection.dialect.nack_headers)
            counters.handed_back += 1
            self._release(item, finished=False)
            return False
        if how == "republish":
            self._host.send_again(destination, _copy(item.frame, {}))
            counters.handed_back += 1
        elif how == "ack":
            counters.dropped += 1
            logger.warning("dropped a message from %s: %s", destination, reason)
            self._host.tell(Dropped(destination=destination, id=identity, reason=reason))
        else:
            more = {
                "original-destination": destination,
                "dead-letter-reason": _header_text(reason),
                "dead-letter-attempts": str(max(1, item.attempt)),
            }
            if self.intent.durable:
                more["dead-letter-subscription"] = self.intent.durable
            self._host.dead_letter(_copy(item.frame, more))
            counters.dead_lettered += 1
            logger.warning("put a message from %s into the dead letters: %s", destination, reason)
            self._host.tell(DeadLettered(destination=destination, id=identity, reason=reason))
        return True

    def _too_large(self, item: _Item) -> None:
        """Nobody saw the body. Leave it with the broker where that works, else only its headers can be kept."""
        self._host.counters.oversized += 1
        reason = f"its body of {item.frame.oversized} bytes is over the limit"
        keeps = item.connection.dialect.nack_keeps
        if keeps is not None:
            logger.warning("refused a message from %s: %s", self.destination, reason)
            item.connection.nack(item.frame.headers, keeps)
            return
        item.decided = Reject(reason)
        self._settle(item, item.decided)


_ACK: Final = Ack()


def _pause(attempt: int) -> float:
    """Seconds before a failed handler is asked again: growing, with jitter."""
    return float(uniform(0.5, 1.0) * min(60.0, 2.0 ** (attempt - 1)))  # noqa: S311 - not a secret


def _copy(frame: Received, more: Mapping[str, str]) -> Frame:
    headers = {
        key: _header_text(value)
        for key, value in frame.headers.items()
        if key not in _OF_DELIVERY and not key.startswith(("x-", "JMS", "activemq."))
    }
    return Frame({**headers, **more}, frame.body)


def _header_text(text: str) -> str:
    """A value that every version carries."""
    return "".join(character if character.isprintable() else " " for character in text[:1000])
