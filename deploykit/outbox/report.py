"""What a relay reports: the dead letters it made, and the result of a drain."""

from __future__ import annotations

import attrs

from deploykit.outbox.format import RecordId


@attrs.frozen(kw_only=True, slots=True)
class DeadLetter:
    """A dead letter the relay made: a message that `destination` will lack."""

    id: RecordId
    destination: str
    reason: str


@attrs.frozen(kw_only=True, slots=True)
class DrainReport:
    """The result of a drain.

    Args:
        sent: records confirmed by the broker and taken out of the spool.
        dead_letters: dead letters made.
        complete: nothing was left that this relay may send.
        problem: why something was left; empty when nothing was, or when another relay took over.
    """

    sent: int
    dead_letters: tuple[DeadLetter, ...]
    complete: bool
    problem: str = ""


@attrs.define(slots=True)
class Tally:
    """What a relay has done since its drain or pass began, and the last problem it met."""

    sent: int = 0
    dead_letters: list[DeadLetter] = attrs.field(factory=list)
    problem: str = ""

    def report(self, *, complete: bool) -> DrainReport:
        """Return it as a report; a complete drain has no problem."""
        return DrainReport(
            sent=self.sent,
            dead_letters=tuple(self.dead_letters),
            complete=complete,
            problem="" if complete else self.problem,
        )
