"""Which record may be sent now, and what a refusal means: the relay's decisions, a queue for each destination. Pure.

Rules:

* Within a queue records are sent in their order, many in flight. Once one was held back or failed, none behind it is
  sent until a later pass that begins at the front again.
* A failure closes its queue until every record of it that is in flight has its outcome. Then the queue is *careful*:
  one record at a time, until one is confirmed.
* A refused record is tried again, up to `max_attempts`, with growing pauses; then it becomes a dead letter.
* A refused record that later ones of its queue have overtaken (in flight with it, and confirmed) becomes a dead letter
  at once: sent again it would come behind them. A dead letter is a gap that is reported; a swap is not.
* A record of unknown fate (no receipt, connection lost) is sent again as often as it takes.
"""

from __future__ import annotations

import attrs

from deploykit.outbox import Record
from deploykit.system.backoff import Backoff


@attrs.define(slots=True)
class _Queue:
    in_flight: int = 0
    order: int = 0  # of the last record sent
    confirmed: int = 0  # the highest order confirmed
    failed: list[_Failed] = attrs.field(factory=list)
    held_in_pass: int = -1
    careful: bool = False
    head: str = ""
    attempts: int = 0
    unsure: int = 0
    not_before: float = 0.0

    @property
    def idle(self) -> bool:
        return not (self.in_flight or self.failed or self.careful)


@attrs.frozen(slots=True)
class _Failed:
    order: int
    record: Record
    reason: str
    refused: bool


@attrs.frozen(slots=True)
class Undeliverable:
    """A record that is to become a dead letter, and why."""

    record: Record
    reason: str


class DestinationQueues:
    """The records in flight and failed, by destination.

    Args:
        max_attempts: how often one record may be refused.
        pause, pause_max: seconds before the second attempt; doubled for each one after, up to `pause_max`.
    """

    def __init__(self, *, max_attempts: int, pause: float, pause_max: float) -> None:
        self._max_attempts = max_attempts
        self._backoff = Backoff(initial=pause, maximum=pause_max)
        self._queues: dict[str, _Queue] = {}
        self._pass = 0

    def begin_pass(self) -> None:
        """Begin at the front of the spool again, and forget queues with nothing to remember."""
        self._pass += 1
        for destination in [name for name, queue in self._queues.items() if queue.idle]:
            del self._queues[destination]

    def may_send(self, record: Record, now: float) -> bool:
        """Return whether `record` may be sent now; if not, its queue is held for the rest of this pass."""
        queue = self._queues.get(record.destination)
        if queue is None:
            return True
        if queue.held_in_pass == self._pass:
            return False
        if queue.failed or now < queue.not_before or (queue.careful and queue.in_flight):
            queue.held_in_pass = self._pass
            return False
        return True

    def sent(self, record: Record) -> int:
        """Note that `record` is on its way; return its order in the queue."""
        queue = self._queue_of(record)
        queue.in_flight += 1
        queue.order += 1
        return queue.order

    def confirmed(self, record: Record, order: int, now: float) -> list[Undeliverable]:
        """Note that the broker has `record`; return what is to become a dead letter now."""
        queue = self._queue_of(record)
        queue.in_flight -= 1
        queue.confirmed = max(queue.confirmed, order)
        if not queue.failed:
            queue.careful, queue.head, queue.attempts, queue.unsure = False, "", 0, 0
        return self._settle(queue, now)

    def not_sent(self, record: Record, now: float) -> list[Undeliverable]:
        """Note that the bus did not take `record`; return what is to become a dead letter now."""
        queue = self._queue_of(record)
        queue.in_flight -= 1
        return self._settle(queue, now)

    def failed(self, record: Record, order: int, reason: str, now: float, *, refused: bool) -> list[Undeliverable]:
        """Note that `record` was refused, or its fate is unknown; return what is to become a dead letter now."""
        queue = self._queue_of(record)
        queue.in_flight -= 1
        queue.failed.append(_Failed(order, record, reason, refused))
        queue.held_in_pass = self._pass
        return self._settle(queue, now)

    def next_time(self, now: float) -> float | None:
        """Return when the first pausing queue may go on; None when none pauses."""
        return min((queue.not_before for queue in self._queues.values() if queue.not_before > now), default=None)

    def _queue_of(self, record: Record) -> _Queue:
        return self._queues.setdefault(record.destination, _Queue())

    def _settle(self, queue: _Queue, now: float) -> list[Undeliverable]:
        if queue.in_flight or not queue.failed:
            return []
        failed = sorted(queue.failed, key=lambda one: one.order)
        queue.failed = []
        queue.careful = True
        overtaken = [one for one in failed if one.refused and one.order < queue.confirmed]
        dead = [Undeliverable(one.record, f"{one.reason}; later messages there were accepted") for one in overtaken]
        left = [one for one in failed if one not in overtaken]
        if not left:
            queue.not_before = now
            return dead
        head = left[0]
        if not head.refused:
            queue.unsure += 1
            queue.not_before = now + self._backoff.pause(queue.unsure)
            return dead
        queue.attempts = queue.attempts + 1 if queue.head == head.record.id else 1
        queue.head = head.record.id
        if queue.attempts >= self._max_attempts:
            dead.append(Undeliverable(head.record, f"{head.reason}; refused {queue.attempts} times"))
            queue.attempts, queue.head, queue.not_before = 0, "", now
        else:
            queue.not_before = now + self._backoff.pause(queue.attempts)
        return dead
