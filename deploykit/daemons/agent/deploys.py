"""The agent's deploy commands: a signed command is obeyed once, and answered with exactly one final report.

    Trust.check -> authorize -> is its rollout aborted? -> claim the id -> audit -> Deployer.deploy -> audit
                -> report into the outbox -> mark the id done -> Ack

Rules:

* A claimed id that is redelivered goes the same way again. The release's journal and the report's fixed id make the
  second time the same as the first.
* A done id is answered again and not acted on.
* Unverified messages cost no file, no record and no dead letter. One a minute is answered, with a fixed text.
* A denial is in the audit before it is answered, and what is allowed before it is done (`command_audit.py`).
* What was decided is not decided again: after a failure only the report is tried again.
* After an abort nothing of its rollout goes live any more (`rollout_guard.py`); what is at work is finished.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Final

import attrs

from deploykit.audit import AuditLog
from deploykit.bus import Ack, Delivery, Reject, Retry, Verdict
from deploykit.daemons.agent.command_audit import CommandAudit
from deploykit.daemons.agent.deploy_reports import DeployReportMaker
from deploykit.daemons.agent.deployer import SiteDeployer
from deploykit.daemons.agent.reports import Reporter
from deploykit.daemons.agent.rollout_aborts import AbortHandler
from deploykit.daemons.agent.rollout_guard import RolloutGuard
from deploykit.daemons.agent.rollouts import RolloutMemory
from deploykit.daemons.agent.strangers import Strangers
from deploykit.daemons.service.metrics import Metrics
from deploykit.daemons.service.throttle import KeyedThrottle, LogThrottle
from deploykit.errors import (
    AuditError,
    IdForgotten,
    IdStoreError,
    KeyFileError,
    MessageError,
    NotAddressed,
    OutboxError,
    PolicyRefused,
    RolloutMemoryError,
    SignatureError,
)
from deploykit.ids import Claim, IdStore
from deploykit.messages import DeployOutcome, DeployRequested, utc_now
from deploykit.names import NodeName, SiteName
from deploykit.release import DeployResult
from deploykit.trust.check import Trust, Verified
from deploykit.trust.signature import body_digest
from deploykit.wire import CONTENT_TYPE, Frame, decode

_log = logging.getLogger(__name__)

#: Seconds until a command is tried again that the disk had no room for.
_RETRY_AFTER: Final = 5.0
#: Seconds until a command that this agent leaves comes again, to the next agent: as long as a bus waits. Each time
#: counts as an attempt, and an agent ends only when its scripts have ended.
_HAND_BACK_AFTER: Final = 900.0
#: A done command is answered again at most once in so many seconds: less than an asker waits before it asks again, for
#: anybody can send copies of a command.
_REPEAT_AFTER: Final = 5.0
#: What each error leaves undone.
_UNDONE: Final = {
    AuditError: "record the decision",
    IdForgotten: "record the id of the command",
    IdStoreError: "record the id of the command",
    OutboxError: "queue the report",
    RolloutMemoryError: "keep whose rollout it is",
}
#: After so many unforeseen failures a command is answered without being obeyed, or reported without its steps.
_TRIES: Final = 3


@attrs.define(kw_only=True, slots=True)
class _Decision:
    """The answer to a command, and how far it has come.

    Args:
        result: what to report, if it is new.
        stored: the body of the report that was given before, if the command was done.
        verdict: for the bus, once the command is answered.
        claimed: the id was claimed here and must be marked done.
        reported: the body of the report that is in the outbox.
    """

    result: DeployResult | None = attrs.field(default=None, kw_only=False)
    stored: bytes | None = None
    verdict: Verdict = attrs.field(factory=Ack)
    claimed: bool = False
    reported: bytes | None = None


class DeployHandler:
    """Obeys `DeployRequested` and `RolloutAbort` on one node.

    Args:
        node: who we are.
        deployer: carries commands out.
        reporter: queues the reports.
        ids: remembers which requests were acted on.
        trust: judges the messages.
        audit: where decisions are recorded.
        rollouts: remembers whose rollouts were begun, and which were aborted.
        sites: of this node.
        now: the wall clock, aware UTC.
        metrics: counts the commands.
    """

    def __init__(
        self,
        node: NodeName,
        deployer: SiteDeployer,
        reporter: Reporter,
        ids: IdStore,
        trust: Trust,
        audit: AuditLog,
        *,
        rollouts: RolloutMemory,
        sites: Collection[SiteName],
        now: Callable[[], datetime] = utc_now,
        metrics: Metrics | None = None,
    ) -> None:
        self._node = node
        self._deployer = deployer
        self._reporter = reporter
        self._reports = DeployReportMaker(node=node)
        self._ids = ids
        self._trust = trust
        self._now = now
        self._metrics = metrics or Metrics()
        self._audit = CommandAudit(audit, node, now)
        self._changed = threading.Condition()
        self._ending = threading.Event()
        self._at_work: set[tuple[str, str]] = set()
        self._rollouts = rollouts
        self._aborts = AbortHandler(rollouts, frozenset(sites), self._audit, now, self._ending)
        self._strangers = Strangers(node, reporter, self._reports, self._audit)
        self._delayed = LogThrottle()
        self._unreadable = KeyedThrottle()
        self._repeated = KeyedThrottle(_REPEAT_AFTER)

    def handle(self, delivery: Delivery) -> Verdict:
        """Act on one delivery. What is neither command nor abort for this node is acknowledged and left alone."""
        frame = Frame(delivery.headers, delivery.body)
        try:
            command = self._trust.check(frame, self._now(), destination=delivery.destination)
        except NotAddressed:
            return Ack()
        except SignatureError as error:
            self._strangers.refuse(frame, error)
            return Ack()
        except KeyFileError as error:
            return self._wait_for_trust(delivery, frame, error)
        except MessageError as error:
            return self._keep_unreadable(frame, error)
        if isinstance(command.message, DeployRequested):
            return self._obey_once(command.message, command)
        return self._aborts.handle(command)

    def finish(self) -> None:
        """Accept nothing more, and return when the deploys at work have ended."""
        self._ending.set()
        with self._changed:
            if self._at_work:
                _log.info("waiting for %d deploys to end; a second signal ends at once", len(self._at_work))
            self._changed.wait_for(lambda: not self._at_work)
        self.flush(float("inf"))

    @property
    def at_work(self) -> int:
        """How many deploys run, or wait to be reported."""
        return len(self._at_work)

    def flush(self, now: float) -> None:
        """Log and record what was refused since the last line about it: nothing more may ever come.

        Args:
            now: monotonic seconds. What is not due yet is left for the next time; infinite takes all.
        """
        self._strangers.flush(now)
        self._audit.flush(now)

    # -- what is not verified, or not readable -------------------------------------------------------------------------

    def _wait_for_trust(self, delivery: Delivery, frame: Frame, problem: KeyFileError) -> Verdict:
        """Leave for later what may be genuine: files that cannot be read now say nothing of who signed it."""
        if delivery.attempt >= _TRIES:
            self._strangers.refuse(frame, problem)
            return Ack()
        if count := self._delayed.add(str(problem), time.monotonic()):
            _log.warning("cannot check signatures, retrying %d messages: %s", count, problem)
        return Retry(after=_RETRY_AFTER)

    def _keep_unreadable(self, frame: Frame, problem: MessageError) -> Verdict:
        """Dead-letter what a known key signed and we cannot read, each body once a minute: anybody can send a copy.

        A body that can be read came with headers that were changed on the way, for no signature covers them. It is not
        answered: the sender of the genuine command would take that for an answer to it.
        """
        with contextlib.suppress(MessageError):
            decode({"content-type": CONTENT_TYPE}, frame.body)
            self._strangers.refuse(frame, problem)
            return Ack()
        digest = body_digest(frame.body)
        if not self._unreadable.due(digest, time.monotonic()):
            return Ack()
        self._audit.unreadable(digest, str(problem))
        return Reject(str(problem))

    # -- genuine commands ----------------------------------------------------------------------------------------------

    def _obey_once(self, request: DeployRequested, command: Verified) -> Verdict:
        """Obey a genuine command, unless it is at work already."""
        key = (command.key, request.id)
        with self._changed:
            if self._ending.is_set():
                return Retry(after=_HAND_BACK_AFTER)  # unsettled when the bus stops: the next agent's work
            if key in self._at_work:
                return Ack()  # the one report answers both
            self._at_work.add(key)
        try:
            return self._obey_when_possible(request, command)
        finally:
            with self._changed:
                self._at_work.discard(key)
                self._changed.notify_all()

    def _obey_when_possible(self, request: DeployRequested, command: Verified) -> Verdict:
        """Obey, and try again after a failure: a full disk costs time, neither the command nor its report."""
        decided: _Decision | None = None
        tries, before = 0, ""
        while True:
            try:
                if decided is None:
                    decided = self._decide(request, command, self._now(), give_up=tries >= _TRIES)
                return self._answer(decided, request, command, with_steps=tries < _TRIES)
            except (AuditError, IdStoreError, OutboxError, RolloutMemoryError) as error:
                if str(error) != before:
                    _log.error("cannot %s, retrying: %s: %s", _UNDONE[type(error)], request.summary, error)
                before = str(error)
            except Exception:  # noqa: BLE001 -- the asker gets one final report, whatever went wrong here
                tries += 1
                if tries <= _TRIES:
                    what = "obey the command" if decided is None else "queue the report"
                    _log.exception("cannot %s, retrying: %s", what, request.summary)
            if self._ending.wait(_RETRY_AFTER):
                return Retry(after=_HAND_BACK_AFTER)

    def _decide(self, request: DeployRequested, command: Verified, now: datetime, *, give_up: bool) -> _Decision:
        """Act on a genuine command, or refuse it.

        Args:
            request: the command.
            command: who signed it.
            now: aware.
            give_up: do not act: it failed before it was acted on, again and again, and not for lack of disk space.

        Raises:
            AuditError, IdStoreError, RolloutMemoryError: the decision, the id or the rollout could not be recorded, so
                nothing was done. Try again, until the command has expired.
        """
        if give_up:
            return self._denied("failure", "given up; see the log of the agent", request, command)
        key = command.key
        try:
            authorized = command.authorize(now, claimed_at=self._ids.claimed_at(key, request.id))
            guard = RolloutGuard.of(request, command, authorized, self._rollouts)
            stopped = guard.enter(now)
            claim = self._ids.claim(key, request.id, command.digest, now, keep_until=authorized.keep_until)
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
                self._audit.denied(request, command, why)
                return _Decision(verdict=Reject(why))
            case Claim.DONE:
                return self._done_before(request, key)
            case Claim.FRESH | Claim.RESUME:
                return self._act(request, command, now, guard, stopped, resumed=claim is Claim.RESUME)

    def _done_before(self, request: DeployRequested, key: str) -> _Decision:
        stored = self._ids.reply(key, request.id) or b""  # before it counts as answered again
        if due := self._repeated.due((key, request.id), time.monotonic()):
            _log.info("answered again, not repeated: %s", request.summary)
        return _Decision(stored=stored if due else None)

    def _denied(self, outcome: DeployOutcome, why: str, request: DeployRequested, command: Verified) -> _Decision:
        """Record that a command is not obeyed, and return the answer."""
        self._audit.denied(request, command, why)
        self._metrics.deploy_finished(request.site, request.phase, outcome)
        return _Decision(DeployResult(outcome=outcome, detail=why))

    def _act(
        self,
        request: DeployRequested,
        command: Verified,
        now: datetime,
        guard: RolloutGuard,
        stopped: str,
        *,
        resumed: bool,
    ) -> _Decision:
        """Obey an authorized command whose id is claimed, once that is in the audit; `stopped`: why it must not begin.

        One that is resumed may be carried out, with its answer in the site's records: the guard is asked there.

        Raises:
            AuditError: it could not be recorded, so nothing was done. Try again, until the command has expired.
        """
        if stopped and not resumed:
            _log.warning("refused: %s: %s: %s", command.signer, request.summary, stopped)
            return attrs.evolve(self._denied("refused", stopped, request, command), claimed=True)
        try:
            self._audit.allowed(request, command, resumed=resumed)
        except AuditError as error:
            if now <= request.expires + command.policy.skew:
                raise
            _log.error("given up, it has expired: %s: %s", request.summary, error)
            decision = self._denied("failure", f"it could not be recorded: {error}", request, command)
            decision.claimed = True
            return decision
        result = self._deploy(request, command, guard, resumed=resumed)
        self._audit.ended(request, command, result)
        return _Decision(result, claimed=True)

    def _deploy(
        self, request: DeployRequested, command: Verified, guard: RolloutGuard, *, resumed: bool
    ) -> DeployResult:
        """Carry a command out, and count it unless it was carried out before."""
        begun = time.monotonic()
        result = self._deployer.deploy(request, command.signer, guard.objection, resumed=resumed)
        if not result.again:
            seconds = time.monotonic() - begun if result.outcome != "refused" else None
            self._metrics.deploy_finished(request.site, request.phase, result.outcome, seconds)
        return result

    # -- reporting -----------------------------------------------------------------------------------------------------

    def _answer(self, decided: _Decision, request: DeployRequested, command: Verified, *, with_steps: bool) -> Verdict:
        """Report what was decided, and mark its id done.

        Args:
            decided: the answer; notes what is in the outbox.
            request: the command.
            command: the signed copy that is answered.
            with_steps: False after a report with the steps failed again and again.

        Raises:
            IdStoreError, OutboxError: there is no room. Try again.
        """
        if decided.stored is not None:
            self._report_again(decided.stored, request, command)
        elif decided.result is not None:
            if decided.reported is None:
                decided.reported = self._report(decided.result, request, command, with_steps=with_steps).body
            if decided.claimed:
                self._ids.done(command.key, request.id, decided.reported, self._now())
        return decided.verdict

    def _report_again(self, stored: bytes, request: DeployRequested, command: Verified) -> None:
        try:
            self._reporter.report_again(stored)
        except MessageError as error:
            _log.error("cannot repeat the stored report: %s: %s", request.summary, error)
            detail = "it was answered before, and that report is damaged: see `deploykit release list`"
            self._reporter.report(self._reports.without_result(request, command.copy, "failure", detail=detail))

    def _report(self, result: DeployResult, request: DeployRequested, command: Verified, *, with_steps: bool) -> Frame:
        """Queue the final report and return its frame; without the steps where a report with them cannot be made."""
        if with_steps:
            try:
                (frame,) = self._reporter.report(self._reports.with_steps(request, command.copy, result))
            except MessageError as error:
                _log.error("cannot encode the report, leaving its steps out: %s: %s", request.summary, error)
            else:
                return frame
        detail = f"{result.detail}; " if result.detail else ""
        detail += "the steps could not be reported"
        short = attrs.evolve(result, detail=detail)
        (frame,) = self._reporter.report(self._reports.without_steps(request, command.copy, short))
        return frame
