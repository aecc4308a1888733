"""The decision on one genuine deploy command: authorized, unopposed, claimed, in the audit, and then carried out.

Rules:

* What is refused is in the audit before it is answered, and what is allowed before it is done.
* A claimed id that comes again goes the same way again; a done one is answered with the stored report.
* What a command lacks here is asked for: the command is neither claimed nor answered, and comes again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

import attrs

from deploykit.bus import Ack, Reject, Verdict
from deploykit.daemons.agent.command_audit import CommandAudit
from deploykit.daemons.agent.deployer import SiteDeployer
from deploykit.daemons.agent.guards import AuthorizedCommand, CommandGuards, GuardMaker
from deploykit.daemons.service.metrics import Metrics
from deploykit.daemons.service.throttle import KeyedThrottle
from deploykit.errors import AuditError, IdForgotten, IdStoreError, PolicyRefused, RolloutMemoryError
from deploykit.ids import Claim, IdStore
from deploykit.messages import DeployOutcome, DeployReported, DeployRequested
from deploykit.release import DeployResult
from deploykit.trust.check import Verified

_log = logging.getLogger(__name__)

#: A done command is answered again at most once in so many seconds: less than an asker waits before it asks again, for
#: anybody can send copies of a command.
_REPEAT_AFTER: Final = 5.0


def _as_it_is(report: DeployReported) -> DeployReported:
    return report


@attrs.define(kw_only=True, slots=True)
class DeployDecision:
    """The answer to a command, and how far it has come.

    Args:
        result: what to report, if it is new.
        stored: the body of the report that was given before, if the command was done.
        verdict: for the bus, once the command is answered.
        claimed: the id was claimed here and must be marked done.
        missing: the command lacks something here and has no answer yet.
        complete: adds to the report what the guards know.
        reported: the body of the report that is in the outbox.
    """

    result: DeployResult | None = attrs.field(default=None, kw_only=False)
    stored: bytes | None = None
    verdict: Verdict = attrs.field(factory=Ack)
    claimed: bool = False
    missing: bool = False
    complete: Callable[[DeployReported], DeployReported] = _as_it_is
    reported: bytes | None = None


class DeployDecider:
    """Decides on the commands of one node, and carries out what is allowed.

    Args:
        deployer: carries commands out.
        ids: remembers which requests were acted on.
        audit: where decisions are recorded.
        guards: asked about every authorized command, in this order.
        now: the wall clock, aware UTC.
        metrics: counts the commands.
    """

    def __init__(
        self,
        deployer: SiteDeployer,
        ids: IdStore,
        audit: CommandAudit,
        guards: Sequence[GuardMaker],
        now: Callable[[], datetime],
        metrics: Metrics,
    ) -> None:
        self._deployer = deployer
        self._ids = ids
        self._audit = audit
        self._guards = tuple(guards)
        self._now = now
        self._metrics = metrics
        self._repeated = KeyedThrottle(_REPEAT_AFTER)

    def give_up(self, request: DeployRequested, command: Verified) -> DeployDecision:
        """Decide not to act: it failed before it was acted on, again and again, and not for lack of disk space."""
        return self._denied("failure", "given up; see the log of the agent", request, command)

    def decide(self, request: DeployRequested, command: Verified) -> DeployDecision:
        """Act on a genuine command, or refuse it.

        Args:
            request: the command.
            command: who signed it.

        Raises:
            AuditError, IdStoreError, RolloutMemoryError: the decision, the id or the rollout could not be recorded, so
                nothing was done. Try again, until the command has expired.
        """
        now, keys = self._now(), command.keys
        try:
            claimed_at = self._ids.claimed_at(keys, request.id)
            authorized = command.authorize(now, claimed_at=claimed_at)
            asked = AuthorizedCommand(
                request=request,
                command=command,
                authorized=authorized,
                judged_at=claimed_at or now,
                claimed_at=claimed_at,
            )
            done = claimed_at is not None and self._ids.reply(keys, request.id) is not None
            # What is done is answered again, whatever became of its mandate, its rollout or the site's lock.
            guards = CommandGuards([] if done else [make(asked) for make in self._guards], self._now)
            objection = guards.enter(now)
            if objection is not None and objection.missing:
                _log.info("waits: %s: %s: %s", command.signer, request.summary, objection.why)
                self._audit.denied(request, command, objection.why, guards.details)
                return DeployDecision(missing=True)
            claim = self._ids.claim(keys, request.id, command.digest, now, keep_until=authorized.keep_until)
        except (PolicyRefused, IdForgotten) as error:
            _log.warning("refused: %s: %s", command.signer, error)
            return self._denied("refused", str(error), request, command)
        except (IdStoreError, RolloutMemoryError) as error:
            if now <= request.expires + command.policy.skew:
                raise
            _log.error("given up, it has expired: %s: %s", request.summary, error)
            what = "id" if isinstance(error, IdStoreError) else "rollout"
            return self._denied("failure", f"its {what} could not be looked up: {error}", request, command)
        match claim:
            case Claim.CONFLICT:
                why = "the id of this request was used for another one: a replay, or a broken sender"
                self._audit.denied(request, command, why, guards.details)
                return DeployDecision(verdict=Reject(why))
            case Claim.DONE:
                return self._done_before(request, keys)
            case Claim.FRESH | Claim.RESUME:
                stopped = objection.why if objection is not None else ""
                decision = self._act(asked, now, guards, stopped, resumed=claim is Claim.RESUME)
                decision.claimed, decision.complete = True, guards.complete
                return decision

    def _done_before(self, request: DeployRequested, keys: tuple[str, ...]) -> DeployDecision:
        stored = self._ids.reply(keys, request.id) or b""  # before it counts as answered again
        if due := self._repeated.due((keys[0], request.id), time.monotonic()):
            _log.info("answered again, not repeated: %s", request.summary)
        return DeployDecision(stored=stored if due else None)

    def _denied(
        self,
        outcome: DeployOutcome,
        why: str,
        request: DeployRequested,
        command: Verified,
        details: Mapping[str, str] | None = None,
    ) -> DeployDecision:
        """Record that a command is not obeyed, and return the answer."""
        self._audit.denied(request, command, why, details or {})
        self._metrics.deploy_finished(request.site, request.phase, outcome)
        return DeployDecision(DeployResult(outcome=outcome, detail=why))

    def _act(
        self, asked: AuthorizedCommand, now: datetime, guards: CommandGuards, stopped: str, *, resumed: bool
    ) -> DeployDecision:
        """Obey an authorized command whose id is claimed, once that is in the audit; `stopped`: why it must not begin.

        One that is resumed may be carried out, with its answer in the site's records: the guards are asked there.

        Raises:
            AuditError: it could not be recorded, so nothing was done. Try again, until the command has expired.
        """
        request, command = asked.request, asked.command
        if stopped and not resumed:
            _log.warning("refused: %s: %s: %s", command.signer, request.summary, stopped)
            return self._denied("refused", stopped, request, command, guards.details)
        try:
            self._audit.allowed(request, command, guards.details, resumed=resumed)
        except AuditError as error:
            if now <= request.expires + command.policy.skew:
                raise
            _log.error("given up, it has expired: %s: %s", request.summary, error)
            return self._denied("failure", f"it could not be recorded: {error}", request, command, guards.details)
        result = self._deploy(request, command, guards, resumed=resumed)
        self._audit.ended(request, command, result, guards.details)
        return DeployDecision(result)

    def _deploy(
        self, request: DeployRequested, command: Verified, guards: CommandGuards, *, resumed: bool
    ) -> DeployResult:
        """Carry a command out, and count it unless it was carried out before."""
        begun = time.monotonic()
        result = self._deployer.deploy(request, command.signer, guards.objection, resumed=resumed)
        if not result.again:
            seconds = time.monotonic() - begun if result.outcome != "refused" else None
            self._metrics.deploy_finished(request.site, request.phase, result.outcome, seconds)
        return result
