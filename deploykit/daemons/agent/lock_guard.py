"""Whether a lock of its site lets a command be obeyed: asked before it is claimed, and again when its turn has come.

Rules:

* What was carried out before a lock is answered from the records, whatever was locked since.
* What is at work when a lock comes is finished.
* The report carries the very statement for which a command was refused, or which it overrode.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import attrs

from deploykit.daemons.agent.guards import AuthorizedCommand, CommandGuard, Objection
from deploykit.daemons.agent.locks import LockKeeper
from deploykit.daemons.agent.rollout_guard import carried_out
from deploykit.messages import DeployReported, one_line
from deploykit.release import Site
from deploykit.trust.locks import LockDecision


class LockGuard(CommandGuard):
    """Asked about one command.

    Args:
        asked: the command.
        locks: of the node.
    """

    def __init__(self, asked: AuthorizedCommand, locks: LockKeeper) -> None:
        self._asked = asked
        self._locks = locks
        self._decision = LockDecision()

    def enter(self, now: datetime) -> Objection | None:
        """Return why a lock forbids the command."""
        why = self._decide(now)
        return Objection(why=why) if why else None

    def objection(self, site: Site, now: datetime) -> str:
        """Return why a lock forbids the command now, or an empty string."""
        why = self._decide(now)
        return "" if not why or carried_out(self._asked.request, site) else why

    @property
    def details(self) -> Mapping[str, str]:
        """Which lock forbade the command or was overridden, and why."""
        lock = self._decision.lock
        override = self._asked.request.override_lock
        return {
            **({"lock": f"{lock.message.serial} {lock.message.id}", "locked": str(lock)} if lock is not None else {}),
            **({"override_lock": one_line(override)} if override else {}),
        }

    def complete(self, report: DeployReported) -> DeployReported:
        """Return the report with the lock, and why it was overridden."""
        lock = self._decision.lock
        if lock is None or not (self._decision.overridden or report.outcome == "refused"):
            return report
        return attrs.evolve(report, lock=lock.signed, overridden=one_line(self._decision.overridden))

    def _decide(self, now: datetime) -> str:
        request = self._asked.request
        self._decision = self._locks.decide(request, [self._asked.command.signer], now)
        return self._decision.objection
