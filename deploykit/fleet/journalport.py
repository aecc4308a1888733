"""Where a coordinator writes a rollout down, and hears what others ask of it: a file on this machine, or a database.

Rules:

* `append` returns once the records are kept; where they cannot be, it raises, and what they announce is not sent.
* Records that need not be durable may be kept a moment later, and always before the next durable ones.
* A request is handed out until it is settled. Its name tells it from its repetition.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from deploykit.fleet.controls import ControlRequest
from deploykit.fleet.journal import JournalContents, JournalRecord


class JournalPort(Protocol):
    """The journal of one rollout, open for the one who coordinates it."""

    @property
    def contents(self) -> JournalContents:
        """What it held when it was opened."""
        ...

    @property
    def place(self) -> str:
        """Where it is, in words for a person."""
        ...

    def append(self, records: Iterable[JournalRecord], *, durable: bool = True) -> None:
        """Keep records, all of them or none; with `durable` they outlast a crash when it returns.

        Raises:
            DeploykitError: they are not kept. Nothing that they announce may be sent.
        """
        ...

    def requests(self) -> Sequence[ControlRequest]:
        """Return what others ask of the rollout and nobody has settled, oldest first. Called some times in a second.

        Raises:
            DeploykitError: this process may not go on with the rollout.
        """
        ...

    def settle(self, request: ControlRequest) -> None:
        """Remove a request that stands in the journal. One that cannot be removed now comes again."""
        ...


__all__ = ["JournalPort"]
