"""From a delivery to its acknowledgement: attempts, duplicates, verdicts, dead letters.

Rules:

* an acknowledgement goes to the connection that delivered, or nowhere: then the broker delivers again;
* a message that is given up is copied to the dead letters, confirmed, before it is acknowledged;
* a message with an id is handled to the end once: a copy that comes while it is in work waits for the outcome, and one
  that comes after is acknowledged unseen (as long as this process remembers; with `ids=`, as long as the store does).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from random import random
from typing import Final

from deploykit.bus.delivery import KEEPALIVE_HEADER, Delivery, Handler, Item
from deploykit.bus.events import DeadLettered, Dropped
from deploykit.bus.ports import Ids, SettlementServices
from deploykit.bus.stomp.compile import CompiledSubscription, SubscriptionSpec, read_destination
from deploykit.bus.stomp.frames import Received
from deploykit.bus.verdicts import Ack, Reject, Retry, Verdict
from deploykit.errors import BusError, DeploykitError, IdStoreError, LockBusy
from deploykit.ids import Claim
from deploykit.system.backoff import Backoff
from deploykit.wire.codec import ID_HEADER
from deploykit.wire.frame import CONNECTION_HEADERS, Frame

logger = logging.getLogger(__name__)

#: Seconds between two attempts, at most. RabbitMQ ends consumers that keep a message for 30 minutes.
MAX_PAUSE: Final = 900.0
_REMEMBERED: Final = 10_000
_SETTLE_AGAIN: Final = 2.0
_GIVE_BACK_AFTER: Final = 1.0
_NEXT_TURN: Final = 0.25
_BACKOFF: Final = Backoff(initial=1.0, maximum=60.0, low=0.5)
#: Headers of a delivery that its dead-letter copy must not carry: they belong to the delivery or to another time.
_OF_DELIVERY: Final = CONNECTION_HEADERS | {
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


class Settler:
    """Settles the messages of one subscription. Any worker thread; `forget` also the supervisor's.

    Args:
        services: what settling takes from the bus.
        spec: what was subscribed.
        handler: the user's.
        max_attempts: how often it is asked about one message.
        ids: the store of handled ids, if any.
        requeue: puts a message back into the workers' queue.
    """

    def __init__(
        self,
        services: SettlementServices,
        spec: SubscriptionSpec,
        handler: Handler,
        *,
        max_attempts: int,
        ids: Ids | None,
        requeue: Callable[[Item], None],
    ) -> None:
        #: How the subscription is written on the present connection.
        self.compiled: CompiledSubscription | None = None
        self._services = services
        self._spec = spec
        self._handler = handler
        self._max_attempts = max_attempts
        self._ids = ids
        self._requeue = requeue
        self._lock = threading.Lock()
        self._attempts: dict[tuple[str, int], int] = {}
        self._working: dict[tuple[str, int], list[Item]] = {}
        self._recent: dict[tuple[str, int], None] = {}
        self._delayed: dict[int, Item] = {}

    @property
    def waiting(self) -> int:
        """Messages that wait for another attempt."""
        return len(self._delayed)

    @property
    def in_work(self) -> int:
        """Messages with an id that are begun and not settled."""
        return len(self._working)

    def take_waiting(self) -> list[Item]:
        """Give up the messages that wait for another attempt."""
        taken = []
        with contextlib.suppress(KeyError):  # it is empty; `if` would be too early, for the timers take from it too
            while True:
                taken.append(self._delayed.popitem()[1])
        return taken

    def forget(self, item: Item) -> None:
        """Leave a message unsettled: it cannot be acknowledged any more, or was settled elsewhere."""
        self._release(item, finished=False)

    def handle(self, item: Item) -> None:
        """Handle one message: settle it, or let it wait for another attempt."""
        if item.decided is None:
            if KEEPALIVE_HEADER in item.frame.headers:
                self._acknowledge(item)
                return
            if item.frame.oversized:
                self._too_large(item)
                return
            if item.attempt == 0 and not self._begin(item):
                return
        if self._ids is None or item.key is None:
            self._advance(item)
            return
        try:
            # Another process, or the bus that this one replaces, may have the same message in hand.
            with self._ids.locked(self._namespace, item.key[0]):
                self._advance(item)
        except LockBusy:
            self._retry(item, _NEXT_TURN, count=False)
        except IdStoreError as error:
            logger.error("a message from %s waits: %s", self._spec.destination, error)  # noqa: TRY400 - no bug
            self._retry(item, _pause(item.attempt + 2), count=False)

    def _advance(self, item: Item) -> None:
        if item.decided is None:
            item.decided = self._attempt(item)
        if item.decided is not None:
            self._settle(item, item.decided)

    def _begin(self, item: Item) -> bool:
        """Return whether the message is to be handled; a duplicate is acknowledged, or waits for the first copy."""
        frame = item.frame
        item.attempt = 1
        identity = frame.headers.get(ID_HEADER)
        if not identity:
            return True
        key = item.key = (identity, hash(frame.body))
        with self._lock:
            if key in self._recent:
                known = True
            elif key in self._working:
                self._working[key].append(item)  # its worker will settle this copy too
                return False
            else:
                known = False
                self._working[key] = []
                item.attempt = self._attempts.get(key, 0) + 1
        if known:
            self._acknowledge(item, duplicate=True)
            return False
        return True

    def _attempt(self, item: Item) -> Verdict | None:
        """Call the handler; return the final verdict, or None: there will be another attempt."""
        if item.attempt > self._max_attempts:
            return Reject(f"gave up after {item.attempt - 1} attempts")
        claimed = self._claim(item)
        if claimed is not None:
            if isinstance(claimed, Retry):
                self._retry(item, claimed.after, count=False)
                return None
            return claimed
        if item.key is not None:
            with self._lock:
                self._attempts[item.key] = item.attempt
                if len(self._attempts) > _REMEMBERED:
                    del self._attempts[next(iter(self._attempts))]
        verdict, why = self._call_handler(self._delivery(item))
        if not isinstance(verdict, Retry):
            return verdict
        if item.attempt >= self._max_attempts:
            return Reject(f"gave up after {item.attempt} attempts: {why}")
        self._retry(item, verdict.after, count=True)
        return None

    def _call_handler(self, delivery: Delivery) -> tuple[Verdict, str]:
        try:
            verdict: object = self._handler(delivery)
        except Verdict as raised:
            verdict = raised
        except DeploykitError as error:
            logger.warning("the handler of %s failed: %s", self._spec.destination, error)
            return Retry(_pause(delivery.attempt)), f"{type(error).__name__}: {error}"
        except BaseException as error:
            # Its text may hold anything; the log of the embedding program gets the traceback, the broker the type.
            logger.exception("the handler of %s failed", self._spec.destination)
            return Retry(_pause(delivery.attempt)), f"handler raised {type(error).__name__}"
        if verdict is None:
            return _ACK, ""
        if not isinstance(verdict, Verdict):
            logger.error("the handler of %s returned no verdict but %s", self._spec.destination, type(verdict).__name__)
            return Retry(_pause(delivery.attempt)), f"handler returned {type(verdict).__name__}"
        return verdict, "handler asked for another attempt"

    def _claim(self, item: Item) -> Verdict | None:
        """Claim the id of a message; return None to go on, else the verdict that follows from the claim."""
        if self._ids is None or item.key is None:
            return None
        digest = hashlib.sha256(item.frame.body).digest()
        try:
            claim = self._ids.claim(self._namespace, item.key[0], digest, datetime.now(UTC))
        except IdStoreError as error:
            logger.error("a message from %s waits: %s", self._spec.destination, error)  # noqa: TRY400 - no bug
            return Retry(_pause(item.attempt + 2))
        if claim is Claim.CONFLICT:
            return Reject("its id was used before for a message with other bytes")
        if claim is Claim.DONE:
            self._services.counters.duplicates += 1
            return _ACK
        item.claimed = True
        return None

    @property
    def _namespace(self) -> str:
        return f"bus {self._spec.durable or self._spec.destination}"

    def _retry(self, item: Item, after: float, *, count: bool) -> None:
        self._services.counters.retried += 1
        if count:
            item.attempt += 1
        self._delay(item, min(after, MAX_PAUSE))

    def _delay(self, item: Item, seconds: float) -> None:
        def put() -> None:
            if self._delayed.pop(id(item), None) is not None:
                self._requeue(item)

        self._delayed[id(item)] = item
        self._services.call_later(seconds, put)

    def _delivery(self, item: Item) -> Delivery:
        frame, connection = item.frame, item.connection
        headers = frame.headers
        return Delivery(
            destination=read_destination(connection.dialect, headers.get("destination", self._spec.destination)),
            headers=headers,
            body=frame.body,
            message_id=headers.get("message-id", ""),
            id=item.key[0] if item.key else "",
            attempt=item.attempt,
            redelivered=headers.get("redelivered") == "true",
            epoch=connection.epoch,
        )

    def _settle(self, item: Item, verdict: Verdict) -> None:
        try:
            if isinstance(verdict, Reject) and not self._give_up(item, verdict.reason):
                return
            if self._ids is not None and item.claimed and item.key is not None and not item.gone_back:
                self._ids.done(self._namespace, item.key[0], b"", datetime.now(UTC))
        except (BusError, IdStoreError) as error:
            logger.warning("a message from %s is not settled yet: %s", self._spec.destination, error)
            self._delay(item, _SETTLE_AGAIN)
            return
        self._acknowledge(item)
        self._release(item, finished=not item.gone_back)

    def _acknowledge(self, item: Item, *, duplicate: bool = False) -> None:
        counters = self._services.counters
        if duplicate:
            counters.duplicates += 1
        if item.connection.up:
            item.connection.ack(item.frame.headers)
            counters.acked += 1
        else:
            counters.stale_acks += 1

    def _release(self, item: Item, *, finished: bool) -> None:
        """End the work on an id: remember it if it was finished, and settle the copies that came meanwhile."""
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
                copy.attempt = 0  # it replaces the one that was lost with its connection
                self._requeue(copy)

    def _give_up(self, item: Item, reason: str) -> bool:
        """Do what `on_failure` asks for on the broker that delivered; return whether to acknowledge now."""
        compiled = self.compiled
        how = compiled.on_failure if compiled is not None else "dead-letter"
        destination = read_destination(
            item.connection.dialect, item.frame.headers.get("destination", self._spec.destination)
        )
        identity = item.frame.headers.get(ID_HEADER, "")
        counters = self._services.counters
        if how in ("nack", "republish") and not item.gone_back:
            # Not at once, or a message that fails at once would go round and round as fast as it can.
            item.gone_back = True
            self._delay(item, _GIVE_BACK_AFTER)
            return False
        if how == "nack":
            item.connection.nack(item.frame.headers, item.connection.dialect.nack_headers)
            counters.handed_back += 1
            self._release(item, finished=False)
            return False
        if how == "republish":
            self._services.publish_again(destination, _copy(item.frame, {}))
            counters.handed_back += 1
        elif how == "ack":
            counters.dropped += 1
            logger.warning("dropped a message from %s: %s", destination, reason)
            self._services.emit(Dropped(destination=destination, id=identity, reason=reason))
        else:
            more = {
                "original-destination": destination,
                "dead-letter-reason": _header_text(reason[:1000]),
                "dead-letter-attempts": str(max(1, item.attempt)),
            }
            if self._spec.durable:
                more["dead-letter-subscription"] = self._spec.durable
            self._services.publish_dead_letter(_copy(item.frame, more))
            counters.dead_lettered += 1
            logger.warning("put a message from %s into the dead letters: %s", destination, reason)
            self._services.emit(DeadLettered(destination=destination, id=identity, reason=reason))
        return True

    def _too_large(self, item: Item) -> None:
        """Give up a message whose body was not read: leave it with the broker if that works, else keep its headers."""
        self._services.counters.oversized += 1
        reason = f"its body of {item.frame.oversized} bytes is over the limit"
        keeps = item.connection.dialect.nack_keeps
        if keeps is not None:
            logger.warning("refused a message from %s: %s", self._spec.destination, reason)
            item.connection.nack(item.frame.headers, keeps)
            return
        item.decided = Reject(reason)
        self._settle(item, item.decided)


_ACK: Final = Ack()


def _pause(attempt: int) -> float:
    """Return the seconds before a failed handler is called again."""
    return _BACKOFF.pause(attempt, random())  # noqa: S311 - not a secret


def _copy(frame: Received, more: Mapping[str, str]) -> Frame:
    headers = {
        key: _header_text(value)
        for key, value in frame.headers.items()
        if key not in _OF_DELIVERY and not key.startswith(("x-", "JMS", "activemq."))
    }
    return Frame({**headers, **more}, frame.body)


def _header_text(text: str) -> str:
    """Return a value that every STOMP version can carry."""
    return "".join(character if character.isprintable() else " " for character in text)
