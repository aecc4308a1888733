"""Rollouts of the ledger as actions see them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Final

from deploykit.errors import JournalDamaged
from deploykit.fleet.journal import JournalContents
from deploykit.web.actions.hostport import ConsoleRollout
from deploykit.web.ledger.rollouts import LedgerRollout, RolloutLedger

_log = logging.getLogger(__name__)

#: Most proposals that are looked at.
MOST_PROPOSED: Final = 1000


class RolloutLookup:
    """The part of `web.actions.hostport.RolloutDesk` that only reads.

    Args:
        rollouts: of the ledger.
    """

    def __init__(self, rollouts: RolloutLedger) -> None:
        self._rollouts = rollouts

    def find(self, rollout: str) -> ConsoleRollout | None:
        """Return a rollout by its whole id; None where there is none."""
        row = self._rollouts.find(rollout)
        return console_rollout(row) if row is not None else None

    def running(self, site: str) -> ConsoleRollout | None:
        """Return the rollout of a site that runs; None where none does."""
        row = self._rollouts.running(site)
        return console_rollout(row) if row is not None else None

    def newest(self, site: str) -> ConsoleRollout | None:
        """Return the rollout of a site that was begun last; None where none was."""
        found = self._rollouts.list(site=site, states=("running", "ended"), limit=1)
        return console_rollout(found[0]) if found else None

    def proposals(self, site: str = "") -> Sequence[ConsoleRollout]:
        """Return the rollouts that wait for people, newest first. One that cannot be read is left out, and logged."""
        return tuple(_readable(self._rollouts.list(site=site, states=("proposed",), limit=MOST_PROPOSED)))

    def contents(self, rollout: str) -> JournalContents:
        """Return the journal of a rollout.

        Raises:
            UsageError: there is none.
            JournalDamaged: it cannot be read.
        """
        return self._rollouts.contents(rollout)


def console_rollout(row: LedgerRollout) -> ConsoleRollout:
    """Return a rollout as actions know it.

    Raises:
        JournalDamaged: what it is to do cannot be read.
    """
    return ConsoleRollout(head=row.head(), state=row.state, requested_by=row.requested_by, begun=row.begun)


def _readable(rows: Sequence[LedgerRollout]) -> Iterator[ConsoleRollout]:
    for row in rows:
        try:
            yield console_rollout(row)
        except JournalDamaged as error:
            _log.error("%s", error)


__all__ = ["MOST_PROPOSED", "RolloutLookup", "console_rollout"]
