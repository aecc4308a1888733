"""From the bus into the projection: hear, judge, keep, and only then announce.

Rules:

* The bus's threads put what comes into a bounded queue, and never wait for the database.
* What does not fit is dropped and counted, and nodes are asked again once there is room.
* What must be signed and is not believed is counted, and not shown. Without keys everything counts, and pages say so.
* Pages hear of a message when it is committed: what they fetch then shows it.
* A database that is away is tried again with the same batch. One that was lost is rebuilt from the nodes.
* What may hold a password never gets here: the topic of access is not subscribed to.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Literal, Protocol

import attrs

from deploykit.bus import Ack, Delivery, Verdict
from deploykit.daemons.service.throttle import LogThrottle
from deploykit.errors import MessageError, ProjectionError
from deploykit.fleet.recordformat import RecordedMessage
from deploykit.fleet.tracetrust import TraceTrust, judge
from deploykit.messages import (
    AccessGrantRequested,
    AccessRevokeRequested,
    LocksWanted,
    Message,
    NodeQueried,
    one_line,
    utc_now,
)
from deploykit.messages.topics import TopicMap
from deploykit.system.backoff import Backoff
from deploykit.system.sizedqueue import SizedQueue
from deploykit.web.feedhealth import FeedHealth
from deploykit.web.live.describe import EventDraft, describe
from deploykit.web.projection.heard import Heard

_log = logging.getLogger(__name__)

#: Messages, and bytes of them, that wait for the database.
WAITING: Final = 20_000
WAITING_BYTES: Final = 64 * 1024 * 1024
#: Messages of one transaction, and seconds for which more are waited for.
BATCH: Final = 500
GATHER: Final = 0.03
#: Seconds for what waits at the end.
_LAST: Final = 2.0
_IDLE: Final = 0.5
_PAUSES: Final = Backoff(initial=0.5, maximum=10.0)
_NOT_SHOWN: Final = (NodeQueried, LocksWanted, AccessGrantRequested, AccessRevokeRequested)

FeedResult = Literal["kept", "distrusted", "unreadable", "dropped"]


class HeardKeeper(Protocol):
    """What keeps messages: `projection.store.Store`."""

    began_empty: bool

    def apply(self, batch: Sequence[Heard]) -> None:
        """Keep messages, in one transaction.

        Raises:
            ProjectionError: the database cannot be used now; try the same batch again.
        """
        ...


@attrs.frozen(kw_only=True, slots=True)
class FeedPorts:
    """What a feed calls.

    Args:
        announce: gives the events of a committed batch to open pages.
        rebuild: asks all nodes soon, because of what it is given.
        heard: sees each message that could be read, before anything is decided.
        count: counts messages by what became of them.
        lag: hears how many seconds a message waited until it was committed.
    """

    announce: Callable[[Sequence[EventDraft]], None]
    rebuild: Callable[[str], None]
    heard: Callable[[Message], None] = lambda _: None
    count: Callable[[FeedResult, int], None] = lambda _result, _number: None
    lag: Callable[[float], None] = lambda _: None


def destinations_of(topics: TopicMap) -> tuple[str, ...]:
    """Return what a console subscribes to: every destination but that of requests for access."""
    return tuple(name for name in topics.destinations if name != topics.access)


class ConsoleFeed:
    """Takes deliveries, and writes them into a projection in a thread of its own.

    Args:
        store: keeps them.
        trust: judges signatures; None looks at none.
        health: hears how it goes.
        ports: what it calls.
        now: the wall clock, aware UTC.
        waiting: most messages that wait for the database.
    """

    def __init__(
        self,
        store: HeardKeeper,
        trust: TraceTrust | None,
        health: FeedHealth,
        ports: FeedPorts,
        *,
        now: Callable[[], datetime] = utc_now,
        waiting: int = WAITING,
    ) -> None:
        self._store = store
        self._trust = trust
        self._health = health
        self._ports = ports
        self._now = now
        self._came: SizedQueue[tuple[Delivery, datetime]] = SizedQueue(
            waiting, lambda came: len(came[0].body), WAITING_BYTES
        )
        self._overflowed = threading.Event()
        self._distrust = LogThrottle()

    # -- the bus's threads ---------------------------------------------------------------------------------------------

    def hear(self, delivery: Delivery) -> Verdict:
        """Take one delivery. Whatever it is, the broker may forget it."""
        try:
            self._came.put_nowait((delivery, self._now()))
        except queue.Full:
            self._health.dropped()
            self._ports.count("dropped", 1)
            self._overflowed.set()
        return Ack()

    # -- the writing thread --------------------------------------------------------------------------------------------

    def run(self, ending: threading.Event) -> None:
        """Write until the event is set; then what waits, for 2 s."""
        if self._store.began_empty:
            self._store.began_empty = False
            self._rebuild("the database is new")
        while not ending.is_set():
            self.step(ending)
        end = time.monotonic() + _LAST
        while self._came.qsize() and time.monotonic() < end and self.step(ending):
            pass

    def step(self, ending: threading.Event) -> bool:
        """Write what has come within some milliseconds; return whether it was kept. Waits half a second at most."""
        heard = self._judged(self._next())
        if heard:
            if not self._keep(heard, ending):
                return False
            self._ports.count("kept", len(heard))
            self._ports.lag((self._now() - heard[0].received).total_seconds())
            self._ports.announce(describe(heard))
        if self._overflowed.is_set() and not self._came.qsize():
            self._overflowed.clear()
            self._rebuild("messages came faster than they could be kept")
        return True

    def _next(self) -> list[tuple[Delivery, datetime]]:
        """Return what waits, after a few milliseconds in which more of the same burst may come."""
        try:
            found = [self._came.get(timeout=_IDLE)]
        except queue.Empty:
            return []
        end = time.monotonic() + GATHER
        while len(found) < BATCH and (left := end - time.monotonic()) > 0:
            try:
                found.append(self._came.get(timeout=left))
            except queue.Empty:
                break
        return found

    def _judged(self, came: Sequence[tuple[Delivery, datetime]]) -> list[Heard]:
        judged = (self._judge(delivery, received) for delivery, received in came)
        return [heard for heard in judged if heard is not None]

    def _judge(self, delivery: Delivery, received: datetime) -> Heard | None:
        try:
            message = delivery.message
        except MessageError:
            self._ports.count("unreadable", 1)
            return None
        if message is None:
            return None
        self._ports.heard(message)
        if isinstance(message, _NOT_SHOWN):
            return None
        record = RecordedMessage(
            received=received, destination=delivery.destination, headers=delivery.headers, body=delivery.body
        )
        verdict = judge(record, message, self._trust)
        if not verdict.counts or (self._trust is not None and verdict.standing == "not verified"):
            self._doubt(message, verdict.why)
            return None
        unsigned = verdict.standing == "unsigned"
        return Heard(message=message, received=received, signer=verdict.signer, forgeable=unsigned)

    def _doubt(self, message: Message, why: str) -> None:
        line = one_line(f"{message.TYPE} from {message.source}: {why}", 300)
        count = self._distrust.add(line, time.monotonic())
        self._health.distrusted(line, tell=count > 0)
        self._ports.count("distrusted", 1)
        if count:
            _log.warning("%d messages are not believed and not shown, the last: %s", count, line)

    def _keep(self, heard: Sequence[Heard], ending: threading.Event) -> bool:
        """Write a batch, as often as it takes; return whether it was written before the end."""
        failures = 0
        while True:
            try:
                self._store.apply(heard)
            except ProjectionError as error:
                if not self._health.cannot_keep:
                    _log.error("%s", error)
                self._health.not_kept(str(error))
                failures += 1
                if ending.wait(_PAUSES.pause(failures)):
                    return False
            else:
                break
        if self._health.cannot_keep:
            _log.info("the console's database takes messages again")
        self._health.kept()
        if self._store.began_empty:
            self._store.began_empty = False
            self._rebuild("the database was lost")
        return True

    def _rebuild(self, why: str) -> None:
        self._health.missed()
        self._ports.rebuild(why)


__all__ = ["ConsoleFeed", "FeedPorts", "FeedResult", "HeardKeeper", "destinations_of"]
