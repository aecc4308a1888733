"""Whether a command of a rollout may still be obeyed: not after an abort, and a discard not by others.

Rules:

* After an abort that counts for its sender, `deploy`, `prepare` and `activate` are refused: late, replayed, or claimed
  and not begun. What is at work when the abort comes is finished.
* `rollback` still works, but to nothing that was only prepared: that would be an activation under another name.
* `discard` is obeyed for the starter of the rollout here, and where `rollout.abort` is granted. One that names no
  rollout needs the grant.
* A discard for a rollout of which nothing was obeyed here succeeds where nothing waits, and removes nothing.
* What was carried out before is answered from the records, whatever was aborted since.
"""

from __future__ import annotations

from datetime import datetime

import attrs

from deploykit.daemons.agent.gate import only_prepared
from deploykit.daemons.agent.guards import AuthorizedCommand, CommandGuard, Objection
from deploykit.daemons.agent.rollouts import NotedAbort, RolloutMemory, RolloutSender
from deploykit.errors import PolicyRefused
from deploykit.messages import DeployRequested, one_line
from deploykit.release import Site


@attrs.frozen(kw_only=True, slots=True)
class RolloutGuard(CommandGuard):
    """Asked about one authorized command, before it is claimed and again when its turn has come.

    Args:
        request: the command.
        sender: who signed it, and by which grant's principal it passed.
        memory: of the node.
        may_abort: `rollout.abort` is granted to its signer for the site.
    """

    request: DeployRequested
    sender: RolloutSender
    memory: RolloutMemory
    may_abort: bool

    @classmethod
    def of(cls, asked: AuthorizedCommand, memory: RolloutMemory) -> RolloutGuard:
        """Return the guard of a command.

        Raises:
            PolicyRefused: a discard that its signer may not ask for.
        """
        request, command = asked.request, asked.command
        guard = cls(
            request=request,
            sender=RolloutSender(key=command.key, principal=asked.authorized.grant.principal),
            memory=memory,
            may_abort=command.policy.may_abort(command.signer, request.site),
        )
        if request.phase == "discard" and not guard.may_abort:
            if request.rollout is None:
                raise PolicyRefused(
                    "a discard must name the rollout that prepared the release",
                    "name it, or grant rollout.abort in [[trust.grants]]",
                )
            starter = guard._starter
            if starter is not None and not starter.is_signer(command.signer):
                raise PolicyRefused(
                    f"key {command.key} did not start rollout {request.rollout} on this node", _NEEDS_GRANT
                )
        return guard

    def enter(self, now: datetime) -> Objection | None:
        """Note whose command it is, unless it is stopped; return why it is.

        Raises:
            RolloutMemoryError: it cannot be written. Do not act.
        """
        if self.request.rollout is None or self.request.phase == "discard":
            return None
        mandate = self.request.mandate or ""
        abort = self.memory.obeyed(self.request.site, self.request.rollout, self.sender, now, mandate=mandate)
        if abort is None or self.request.phase == "rollback":
            return None
        return Objection(why=self._stopped_by(abort))

    def objection(self, site: Site, now: datetime) -> str:
        """Return why the command may not begin now, or an empty string. The site's lock is held, nothing is cut off."""
        request = self.request
        if request.phase == "discard":
            return self._discard_objection(site)
        if request.rollout is None:
            return ""
        abort = self.memory.get(request.site, request.rollout).abort_for(self.sender)
        if abort is None or carried_out(request, site):
            return ""
        if request.phase == "rollback" and not only_prepared(request, site):
            return ""
        return self._stopped_by(abort)

    @property
    def _starter(self) -> RolloutSender | None:
        request = self.request
        return self.memory.get(request.site, request.rollout).starter if request.rollout is not None else None

    def _discard_objection(self, site: Site) -> str:
        if self.may_abort or self._starter is not None:
            return ""
        waiting = site.state().prepared(self.request.ref or "", self.request.commit)
        if waiting is None:
            return ""
        return f"no command of rollout {self.request.rollout} was obeyed on this node; {_NEEDS_GRANT}"

    def _stopped_by(self, abort: NotedAbort) -> str:
        # Every subscriber reads this: the key is named, and the name that it vouches for; no line of our files.
        who = f"{one_line(abort.by)} (key {abort.key})" if abort.by else f"key {abort.key}"
        why = f": {one_line(abort.reason)}" if abort.reason else ""
        return f"rollout {self.request.rollout} was aborted by {who}{why}"


_NEEDS_GRANT = "another's discard needs the grant rollout.abort"


def carried_out(request: DeployRequested, site: Site) -> bool:
    """Return whether the site has an end of this very command on record: then only its answer is due."""
    known = site.recorded().answered(request.id)
    return known is not None and known.outcome not in ("", "interrupted")
