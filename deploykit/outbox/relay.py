"""The relay: what the outbox holds goes to the broker, and leaves the outbox when the broker has it.

Rules:

* `outbox.done` comes after the broker's receipt, never before. A crash in between sends a record again.
* Order is kept for each destination; `lanes` decides. A record the broker refuses for good is buried, and said so.
* One relay works on a spool for each user, by flock. The relay of the spool's owner (or of root) sends everybody's
  records; one of another user its own, and it gives way when the owner's comes up.
* A broker that is away costs nothing but time: records wait, the relay waits, and nobody is asked.
* One record's trouble is its own. What can never be sent is buried when it is read. What the disk will not remove or
  bury is owed: it is not sent again, the others go on, and it is tried again now and then. At `_MOST_OWED` nothing
  more is sent until the disk does what it should.
* Trouble that lasts is logged once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing, suppress
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Final, Protocol

import attrs

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
from deploykit.messages.destinations import check_destination
from deploykit.outbox import Outbox, Record, RecordId, RelayLock
from deploykit.outbox.ordering import DestinationQueues, ToBury
from deploykit.wire.codec import ID_HEADER
from deploykit.wire.frame import MAX_HEADER_COUNT, MAX_HEADERS, OF_THE_CONNECTION, Frame, headers_size

_log = logging.getLogger(__name__)

#: How soon a stop is noticed, at the latest.
_SLICE: Final = 0.25
#: How often a relay of one user looks whether the owner's has come up.
_LOOK: Final = 0.2
#: How long a stop waits for receipts that are on their way.
_GRACE: Final = 5.0
#: How long after trouble with the spool or the login, and how often a relay that stands by looks whether it is free.
_AGAIN: Final = 5.0
_STAND_BY: Final = 1.0
#: How many records may be owed to the spool: sent and not removed, or to be buried.
_MOST_OWED: Final = 1000


class Publisher(Protocol):
    """What the relay needs of a bus."""

    def publish_nowait(self, destination: str, frame: Frame) -> Future[None]:
        """Send without waiting; the future ends when the broker has it. WindowFull where there is no room."""
        ...

    def wait_connected(self, timeout: float) -> bool:
        """Wait until the broker can be talked to."""
        ...


@attrs.frozen(kw_only=True, slots=True)
class Buried:
    """A dead letter the relay made: a gap in what `destination` gets."""

    id: RecordId
    destination: str
    reason: str


@attrs.frozen(kw_only=True, slots=True)
class DrainReport:
    """What a drain came to.

    Args:
        sent: records confirmed by the broker and taken out of the spool.
        buried: dead letters made.
        complete: nothing was left that this relay may send.
        trouble: why something was left; empty when nothing was, or when another relay took over.
    """

    sent: int
    buried: tuple[Buried, ...]
    complete: bool
    trouble: str = ""


@attrs.define(slots=True)
class _InFlight:
    record: Record
    order: int
    size: int


@attrs.define(slots=True)
class _Tally:
    sent: int = 0
    buried: list[Buried] = attrs.field(factory=list)
    trouble: str = ""


def _with_id(record: Record) -> Frame:
    """The record's frame, with an id that is the same each time it is sent: receivers settle duplicates by it."""
    if ID_HEADER in record.frame.headers:
        return record.frame
    return Frame({**record.frame.headers, ID_HEADER: record.id}, record.frame.body)


def _never_sent(record: Record) -> str:
    """Return why no broker would take a record, or nothing. Whoever wrote it need not have used `Outbox.put`."""
    headers = record.frame.headers
    own = sorted(OF_THE_CONNECTION.intersection(headers))
    if own or "" in headers:
        return f"headers that belong to the connection: {', '.join(own) or 'one without a name'}"
    if headers_size(headers) > MAX_HEADERS or len(headers) > MAX_HEADER_COUNT:
        return f"headers of more than {MAX_HEADERS} bytes together, or more than {MAX_HEADER_COUNT}"
    try:
        check_destination(record.destination)
    except DialectError as error:
        return str(error)
    return ""


class Relay:
    """Sends what `outbox` holds over `bus`. Use it from one thread.

    Args:
        outbox: the spool.
        bus: a started bus; it stays the caller's.
        window, window_bytes: most records and bytes in flight.
        max_attempts: how often one record may be refused before it is buried.
        pause, pause_max: seconds between attempts, growing.
        rescan: seconds after which the spool is looked at although nobody said anything.
        on_buried: called for each dead letter.
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
        on_buried: Callable[[Buried], None] | None = None,
    ) -> None:
        self._outbox = outbox
        self._bus = bus
        self._window = window
        self._window_bytes = window_bytes
        self._rescan = rescan
        self._on_buried = on_buried
        self._lanes = DestinationQueues(max_attempts=max_attempts, pause=pause, pause_max=pause_max)
        self._in_flight: dict[RecordId, _InFlight] = {}
        self._bytes = 0
        self._back: SimpleQueue[tuple[RecordId, BaseException | None]] = SimpleQueue()
        self._sleeping = threading.Event()
        self._owed: dict[RecordId, str | None] = {}  # what to do: the reason to bury it, or None: remove it
        self._owed_next = 0.0
        self._meanwhile: set[RecordId] = set()  # what was settled while the file at hand is read
        self._lock = RelayLock(outbox.path)
        self._said: set[str] = set()  # the troubles that were logged and are not over
        self._tally = _Tally()
        self._moved = 0  # records that left the spool, ever
        self._news = False  # something was put since the pass began
        self._closed: BusClosed | None = None
        self._next_look = 0.0
        self._yields = False

    # -- the two ways to run it --------------------------------------------------------------------------------------

    def drain_once(self, deadline: float = 60.0) -> DrainReport:
        """Send what waits, and return when nothing is left or `deadline` seconds are over.

        Raises:
            LockBusy: another relay is at work for this user; it sends what waits.
            OutboxError: the spool cannot be read.
            LoginRefused: no broker takes us.
        BusClosed: the bus was closed before all was sent.
        """
        end = monotonic() + deadline
        self._tally = _Tally()
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
                break  # who came meanwhile looks after what came meanwhile
            # ... and looks again after it stopped listening, for who wrote just before.
            if not complete or monotonic() >= end or not self._something_waits():
                break
        return self._report(complete=complete)

    def run(self, stop: threading.Event, *, stand_by: bool = True) -> None:
        """Send records as they come, until `stop` is set.

        Args:
            stand_by: where another relay is at work at the start, wait and take over when it ends; else raise.

        Raises:
            LockBusy: another relay is at work from the start, and `stand_by` is off.
        """
        said = held = False
        while not stop.is_set():
            try:
                with self._lock:
                    said, held = False, True
                    self._work(stop)
            except LockBusy:
                if not stand_by and not held:
                    raise
                if not said:
                    _log.info("another relay works on spool %s; standing by", self._outbox.path)
                said = True
                stop.wait(_STAND_BY)
            except (OutboxError, ConnectError) as error:
                self._say(f"{error}; trying again")
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
            moved = self._moved
            if not self._pass(stop, end):
                self._tally.trouble = ""
                return True
            if monotonic() >= end or self._gives_way():
                return False
            self._rest(stop, min(end, monotonic() + (0.0 if self._moved > moved else self._pause())))

    def _work(self, stop: threading.Event) -> None:
        self._outbox.wait(0)
        while not stop.is_set() and not self._gives_way():
            self._tally = _Tally()
            moved, begun = self._moved, monotonic()
            left = self._pass(stop, float("inf"))
            if self._moved > moved:
                _log.info("relay: %d sent, %d dead letters", self._tally.sent, len(self._tally.buried))
            if not left:
                self._rest(stop, monotonic() + self._rescan)
            elif self._moved == moved:
                # A pass that moved nothing may have read a long backlog: no new record makes it read it again at once.
                stop.wait(min(5.0, monotonic() - begun))
                self._rest(stop, monotonic() + self._pause())
        self._finish()

    def _pass(self, stop: threading.Event, end: float) -> bool:
        """Go through the spool once from the front, sending what may be sent; tell whether something was left."""
        self._news = False
        if not self._wait_connected(stop, end):
            self._tally.trouble = "no broker can be reached"
            return bool(self._in_flight) or self._something_waits()
        self._lanes.begin_pass()
        retry_owed = self._is_time_to_pay()
        unseen, stem = set(self._owed), ""
        with closing(self._outbox.pending()) as records:
            for record in records:
                if record.stem != stem:
                    stem = record.stem
                    self._meanwhile.clear()
                if record.id in self._in_flight or record.id in self._meanwhile:
                    continue
                if record.id in self._owed:
                    unseen.discard(record.id)
                    if retry_owed:
                        self._pay(record)
                    continue
                if not self._make_room(stop, end) or self._gives_way():
                    return True
                if problem := _never_sent(record):
                    self._bury([ToBury(record, problem)])
                elif not self._send_in_turn(record, stop, end):
                    return True
        if retry_owed:
            self._forget_owed(unseen)
        while self._in_flight and not (self._news or stop.is_set() or monotonic() >= end or self._gives_way()):
            self._sleep(min(_SLICE, end - monotonic()))
        if unreadable := self._outbox.unreadable:
            self._tally.trouble = f"{len(unreadable)} files of the spool cannot be read"
        return bool(self._in_flight or self._owed or unreadable) or self._something_waits()

    def _something_waits(self) -> bool:
        with closing(self._outbox.pending()) as records:
            return next(records, None) is not None

    def _wait_connected(self, stop: threading.Event, end: float) -> bool:
        while not self._bus.wait_connected(min(_SLICE, max(0.0, end - monotonic()))):
            self._take_back()
            if stop.is_set() or monotonic() >= end or self._gives_way():
                return False
        return True

    def _make_room(self, stop: threading.Event, end: float) -> bool:
        """Wait until one more may be in flight; tell whether to go on with this pass."""
        self._take_back()
        while len(self._in_flight) >= self._window or self._bytes >= self._window_bytes:
            if stop.is_set() or monotonic() >= end or self._gives_way():
                return False
            self._take_back(wait=_SLICE)
        if stop.is_set() or monotonic() >= end or len(self._owed) >= _MOST_OWED:
            return False
        return not self._tally.trouble or self._bus.wait_connected(0)

    def _pause(self) -> float:
        """How long to rest with records left and nothing moved: until a lane's pause is over, or a second."""
        now = monotonic()
        next_time = self._lanes.next_time(now)
        if next_time is None:
            return max(0.0, self._owed_next - now) if self._owed else 1.0
        return next_time - now

    def _rest(self, stop: threading.Event, until: float) -> None:
        """Sleep until something is put, a receipt that was owed comes, or it is time."""
        moved = self._moved
        while not (stop.is_set() or self._news or self._moved > moved or self._gives_way()):
            left = until - monotonic()
            if left <= 0:
                return
            self._sleep(min(_SLICE, left))

    def _sleep(self, timeout: float) -> None:
        """Sleep until a receipt comes or a record is put, at most `timeout` seconds; take in what came."""
        self._sleeping.set()
        try:
            if self._back.empty() and self._outbox.wait(max(0.0, timeout)):
                self._news = True
        finally:
            self._sleeping.clear()
        self._take_back()

    def _end(self) -> None:
        """Settle what came back before the bus was closed, and listen no more."""
        with suppress(BusClosed):
            self._take_back()
        self._outbox.close()

    def _finish(self) -> None:
        """After a stop: take in the receipts that are about to come, so that little is sent twice."""
        end = monotonic() + _GRACE
        while self._in_flight and monotonic() < end and self._bus.wait_connected(0):
            self._take_back(wait=_SLICE)
        self._take_back()

    # -- one record --------------------------------------------------------------------------------------------------

    def _send_in_turn(self, record: Record, stop: threading.Event, end: float) -> bool:
        """Send a record if its lane is open, as soon as the bus has room; return whether to go on with this pass."""
        while self._lanes.may_send(record, monotonic()) and not self._send(record):
            if stop.is_set() or monotonic() >= end or self._gives_way():
                return False
            self._take_back(wait=_SLICE)
        return True

    def _send(self, record: Record) -> bool:
        """Hand a record to the bus; return False where the bus has no room: then nothing was done."""
        size = len(record.frame.body) + 1024
        self._in_flight[record.id] = _InFlight(record, self._lanes.sent(record), size)
        self._bytes += size
        try:
            future = self._bus.publish_nowait(record.destination, _with_id(record))
        except WindowFull:  # others use the same bus, or its window is smaller than ours
            self._bytes -= self._in_flight.pop(record.id).size
            self._bury(self._lanes.gone(record, monotonic()))
            return False
        except DeploykitError as error:
            self._came_back(record.id, error)
        else:
            future.add_done_callback(lambda done: self._receipt(record.id, done))
        return True

    def _receipt(self, record_id: RecordId, done: Future[None]) -> None:
        """On a thread of the bus: hand the outcome over, and end the relay's sleep."""
        self._back.put((record_id, BusError("cancelled") if done.cancelled() else done.exception()))
        if self._sleeping.is_set():
            self._outbox.wake()

    def _take_back(self, wait: float = 0.0) -> None:
        """Settle what came back, all of it; then, if the bus was closed, say so."""
        try:
            self._came_back(*self._back.get(wait > 0, wait or None))
            while True:
                self._came_back(*self._back.get_nowait())
        except Empty:
            if self._closed is not None:
                closed, self._closed = self._closed, None
                raise closed from None

    def _came_back(self, record_id: RecordId, error: BaseException | None) -> None:
        flight = self._in_flight.pop(record_id)
        self._bytes -= flight.size
        record, now = flight.record, monotonic()
        match error:
            case None:
                self._settle(record, None)
                self._tally.sent += 1
                self._moved += 1
                self._bury(self._lanes.confirmed(record, flight.order, now))
                return
            case Unsendable() | DialectError() | MessageError() | UsageError():
                # It was not sent, because of what it is: no attempt will do better.
                self._bury([ToBury(record, str(error)), *self._lanes.gone(record, now)])
            case PublishRefused():
                self._bury(self._lanes.failed(record, flight.order, str(error), now, refused=True))
            case _:
                self._lanes.failed(record, flight.order, str(error), now, refused=False)
                if isinstance(error, BusClosed):
                    self._closed = error
        self._tally.trouble = str(error)
        _log.warning("relay: %s to %s: %s", record.id, record.destination, error)

    def _bury(self, verdicts: list[ToBury]) -> None:
        for verdict in verdicts:
            self._settle(verdict.record, verdict.reason)
            self._moved += 1

    def _settle(self, record: Record, reason: str | None) -> bool:
        """Remove a record that was sent, or bury it for `reason`; return whether that was done. Else it is owed."""
        try:
            if reason is None:
                self._outbox.done(record)
            else:
                self._bury_one(record, reason)
        except OutboxError as error:
            self._owed[record.id] = reason
            self._tally.trouble = str(error)
            self._say(str(error))
            return False
        if record.of > 1:
            self._meanwhile.add(record.id)
        return True

    def _bury_one(self, record: Record, reason: str) -> None:
        dead_id = self._outbox.bury(record, reason)
        dead = Buried(id=dead_id, destination=record.destination, reason=reason)
        self._tally.buried.append(dead)
        _log.error("relay: dead letter %s: %s will lack this message: %s", dead.id, dead.destination, dead.reason)
        if self._on_buried is not None:
            self._on_buried(dead)

    def _is_time_to_pay(self) -> bool:
        """Return whether this pass tries again what is owed. One that is then cut short counts, too."""
        now = monotonic()
        if now < self._owed_next:
            return False
        self._owed_next = now + _AGAIN
        return True

    def _pay(self, record: Record) -> None:
        """Try once more what the disk refused."""
        if self._settle(record, self._owed[record.id]):
            del self._owed[record.id]
            self._moved += 1

    def _forget_owed(self, gone: set[RecordId]) -> None:
        """Forget what is no longer in the spool; say so when nothing is owed any more."""
        for record_id in gone:
            self._owed.pop(record_id, None)
        if not self._owed and self._said:
            self._said.clear()
            _log.info("relay: spool %s does what it should again", self._outbox.path)

    def _say(self, problem: str) -> None:
        if problem not in self._said:
            _log.error("relay: %s", problem)
        self._said.add(problem)

    def _gives_way(self) -> bool:
        """Whether the relay of the spool's owner is there, and this one is not it. Asked now and then."""
        now = monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK
            self._lock.secure()
            self._yields = not self._outbox.settles_all and self._outbox.relay_listens(owner_only=True)
        return self._yields

    def _report(self, *, complete: bool) -> DrainReport:
        tally = self._tally
        return DrainReport(
            sent=tally.sent, buried=tuple(tally.buried), complete=complete, trouble="" if complete else tally.trouble
        )
