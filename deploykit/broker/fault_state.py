"""The faults that are switched on in the embedded broker: plain state that the broker's loop reads.

Tests set it through `deploykit.broker.faults.FaultSwitches`, from any thread.
"""

from __future__ import annotations

import random

from attrs import define, field, frozen


@frozen(kw_only=True)
class PlannedError:
    """An ERROR to answer the next matching frame with."""

    command: str
    message: str
    close: bool


@define(kw_only=True, eq=False)
class FaultState:
    """The faults switched on. Counts go down by one for each frame they hit."""

    frozen: bool = False
    mute_connect: bool = False
    refuse_connections: bool = False
    withhold_receipts: bool = False
    stop_reading: bool = False
    heartbeats_off: bool = False
    refuse_heartbeats: bool = False
    read_rate: int | None = None
    planned_errors: list[PlannedError] = field(factory=list)
    lose_acks: int = 0
    duplicate_sends: int = 0
    shuffle: random.Random | None = None

    def take_error(self, command: str) -> PlannedError | None:
        """Return and use up the ERROR planned for `command`, if there is one."""
        for index, planned in enumerate(self.planned_errors):
            if planned.command == command:
                return self.planned_errors.pop(index)
        return None

    def take_lost_ack(self) -> bool:
        """Return whether to ignore this ACK or NACK, and count it."""
        if self.lose_acks <= 0:
            return False
        self.lose_acks -= 1
        return True

    def take_duplicate(self) -> bool:
        """Return whether to store this SEND twice, and count it."""
        if self.duplicate_sends <= 0:
            return False
        self.duplicate_sends -= 1
        return True
