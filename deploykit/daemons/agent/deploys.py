"""The agent's deploy commands: a signed command is obeyed once, and answered with exactly one final report.

    Trust.check -> DeployDecider: authorize -> guards -> claim the id -> audit -> SiteDeployer.deploy -> audit
                -> DeployAnswerer: report into the outbox -> mark the id done -> Ack

Rules:

* A claimed id that is redelivered goes the same way again. The release's journal and the report's fixed id make the
  second time the same as the first.
* A done id is answered again and not acted on.
* Unverified messages cost no file, no record and no dead letter. One a minute is answered, with a fixed text.
* A denial is in the audit before it is answered, and what is allowed before it is done (`command_audit.py`).
* What was decided is not decided again: after a failure only the report is tried again.
* What an authorized command must pass besides is asked by `guards.py`; the rollout's abort is the last of these.
* Other genuine messages on the same topics go to their own handlers, by their type.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Final, TypeAlias

import attrs

from deploykit.audit import AuditLog
from deploykit.bus import Ack, Delivery, Reject, Retry, Verdict
from deploykit.daemons.agent.command_audit import CommandAudit
from deploykit.daemons.agent.deploy_answers import DeployAnswerer
from deploykit.daemons.agent.deploy_decisions import DeployDecider, DeployDecision
from deploykit.daemons.agent.deploy_reports import DeployReportMaker
from deploykit.daemons.agent.deployer import SiteDeployer
from deploykit.daemons.agent.guards import GuardMaker
from deploykit.daemons.agent.mandate_guard import MandateGuard
from deploykit.daemons.agent.mandates import Mandates
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
    RolloutMemoryError,
    SignatureError,
)
from deploykit.ids import IdStore
from deploykit.messages import DeployRequested, Message, RolloutAbort, RolloutApproved, utc_now
from deploykit.names import NodeName, SiteName
from deploykit.trust.check import Trust, Verified
from deploykit.trust.signature import body_digest
from deploykit.wire import CONTENT_TYPE, Frame, decode

_log = logging.getLogger(__name__)

#: Seconds until a command is tried again that the disk had no room for.
_RETRY_AFTER: Final = 5.0
#: Seconds until a command that this agent leaves comes again, to the next agent: as long as a bus waits. Each time
#: counts as an attempt, and an agent ends only when its scripts have ended.
_HAND_BACK_AFTER: Final = 900.0
#: Handles a genuine message that is no `DeployRequested`, from any thread.
MessageHandler: TypeAlias = Callable[[Verified], Verdict]
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


@attrs.define(kw_only=True, slots=True, eq=False)
class _AtWork:
    """A command that is handled now: its id, for whose keys, and whether a copy has come meanwhile."""

    request: str
    keys: frozenset[str]
    again: bool = False


class DeployHandler:
    """Obeys what comes on the topics of commands, on one node: commands, aborts, mandates, and what is added.

    Args:
        node: who we are.
        deployer: carries commands out.
        reporter: queues the reports.
        ids: remembers which requests were acted on.
        trust: judges the messages.
        audit: where decisions are recorded.
        rollouts: remembers whose rollouts were begun, and which were aborted.
        sites: of this node.
        mandates: of this node; whether a command lies inside one is asked first.
        guards: asked about every authorized command after that, in this order; last is whether its rollout was aborted.
        handlers: of further genuine messages, by their type.
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
        mandates: Mandates,
        guards: Sequence[GuardMaker] = (),
        handlers: Mapping[type[Message], MessageHandler] | None = None,
        now: Callable[[], datetime] = utc_now,
        metrics: Metrics | None = None,
    ) -> None:
        self._trust = trust
        self._mandates = mandates
        self._now = now
        self._audit = CommandAudit(audit, node, now)
        reports = DeployReportMaker(node=node)
        every: tuple[GuardMaker, ...] = (
            partial(MandateGuard.of, mandates=mandates),
            *guards,
            partial(RolloutGuard.of, memory=rollouts),
        )
        self._decider = DeployDecider(deployer, ids, self._audit, every, now, metrics or Metrics())
        self._answerer = DeployAnswerer(reporter, reports, ids, now)
        self._changed = threading.Condition()
        self._ending = threading.Event()
        self._at_work: list[_AtWork] = []
        self._aborts = AbortHandler(rollouts, frozenset(sites), self._audit, now, self._ending)
        self._handlers: Mapping[type[Message], MessageHandler] = {
            RolloutAbort: self._aborts.handle,
            RolloutApproved: mandates.handle,
            **(handlers or {}),
        }
        self._strangers = Strangers(node, reporter, reports, self._audit)
        self._delayed = LogThrottle()
        self._unreadable = KeyedThrottle()

    def handle(self, delivery: Delivery) -> Verdict:
        """Act on one delivery. What is not for this node, or has no handler, is acknowledged and left alone."""
        frame = Frame(delivery.headers, delivery.body)
        if self._mandates.is_copy(frame):
            return Ack()
        try:
            command = self._trust.check(frame, self._now(), destination=delivery.destination)
        except (MessageError, KeyFileError, NotAddressed) as error:
            return self._leave(delivery, frame, error)
        if isinstance(command.message, DeployRequested):
            return self._obey_once(command.message, command)
        handler = self._handlers.get(type(command.message)) if command.message is not None else None
        return handler(command) if handler is not None else Ack()

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
        self._mandates.flush(now)
        self._audit.flush(now)

    # -- what is not verified, or not readable -------------------------------------------------------------------------

    def _leave(self, delivery: Delivery, frame: Frame, problem: MessageError | KeyFileError | NotAddressed) -> Verdict:
        """Do with a frame what its problem asks for."""
        match problem:
            case NotAddressed():
                return Ack()
            case SignatureError():
                if not self._mandates.rescue(frame, problem):
                    self._strangers.refuse(frame, problem)
                return Ack()
            case KeyFileError():
                return self._wait_for_trust(delivery, frame, problem)
            case _:
                return self._keep_unreadable(frame, problem)

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
        """Obey a genuine command, unless it is at work already.

        A copy of one that is at work has the same report. Where the first one has none, for it lacked something here,
        the copy is obeyed: what lacked may have come with it.
        """
        own = _AtWork(request=request.id, keys=frozenset(command.keys))
        with self._changed:
            if self._ending.is_set():
                return Retry(after=_HAND_BACK_AFTER)  # unsettled when the bus stops: the next agent's work
            for other in self._at_work:
                if other.request == own.request and not other.keys.isdisjoint(own.keys):
                    other.again = True
                    return Ack()
            self._at_work.append(own)
        try:
            while True:
                own.again = False
                verdict, missing = self._obey_when_possible(request, command)
                with self._changed:
                    if not (missing and own.again):
                        self._at_work.remove(own)
                        self._changed.notify_all()
                        return verdict
        except BaseException:
            with self._changed:
                self._at_work.remove(own)
                self._changed.notify_all()
            raise

    def _obey_when_possible(self, request: DeployRequested, command: Verified) -> tuple[Verdict, bool]:
        """Obey, and try again after a failure: a full disk costs time, neither the command nor its report.

        Returns:
            The verdict, and whether the command lacks something here and has no answer.
        """
        decided: DeployDecision | None = None
        tries, before = 0, ""
        while True:
            try:
                if decided is None:
                    decide = self._decider.give_up if tries >= _TRIES else self._decider.decide
                    decided = decide(request, command)
                return self._answerer.answer(decided, request, command, with_steps=tries < _TRIES), decided.missing
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
                return Retry(after=_HAND_BACK_AFTER), False
