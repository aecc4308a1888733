"""The relay: what the outbox holds goes to the broker, and leaves the outbox when the broker has it.

Rules:

* `outbox.ack` comes after the broker's receipt, never before. A crash in between sends a record again.
* Order is kept for each destination; `ordering` decides. A record the broker refuses for good becomes a dead letter.
* One relay works on a spool for each user, by flock. The relay of the spool's owner (or of root) sends every
  user's records. Another user's relay sends its own, and gives way when the owner's starts.
* A broker that is away costs time only: records and relay wait. So does a bus with no room, which is not a refusal.
* One record's problem holds up no other. What can never be sent becomes a dead letter when it is read; what the disk
  refuses to remove is owed (`settled`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing, suppress
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Final

from deploykit.errors import (
    BusClosed,
    BusError,
    ConnectError,
    DeploykitError,
    DialectError,
    LockBusy,
    MessageError,
    OutboxError,
    PublishRefused,
    Unsendable,
    UsageError,
    WindowFull,
)
from deploykit.outbox.format import RecordId
from deploykit.outbox.inflight import InFlight
from deploykit.outbox.ordering import DestinationQueues, Undeliverable
from deploykit.outbox.ports import Publisher
from deploykit.outbox.record import Record
from deploykit.outbox.relaylock import RelayLock
from deploykit.outbox.report import DeadLetter, DrainReport, Tally
from deploykit.outbox.sendable import frame_to_send, why_unsendable
from deploykit.outbox.settled import SettledRecords
from deploykit.outbox.spool import Outbox

__all__ = ["DeadLetter", "DrainReport", "Publisher", "Relay"]

_log = logging.getLogger(__name__)

#: Seconds within which a stop is noticed.
_SLICE: Final = 0.25
#: Seconds until a bus that had no room is tried again, where no receipt comes earlier.
_ROOM: Final = 0.05
#: Seconds between two looks of a user's relay for the owner's.
_LOOK: Final = 0.2
#: Seconds a stop waits for receipts that are on their way.
_GRACE: Final = 5.0
#: Seconds to wait after a problem with the spool or the login.
_AGAIN: Final = 5.0
#: Seconds between two attempts of a relay that stands by to take the lock.
_STAND_BY: Final = 1.0


class Relay:
    """Sends what `outbox` holds over `bus`. Use it from one thread only.

    Args:
        outbox: the spool.
        bus: a started bus; it stays the caller's.
        window, window_bytes: most records and bytes in flight.
        max_attempts: how often one record may be refused before it becomes a dead letter.
        pause, pause_max: seconds between attempts, growing.
        rescan: seconds after which the spool is read again although no notification came.
        on_dead_letter: called for each dead letter.
    """

    def __init__(
        self,
        outbox: Outbox,
        bus: Publisher,
        *,
        window: int = 256,
        window_bytes: int = 16 * 1024 * 1024,
        max_attempts: int = 5,
        pause: float = 0.5,
        pause_max: float = 30.0,
        rescan: float = 10.0,
        on_dead_letter: Callable[[DeadLetter], None] | None = None,
    ) -> None:
        self._outbox = outbox
        self._bus = bus
        self._rescan = rescan
        self._settled = SettledRecords(outbox, on_dead_letter)
        self._queues = DestinationQueues(max_attempts=max_attempts, pause=pause, pause_max=pause_max)
        self._in_flight = InFlight(window=window, window_bytes=window_bytes)
        self._outcomes: SimpleQueue[tuple[RecordId, BaseException | None]] = SimpleQueue()
        self._sleeping = threading.Event()
        self._lock = RelayLock(outbox.path)
        self._notified = False  # something was put since the pass began
        self._closed: BusClosed | None = None
        self._next_look = 0.0
        self._owner_is_there = False
        self._at_work = False

    @property
    def at_work(self) -> bool:
        """Whether it sends the spool's records now: not while it stands by for another relay."""
        return self._at_work

    # -- the two ways to run it --------------------------------------------------------------------------------------

    def drain_once(self, deadline: float = 60.0) -> DrainReport:
        """Send what waits, and return when nothing is left or `deadline` seconds are over.

        Raises:
            LockBusy: another relay is at work for this user; it sends what waits.
            OutboxError: the spool cannot be read.
            LoginRefused: every broker refused the login.
            BusClosed: the bus was closed before all was sent.
        """
        end = monotonic() + deadline
        self._settled.tally = Tally()
        complete = False
        while True:
            try:
                with self._lock:
                    # Listens as long as it works, so that a writer need not start another one ...
                    self._outbox.wait(0)
                    try:
                        complete = self._drain(end)
                    finally:
                        self._end()
            except LockBusy:
                if not complete:
                    raise
                break  # a relay that started meanwhile sends what came meanwhile
            # ... and looks again after it stopped listening, for records put just before.
            if not complete or monotonic() >= end or not self._something_waits():
                break
        return self._settled.tally.report(complete=complete)

    def run(self, stop: threading.Event, *, stand_by: bool = True) -> None:
        """Send records as they come, until `stop` is set.

        Args:
            stand_by: where another relay is at work at the start, wait and take over when it ends; else raise.

        Raises:
            LockBusy: another relay is at work from the start, and `stand_by` is off.
        """
        logged = held = False
        while not stop.is_set():
            try:
                with self._lock:
                    logged, held = False, True
                    self._work(stop)
            except LockBusy:
                if not stand_by and not held:
                    raise
                if not logged:
                    level = logging.DEBUG if self._lock.held_here else logging.INFO
                    _log.log(level, "another relay works on spool %s; standing by", self._outbox.path)
                logged = True
                stop.wait(_STAND_BY)
            except (OutboxError, ConnectError) as error:
                self._settled.log_once(f"{error}; trying again")
                stop.wait(_AGAIN)
            except BusClosed:
                if not stop.is_set():
                    _log.info("relay: the bus was closed")
                return
            finally:
                self._end()

    # -- passes ------------------------------------------------------------------------------------------------------

    def _drain(self, end: float) -> bool:
        stop = threading.Event()
        while True:
            moved = self._settled.moved
            if not self._pass(stop, end):
                self._settled.tally.problem = ""
                return True
            if monotonic() >= end or self._gives_way():
                return False
            self._rest(stop, min(end, monotonic() + (0.0 if self._settled.moved > moved else self._pause())))

    def _work(self, stop: threading.Event) -> None:
        self._outbox.wait(0)
        self._at_work = True
        while not stop.is_set() and not self._gives_way():
            self._settled.tally = Tally()
            moved, begun = self._settled.moved, monotonic()
            left = self._pass(stop, float("inf"))
            if self._settled.moved > moved:
                _log.info(
                    "relay: %d sent, %d dead letters", self._settled.tally.sent, len(self._settled.tally.dead_letters)
                )
            if not left:
                self._rest(stop, monotonic() + self._rescan)
            elif self._settled.moved == moved:
                # A pass that moved nothing may have read a long backlog: no new record makes it read it again at once.
                stop.wait(min(5.0, monotonic() - begun))
                self._rest(stop, monotonic() + self._pause())
        self._finish()

    def _pass(self, stop: threading.Event, end: float) -> bool:
        """Go through the spool once from the front, sending what may be sent; return whether something was left."""
        self._notified = False
        if not self._wait_connected(stop, end):
            self._settled.tally.problem = "no broker reachable"
            return bool(self._in_flight) or self._something_waits()
        self._queues.begin_pass()
        settled = self._settled
        retry_owed = settled.begin_pass()
        unseen, stem = set(settled.owed), ""
        with closing(self._outbox.pending()) as records:
            for record in records:
                if record.stem != stem:
                    stem = record.stem
                    settled.begin_file()
                if record.id in self._in_flight or settled.has_settled(record):
                    continue
                if settled.owes(record):
                    unseen.discard(record.id)
                    if retry_owed:
                        settled.try_again(record)
                    continue
                if not self._wait_for_room(stop, end) or self._gives_way():
                    return True
                if problem := why_unsendable(record):
                    settled.dead_letter(record, problem)
                elif not self._send_when_room(record, stop, end):
                    return True
        if retry_owed:
            settled.forget(unseen)
        while self._in_flight and not (self._notified or stop.is_set() or monotonic() >= end or self._gives_way()):
            self._sleep(min(_SLICE, end - monotonic()))
        if unreadable := self._outbox.unreadable:
            self._settled.tally.problem = f"{len(unreadable)} files of the spool cannot be read"
        return bool(self._in_flight or settled.owed or unreadable) or self._something_waits()

    def _something_waits(self) -> bool:
        with closing(self._outbox.pending()) as records:
            return next(records, None) is not None

    def _wait_connected(self, stop: threading.Event, end: float) -> bool:
        while not self._bus.wait_connected(min(_SLICE, max(0.0, end - monotonic()))):
            self._handle_outcomes()
            if stop.is_set() or monotonic() >= end or self._gives_way():
                return False
        return True

    def _wait_for_room(self, stop: threading.Event, end: float) -> bool:
        """Wait until one more record may be in flight; return whether to go on with this pass."""
        self._handle_outcomes()
        while self._in_flight.full:
            if stop.is_set() or monotonic() >= end or self._gives_way():
                return False
            self._handle_outcomes(wait=_SLICE)
        if stop.is_set() or monotonic() >= end or self._settled.owes_too_much:
            return False
        return not self._settled.tally.problem or self._bus.wait_connected(0)

    def _pause(self) -> float:
        """Return how long to rest when records are left and none moved: until a queue's pause is over, or a second."""
        now = monotonic()
        next_time = self._queues.next_time(now)
        if next_time is not None:
            return next_time - now
        until_due = self._settled.seconds_until_due(now)
        return 1.0 if until_due is None else until_due

    def _rest(self, stop: threading.Event, until: float) -> None:
        """Sleep until something is put, a record is settled, or `until` (monotonic) comes."""
        moved = self._settled.moved
        while not (stop.is_set() or self._notified or self._settled.moved > moved or self._gives_way()):
            left = until - monotonic()
            if left <= 0:
                return
            self._sleep(min(_SLICE, left))

    def _sleep(self, timeout: float) -> None:
        """Sleep until an outcome comes or a record is put, at most `timeout` seconds; handle the outcomes."""
        self._sleeping.set()
        try:
            if self._outcomes.empty() and self._outbox.wait(max(0.0, timeout)):
                self._notified = True
        finally:
            self._sleeping.clear()
        self._handle_outcomes()

    def _end(self) -> None:
        """Settle what was confirmed before the bus was closed, and stop listening."""
        self._at_work = False
        with suppress(BusClosed):
            self._handle_outcomes()
        self._outbox.close()

    def _finish(self) -> None:
        """After a stop, wait for the receipts that are about to come, so that little is sent twice."""
        end = monotonic() + _GRACE
        while self._in_flight and monotonic() < end and self._bus.wait_connected(0):
            self._handle_outcomes(wait=_SLICE)
        self._handle_outcomes()

    # -- one record --------------------------------------------------------------------------------------------------

    def _send_when_room(self, record: Record, stop: threading.Event, end: float) -> bool:
        """Send a record if its queue is open, as soon as the bus has room; return whether to go on with this pass."""
        while self._queues.may_send(record, monotonic()) and not self._send(record):
            if stop.is_set() or monotonic() >= end or self._gives_way():
                return False
            self._handle_outcomes(wait=_ROOM)
        return True

    def _send(self, record: Record) -> bool:
        """Hand a record to the bus; return False where the bus has no room, and nothing was done."""
        try:
            future = self._bus.publish_nowait(record.destination, frame_to_send(record))
        except WindowFull:  # its window is smaller than ours, or others use it too
            return False
        except DeploykitError as error:
            self._in_flight.add(record, self._queues.sent(record))
            self._handle_outcome(record.id, error)
        else:
            self._in_flight.add(record, self._queues.sent(record))
            future.add_done_callback(lambda done: self._receipt(record.id, done))
        return True

    def _receipt(self, record_id: RecordId, done: Future[None]) -> None:
        """On a thread of the bus: pass the outcome on, and end the relay's sleep."""
        self._outcomes.put((record_id, BusError("cancelled") if done.cancelled() else done.exception()))
        if self._sleeping.is_set():
            self._outbox.interrupt()

    def _handle_outcomes(self, wait: float = 0.0) -> None:
        """Handle all outcomes there are, waiting `wait` seconds for the first.

        Raises:
            BusClosed: the bus was closed.
        """
        try:
            self._handle_outcome(*self._outcomes.get(wait > 0, wait or None))
            while True:
                self._handle_outcome(*self._outcomes.get_nowait())
        except Empty:
            if self._closed is not None:
                closed, self._closed = self._closed, None
                raise closed from None

    def _handle_outcome(self, record_id: RecordId, error: BaseException | None) -> None:
        flight = self._in_flight.take(record_id)
        record, now = flight.record, monotonic()
        match error:
            case None:
                self._settled.ack(record)
                self._make_dead_letters(self._queues.confirmed(record, flight.order, now))
                return
            case Unsendable() | DialectError() | MessageError() | UsageError():
                # It was not sent, because of what it is: no attempt will do better.
                self._settled.dead_letter(record, str(error))
                self._make_dead_letters(self._queues.not_sent(record, now))
            case PublishRefused():
                self._make_dead_letters(self._queues.failed(record, flight.order, str(error), now, refused=True))
            case _:
                self._make_dead_letters(self._queues.failed(record, flight.order, str(error), now, refused=False))
                if isinstance(error, BusClosed):
                    self._closed = error
        self._settled.tally.problem = str(error)
        _log.warning("relay: %s to %s: %s", record.id, record.destination, error)

    def _make_dead_letters(self, undeliverable: list[Undeliverable]) -> None:
        for one in undeliverable:
            self._settled.dead_letter(one.record, one.reason)

    # -- other relays ------------------------------------------------------------------------------------------------

    def _gives_way(self) -> bool:
        """Return whether the relay of the spool's owner is there and this one is another user's. Looks now and then."""
        now = monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK
            self._lock.secure()
            self._owner_is_there = not self._outbox.settles_all and self._outbox.relay_listens(owner_only=True)
        return self._owner_is_there
