"""Which record may be sent now, and what a refusal means: the relay's decisions, one lane for each destination. Pure.

Rules:

* Within a lane records are sent in their order, many in flight. Once one was held back or failed, none behind it is
  sent until a later pass that begins at the front again.
* A failure closes its lane until everything of it that is in flight has come back. Then the lane is *careful*: one
  record at a time, until one is confirmed.
* A refused record is tried again, up to `max_attempts`, with growing pauses; then it is to be buried.
* A refused record that later ones of its lane have overtaken (they were in flight with it and were confirmed) is to
  be buried at once: sent again it would come behind them. A dead letter is a gap that is reported; a swap is not.
* A record whose fate is unknown (no receipt, connection lost) is sent again as often as it takes.
"""

from __future__ import annotations

import attrs

from deploykit.outbox import Record
from deploykit.system.backoff import Backoff


@attrs.define(slots=True)
class _Lane:
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
class ToBury:
    """A record that will not be sent, and why."""

    record: Record
    reason: str


class DestinationQueues:
    """The state of all lanes.

    Args:
        max_attempts: how often one record may be refused.
        pause, pause_max: seconds before the second attempt; doubled for each one after, up to the most.
    """

    def __init__(self, *, max_attempts: int, pause: float, pause_max: float) -> None:
        self._max_attempts = max_attempts
        self._backoff = Backoff(initial=pause, maximum=pause_max)
        self._lanes: dict[str, _Lane] = {}
        self._pass = 0

    def begin_pass(self) -> None:
        """Begin at the front of the spool again."""
        self._pass += 1
        for destination in [name for name, lane in self._lanes.items() if lane.idle]:
            del self._lanes[destination]

    def may_send(self, record: Record, now: float) -> bool:
        """Tell whether `record` may be sent now; if not, its lane is held for the rest of this pass."""
        lane = self._lanes.get(record.destination)
        if lane is None:
            return True
        if lane.held_in_pass == self._pass:
            return False
        if lane.failed or now < lane.not_before or (lane.careful and lane.in_flight):
            lane.held_in_pass = self._pass
            return False
        return True

    def sent(self, record: Record) -> int:
        """Note that `record` is on its way; return its order in the lane."""
        lane = self._lane(record)
        lane.in_flight += 1
        lane.order += 1
        return lane.order

    def confirmed(self, record: Record, order: int, now: float) -> list[ToBury]:
        """Note that the broker has `record`."""
        lane = self._lane(record)
        lane.in_flight -= 1
        lane.confirmed = max(lane.confirmed, order)
        if not lane.failed:
            lane.careful, lane.head, lane.attempts, lane.unsure = False, "", 0, 0
        return self._settle(lane, now)

    def gone(self, record: Record, now: float) -> list[ToBury]:
        """Note that `record` never left: the bus itself would not take it."""
        lane = self._lane(record)
        lane.in_flight -= 1
        return self._settle(lane, now)

    def failed(self, record: Record, order: int, reason: str, now: float, *, refused: bool) -> list[ToBury]:
        """Note that `record` was refused, or that nobody knows; return what is to be buried now."""
        lane = self._lane(record)
        lane.in_flight -= 1
        lane.failed.append(_Failed(order, record, reason, refused))
        lane.held_in_pass = self._pass
        return self._settle(lane, now)

    def next_time(self, now: float) -> float | None:
        """When the first lane that pauses may go on; None when none pauses."""
        return min((lane.not_before for lane in self._lanes.values() if lane.not_before > now), default=None)

    def _lane(self, record: Record) -> _Lane:
        return self._lanes.setdefault(record.destination, _Lane())

    def _settle(self, lane: _Lane, now: float) -> list[ToBury]:
        if lane.in_flight or not lane.failed:
            return []
        failed = sorted(lane.failed, key=lambda one: one.order)
        lane.failed = []
        lane.careful = True
        overtaken = [one for one in failed if one.refused and one.order < lane.confirmed]
        bury = [ToBury(one.record, f"{one.reason}; later messages there were accepted") for one in overtaken]
        left = [one for one in failed if one not in overtaken]
        if not left:
            lane.not_before = now
            return bury
        head = left[0]
        if not head.refused:
            lane.unsure += 1
            lane.not_before = now + self._backoff.pause(lane.unsure)
            return bury
        lane.attempts = lane.attempts + 1 if lane.head == head.record.id else 1
        lane.head = head.record.id
        if lane.attempts >= self._max_attempts:
            bury.append(ToBury(head.record, f"{head.reason}; refused {lane.attempts} times"))
            lane.attempts, lane.head, lane.not_before = 0, "", now
        else:
            lane.not_before = now + self._backoff.pause(lane.attempts)
        return bury
