"""What actions need of whatever keeps and runs the console's rollouts: the ledger and its host, or a stand-in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import attrs

from deploykit.fleet.controls import ControlKind
from deploykit.fleet.journal import JournalContents
from deploykit.fleet.journalhead import JournalHead
from deploykit.fleet.mandates import HeldMandate
from deploykit.operations.rolloutplan import PlannedRollout

DeskState = Literal["proposed", "running", "ended", "withdrawn"]


@attrs.frozen(kw_only=True, slots=True)
class ConsoleRollout:
    """A rollout of this console, or of another one on its database.

    Args:
        head: what its journal begins with, the mandate with the signatures so far included.
        state: `proposed`, `running`, `ended` or `withdrawn`.
        requested_by: who asked for it.
        begun: seconds since 1970; of a proposal: when it was made.
    """

    head: JournalHead
    state: DeskState
    requested_by: str = ""
    begun: float = 0.0

    @property
    def rollout(self) -> str:
        """Its id."""
        return self.head.plan.rollout


class RolloutDesk(Protocol):
    """Keeps rollouts durably, and runs those that may run. Use it from any thread.

    Every method raises `LedgerError` where the database is away: nothing was done then.
    """

    def start(self, planned: PlannedRollout, by: str) -> None:
        """Keep a rollout that nobody must sign, and begin it.

        Raises:
            RolloutBusy: another rollout of the site runs.
            ConnectError: no broker is connected; nothing was kept.
        """

    def start_approved(self, rollout: str) -> None:
        """Begin a proposal that enough people have signed.

        Raises:
            PolicyRefused: too few have, its time is over or not come, or the site has moved on since.
            RolloutBusy, ConnectError: as `start`.
            UsageError: it was withdrawn, or begun before.
        """

    def propose(self, planned: PlannedRollout, mandate: HeldMandate, by: str) -> None:
        """Keep a rollout that waits for people."""

    def change_mandate(self, rollout: str, change: Callable[[HeldMandate], HeldMandate]) -> ConsoleRollout:
        """Replace the mandate of a proposal by what `change` makes of the one that it has now; two at once wait.

        Raises:
            UsageError: there is no such proposal, or it has begun.
        """

    def withdraw(self, rollout: str) -> None:
        """End a proposal.

        Raises:
            UsageError: there is no such proposal, or it has begun.
        """

    def control(self, rollout: str, kind: ControlKind, by: str, *, rollback: bool = False) -> None:
        """Leave a request for whoever coordinates a rollout.

        Raises:
            UsageError: it does not run.
        """

    def find(self, rollout: str) -> ConsoleRollout | None:
        """Return a rollout by its whole id."""

    def running(self, site: str) -> ConsoleRollout | None:
        """Return the rollout of a site that runs."""

    def newest(self, site: str) -> ConsoleRollout | None:
        """Return the rollout of a site that was begun last, whether it runs or has ended."""

    def proposals(self, site: str = "") -> Sequence[ConsoleRollout]:
        """Return the rollouts that wait for people, newest first; of all sites where `site` is empty."""

    def contents(self, rollout: str) -> JournalContents:
        """Return the journal of a rollout.

        Raises:
            UsageError: there is none.
        """


__all__ = ["ConsoleRollout", "DeskState", "RolloutDesk"]
