"""The records that were handed to the bus and have no outcome yet. Pure."""

from __future__ import annotations

from typing import Final

import attrs

from deploykit.outbox.format import RecordId
from deploykit.outbox.record import Record

#: Bytes a record counts for beyond its body.
_OVERHEAD: Final = 1024


@attrs.frozen(slots=True)
class Flight:
    """One record on its way, and its order among those sent to its destination."""

    record: Record
    order: int
    size: int


class InFlight:
    """The records on their way.

    Args:
        window, window_bytes: most records and bytes.
    """

    def __init__(self, *, window: int, window_bytes: int) -> None:
        self._window = window
        self._window_bytes = window_bytes
        self._flights: dict[RecordId, Flight] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, record_id: RecordId) -> bool:
        return record_id in self._flights

    @property
    def full(self) -> bool:
        """Whether no more may be sent."""
        return len(self._flights) >= self._window or self._bytes >= self._window_bytes

    def add(self, record: Record, order: int) -> None:
        """Note that a record was handed to the bus."""
        flight = Flight(record, order, len(record.frame.body) + _OVERHEAD)
        self._flights[record.id] = flight
        self._bytes += flight.size

    def take(self, record_id: RecordId) -> Flight:
        """Remove and return a record whose outcome is known."""
        flight = self._flights.pop(record_id)
        self._bytes -= flight.size
        return flight
