"""Every message on its way to a broker, from the call until the receipt, over all reconnects.

Rules:

* the order of the calls is the order of the sends, on the first connection and on each one after;
* a message leaves the table when its receipt came, the broker refused it, or its deadline passed: then its future says
  which; a message whose time is over is not sent any more;
* after a reconnect all that is left is sent again, in order, under the same receipt and message ids;
* the table is bounded: when it is full, `add` raises `WindowFull`, at once or when the time to wait for room is over;
* of these only `in_flight` are written and unconfirmed at a time, and a burst is written when half of them came back:
  RabbitMQ's own work per message grows with that number (44 microseconds at 256, 60 at 1000, 80 without a bound);
* what was out when the broker ended a connection may be to blame for it: `suspects` decides who is.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import monotonic

from deploykit.bus.events import Counters
from deploykit.bus.receipt import must_not_wait
from deploykit.bus.suspects import Evidence, MessageSuspects, after_error
from deploykit.errors import BusClosed, BusError, PublishError, PublishRefused, WindowFull
from deploykit.wire.frame import Frame


class PendingPublish:
    """One message on its way. Made by `UnconfirmedPublishes.add`; the fields are for the connection to read."""

    __slots__ = (
        "deadline",
        "destination",
        "done",
        "expires",
        "frame",
        "id",
        "losses",
        "out",
        "persistent",
        "sent",
        "seq",
        "size",
    )

    def __init__(
        self,
        seq: int,
        destination: str,
        frame: Frame,
        *,
        id: str,
        persistent: bool,
        expires: float | None,
        deadline: float,
        done: Callable[[BusError | None], None],
    ) -> None:
        self.seq = seq
        self.destination = destination
        self.frame = frame
        self.id = id
        self.persistent = persistent
        self.expires = expires
        self.deadline = deadline
        self.size = len(frame.body) + 512
        self.sent = False  # at least once, on any connection
        self.out = False  # on the present connection
        self.losses = 0
        self.done = done


class UnconfirmedPublishes:
    """Messages between `publish` and receipt. Any thread may add; one thread, the supervisor's, does the rest.

    Args:
        window: most messages at a time.
        in_flight: most of them that are written and have no receipt.
        window_bytes: most bytes at a time, bodies and an allowance for headers.
        counters: where to count.
        on_settled: called for each message that leaves, with its error or None; None: no one wants to know, yet.
    """

    def __init__(
        self,
        *,
        window: int,
        in_flight: int,
        window_bytes: int,
        counters: Counters,
        on_settled: Callable[[PendingPublish, BusError | None], None] | None = None,
    ) -> None:
        self._window = window
        self._window_bytes = window_bytes
        self._most_out = in_flight
        self._out = 0
        self._full = False
        self._counters = counters
        self.on_settled = on_settled
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._waiting = 0
        self._numbers = itertools.count(1)
        self._pending: dict[int, PendingPublish] = {}
        self._unsent: deque[PendingPublish] = deque()
        self._size = 0
        self._next_deadline = float("inf")
        self._suspects = MessageSuspects()
        self._closed: BusError | None = None

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def has_unsent(self) -> bool:
        """Whether `next_unsent` may have something to give now."""
        if not self._unsent or self._full:
            return False
        return not self._suspects.careful or (self._suspects.proved and not self._out)

    @property
    def in_flight(self) -> int:
        """Messages written to the present connection that have no receipt yet."""
        return self._out

    @property
    def careful(self) -> bool:
        """Whether messages are sent one at a time, because one of them seems to end connections."""
        return self._suspects.careful

    def needs_proof(self) -> bool:
        """Return, once a connection, whether it has to prove that it works before anything is sent."""
        with self._lock:
            return self._suspects.needs_proof()

    # -- any thread --------------------------------------------------------------------------------------------

    def add(
        self,
        destination: str,
        frame: Frame,
        *,
        id: str,
        persistent: bool,
        expires: float | None,
        deadline: float,
        done: Callable[[BusError | None], None],
        wait_until: float = 0.0,
    ) -> None:
        """Take a message. `done` is called once, with its outcome.

        Args:
            destination, frame, id, persistent, expires: the message.
            deadline: monotonic time at which it must be confirmed.
            done: called with None for a receipt, else with the error.
            wait_until: monotonic time until which to wait for room. The supervisor's own thread, which makes the room,
                never waits.

        Raises:
            WindowFull: no room.
            PublishError: the broker has just ended connections over this destination.
            BusClosed: the bus is closed.
        """
        with self._lock:
            if self._closed is not None:
                raise self._closed
            if destination in self._suspects.blamed and not self._suspects.is_open(destination, monotonic()):
                raise _shut(destination)
            if len(self._pending) >= self._window or self._size >= self._window_bytes:
                self._wait_for_room(0.0 if must_not_wait() else wait_until)
            seq = next(self._numbers)
            entry = PendingPublish(
                seq, destination, frame, id=id, persistent=persistent, expires=expires, deadline=deadline, done=done
            )
            self._pending[seq] = entry
            self._unsent.append(entry)
            self._size += entry.size
            self._next_deadline = min(self._next_deadline, deadline)

    def _wait_for_room(self, deadline: float) -> None:
        self._waiting += 1
        try:
            while len(self._pending) >= self._window or self._size >= self._window_bytes:
                left = deadline - monotonic()
                if left <= 0 or not self._room.wait(left):
                    raise WindowFull(
                        f"{len(self._pending)} messages wait for the broker's receipts: no room, not sent",
                        "is the broker up, and not in a memory alarm? wait for a future, or use publish(timeout=)",
                    )
                if self._closed is not None:
                    raise self._closed
        finally:
            self._waiting -= 1

    # -- the supervisor's thread -------------------------------------------------------------------------------

    def next_unsent(self) -> PendingPublish | None:
        """Return the next message to write, or None: nothing, enough is out, or in careful mode one is out already."""
        with self._lock:
            unsent = self._unsent
            while unsent and not self._full:
                entry = unsent[0]
                if entry.seq not in self._pending:
                    unsent.popleft()  # it was overdue before it was written
                    continue
                if self._suspects.careful:
                    if not self._suspects.proved or next(iter(self._pending.values())) is not entry:
                        return None  # not yet, or one is out already
                    self._suspects.look(entry, self._pending.values())
                unsent.popleft()
                if entry.sent:
                    self._counters.resent += 1
                entry.sent = entry.out = True
                self._out += 1
                self._full = self._out >= self._most_out
                return entry
            return None

    def proved(self) -> None:
        """The present connection has answered: what ends it from now on may be a message's doing."""
        with self._lock:  # callers see suspicions meanwhile
            self._suspects.see(Evidence.ANSWERED)

    def confirm(self, receipts: Iterable[bytes]) -> list[bytes]:
        """Settle what the broker confirmed; return the receipt ids that are not ours, for others to look at."""
        others = []
        pending, settled = self._pending, []
        for receipt in receipts:
            if not receipt.isdigit():
                others.append(receipt)
                continue
            entry = pending.pop(int(receipt), None)
            if entry is None:
                self._counters.late_receipts += 1
            else:
                settled.append(entry)
        if settled:
            self._counters.published += len(settled)
            self._suspects.confirmed(settled)
            self._give_room(settled)
            for entry in settled:
                entry.done(None)
            if self.on_settled is not None:
                for entry in settled:
                    self.on_settled(entry, None)
        return others

    def refuse(self, entry: PendingPublish, error: BusError) -> None:
        """Settle one message with an error, if it is still there."""
        if self._pending.pop(entry.seq, None) is not None:
            self._fail([entry], lambda _: error)

    def refuse_receipt(self, receipt: str, error: BusError) -> bool:
        """Settle the message of this receipt id with an error; return whether there was one."""
        entry = self._pending.get(int(receipt)) if receipt.isascii() and receipt.isdigit() else None
        if entry is not None:
            self.refuse(entry, error)
        return entry is not None

    def expire(self, now: float, reason: Callable[[PendingPublish], str]) -> float:
        """Settle what is overdue, with `reason(entry)` in the error; return when to call again."""
        if now < self._next_deadline:
            return self._next_deadline
        with self._lock:
            overdue = [entry for entry in self._pending.values() if entry.deadline <= now]
            for entry in overdue:
                del self._pending[entry.seq]
            self._next_deadline = min((entry.deadline for entry in self._pending.values()), default=float("inf"))
        self._fail(
            overdue,
            lambda entry: PublishError(
                f"no receipt for message {entry.id} to {entry.destination} in time: {reason(entry)}",
                "it may or may not have arrived: keep it and send it again",
            ),
        )
        return self._next_deadline

    def connection_lost(self, *, by_broker: bool, last_error: str = "") -> None:
        """Note that a connection ended, and get ready to send everything again.

        Args:
            by_broker: the broker ended a connection that worked, and not because of a subscription.
            last_error: what it reported before.
        """
        with self._lock:
            outcome = self._suspects.ended(self._pending.values(), monotonic(), blame=by_broker)
            for entry in self._pending.values():
                entry.out = False
            for entry in (*outcome.given_up, *outcome.held):
                del self._pending[entry.seq]
            self._unsent = deque(self._pending.values())
            self._out = 0
            self._full = False
        self._fail(outcome.held, lambda entry: _shut(entry.destination, last_error))
        self._fail(
            outcome.given_up,
            lambda entry: PublishRefused(
                f"the broker ended {entry.losses} connections when message {entry.id} to {entry.destination} "
                f"was sent ({len(entry.frame.body)} bytes)" + after_error(last_error),
                "look at its size and headers, and at the broker's log; sending it again will not help",
            ),
        )

    def close(self, error: BusClosed) -> None:
        """Settle everything with `error`, and refuse what comes after."""
        with self._lock:
            self._closed = error
            left = list(self._pending.values())
            self._pending.clear()
            self._unsent.clear()
            self._room.notify_all()
        self._fail(left, lambda _: error)

    def _fail(self, entries: Sequence[PendingPublish], error: Callable[[PendingPublish], BusError]) -> None:
        if not entries:
            return
        self._counters.publish_failed += len(entries)
        self._give_room(entries)
        for entry in entries:
            problem = error(entry)
            entry.done(problem)
            if self.on_settled is not None:
                self.on_settled(entry, problem)

    def _give_room(self, entries: Sequence[PendingPublish]) -> None:
        size = out = 0
        for entry in entries:
            size += entry.size
            out += entry.out
        with self._lock:
            self._size -= size
            self._out -= out
            if self._out <= self._most_out // 2:
                self._full = False
            if self._waiting:
                self._room.notify(len(entries))


def _shut(destination: str, last_error: str = "") -> PublishError:
    return PublishError(
        f"the broker ends connections over what is sent to {destination}: nothing is, for a while"
        + after_error(last_error),
        "look at the broker's log (a queue that is full?); keep the message and send it again later",
    )
