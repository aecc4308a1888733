"""`RolloutAbort` on one node: judged, noted, recorded; a copy of it changes nothing.

Rules:

* It must be signed, in time, and by a key that may deploy the site or has the grant `rollout.abort` for it.
* Without that grant, a rollout that others started here is not theirs to abort.
* A rollout that is unknown here may begin later: the abort is kept, and counts then for whoever signed it.
* It counts before it is in the audit, and where the audit cannot be written: it only ever stops something.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Final

from deploykit.bus import Ack, Retry, Verdict
from deploykit.daemons.agent.command_audit import CommandAudit
from deploykit.daemons.agent.rollouts import NotedAbort, RolloutMemory
from deploykit.errors import PolicyRefused, RolloutMemoryError
from deploykit.messages import RolloutAbort
from deploykit.names import SiteName
from deploykit.trust.check import Verified

_log = logging.getLogger(__name__)

#: Seconds until an abort is written again that the disk had no room for.
_RETRY_AFTER: Final = 5.0
#: Seconds until an abort that this agent leaves comes again, to the next agent.
_HAND_BACK_AFTER: Final = 900.0
#: Most characters that are kept of a name and of a reason.
_LONGEST: Final = 200


class AbortHandler:
    """Obeys `RolloutAbort` on one node. Use it from any thread.

    Args:
        memory: where aborts are noted.
        sites: of this node; an abort for another site is not its business.
        audit: where decisions are recorded.
        now: the wall clock, aware UTC.
        ending: set when the agent ends.
    """

    def __init__(
        self,
        memory: RolloutMemory,
        sites: frozenset[SiteName],
        audit: CommandAudit,
        now: Callable[[], datetime],
        ending: threading.Event,
    ) -> None:
        self._memory = memory
        self._sites = sites
        self._audit = audit
        self._now = now
        self._ending = ending

    def handle(self, command: Verified) -> Verdict:
        """Act on a genuine message for this node, if it is an abort of a rollout of one of its sites."""
        abort = command.message
        if not isinstance(abort, RolloutAbort) or abort.site not in self._sites:
            return Ack()
        try:
            for_all = command.policy.authorize_abort(abort, command.signer, command.node, self._now())
            self._check_owner(abort, command, for_all=for_all)
        except PolicyRefused as error:
            _log.warning("refused: %s: %s: %s", command.signer, abort.summary, error)
            self._audit.abort_denied(abort, command, str(error))
            return Ack()
        noted = NotedAbort(
            key=command.key,
            principals=command.signer.principals,
            for_all=for_all,
            by=abort.requested_by[:_LONGEST],
            reason=abort.reason[:_LONGEST],
        )
        return self._note(abort, command, noted)

    def _check_owner(self, abort: RolloutAbort, command: Verified, *, for_all: bool) -> None:
        senders = self._memory.get(abort.site, abort.rollout).senders
        if senders and not for_all and not any(sender.is_signer(command.signer) for sender in senders):
            raise PolicyRefused(
                f"rollout {abort.rollout} is not of key {command.key}",
                "who started it aborts it, or who has the grant rollout.abort",
            )

    def _note(self, abort: RolloutAbort, command: Verified, noted: NotedAbort) -> Verdict:
        """Note an abort, until it is on the disk."""
        new, before = False, ""
        while True:
            try:
                new = self._memory.aborted(abort.site, abort.rollout, noted, self._now()) or new
                break
            except RolloutMemoryError as error:
                new = True
                if str(error) != before:
                    _log.error("cannot keep an abort, it counts until the agent ends: %s: %s", abort.summary, error)
                before = str(error)
            if self._ending.wait(_RETRY_AFTER):
                return Retry(after=_HAND_BACK_AFTER)
        if new:
            _log.warning("%s, signed %s", abort.summary, command.signer)
            self._audit.abort_noted(abort, command, "for all" if noted.for_all else "for its own commands")
        return Ack()
