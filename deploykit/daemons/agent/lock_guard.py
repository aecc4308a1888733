"""Whether a lock of its site lets a command be obeyed: asked before it is claimed, and again when its turn has come.

Rules:

* What was carried out before a lock is answered from the records, whatever was locked since.
* What is at work when a lock comes is finished.
* The report carries the very statement for which a command was refused, or which it overrode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial

import attrs

from deploykit.daemons.agent.guards import AuthorizedCommand, CommandGuard, Objection
from deploykit.daemons.agent.locks import LockKeeper
from deploykit.daemons.agent.mandates import Mandates
from deploykit.daemons.agent.rollout_guard import carried_out
from deploykit.errors import KeyFileError
from deploykit.messages import DeployReported, DeployRequested, one_line
from deploykit.release import Site
from deploykit.trust.locks import LockDecision
from deploykit.trust.signature import Signers


class LockGuard(CommandGuard):
    """Asked about one command.

    Args:
        asked: the command.
        locks: of the node.
        approvers: returns who approved the override beside the signer of the command: their right counts too.
    """

    def __init__(
        self,
        asked: AuthorizedCommand,
        locks: LockKeeper,
        approvers: Callable[[DeployRequested, datetime], Iterable[Signers]] = lambda *_: (),
    ) -> None:
        self._asked = asked
        self._locks = locks
        self._approvers = approvers
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

    @classmethod
    def of(cls, asked: AuthorizedCommand, locks: LockKeeper, mandates: Mandates) -> LockGuard:
        """Return the guard of a command. Who approved an override in its mandate may override."""
        return cls(asked, locks, partial(_approvers, mandates))

    def _decide(self, now: datetime) -> str:
        request = self._asked.request
        signers = [self._asked.command.signer]
        if request.override_lock:
            signers += self._approvers(request, now)
        self._decision = self._locks.decide(request, signers, now)
        return self._decision.objection


def _approvers(mandates: Mandates, request: DeployRequested, now: datetime) -> Iterable[Signers]:
    """Return who signed the mandate of a command, if it overrides the same lock for the same reason."""
    stored = mandates.find(request.mandate) if request.mandate is not None else None
    if stored is None or (stored.message.site, stored.message.override_lock) != (request.site, request.override_lock):
        return ()
    try:
        return (mandates.weigh(stored, now).mandate.signers,)
    except KeyFileError:
        return ()
