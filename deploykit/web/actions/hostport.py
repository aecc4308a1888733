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

KeptState = Literal["proposed", "running", "ended", "withdrawn"]


@attrs.frozen(kw_only=True, slots=True)
class KeptRollout:
    """A rollout of this console, or of another one on its database.

    Args:
        head: what its journal begins with, the mandate with the signatures so far included.
        state: `proposed`, `running`, `ended` or `withdrawn`.
        requested_by: who asked for it.
        begun: seconds since 1970; of a proposal: when it was made.
    """

    head: JournalHead
    state: KeptState
    requested_by: str = ""
    begun: float = 0.0

    @property
    def rollout(self) -> str:
        """Its id."""
        return self.head.plan.rollout


class RolloutsKept(Protocol):
    """Keeps rollouts durably, and runs those that may run. Use it from any thread.

    Every method raises `LedgerError` where the database is away: nothing was done then.
    """

    def start(self, planned: PlannedRollout, by: str) -> None:
        """Keep a rollout and begin it; one that was proposed begins with the mandate it has now.

        Raises:
            RolloutBusy: another rollout of the site runs.
            UsageError: it was withdrawn, or begun before.
        """

    def propose(self, planned: PlannedRollout, mandate: HeldMandate, by: str) -> None:
        """Keep a rollout that waits for people."""

    def change_mandate(self, rollout: str, change: Callable[[HeldMandate], HeldMandate]) -> KeptRollout:
        """Replace the mandate of a proposal by what `change` makes of the one that it has now; two at once wait.

        Raises:
            UsageError: there is no such proposal, or it has begun.
        """

    def withdraw(self, rollout: str, by: str) -> None:
        """End a proposal.

        Raises:
            UsageError: there is no such proposal, or it has begun.
        """

    def control(self, rollout: str, kind: ControlKind, by: str, *, rollback: bool = False) -> None:
        """Leave a request for whoever coordinates a rollout.

        Raises:
            UsageError: it does not run.
        """

    def find(self, rollout: str) -> KeptRollout | None:
        """Return a rollout by its whole id."""

    def running(self, site: str) -> KeptRollout | None:
        """Return the rollout of a site that runs."""

    def newest(self, site: str) -> KeptRollout | None:
        """Return the rollout of a site that was begun last, whether it runs or has ended."""

    def proposals(self, site: str = "") -> Sequence[KeptRollout]:
        """Return the rollouts that wait for people, newest first; of all sites where `site` is empty."""

    def contents(self, rollout: str) -> JournalContents:
        """Return the journal of a rollout.

        Raises:
            UsageError: there is none.
        """


__all__ = ["KeptRollout", "KeptState", "RolloutsKept"]
