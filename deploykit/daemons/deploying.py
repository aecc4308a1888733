"""The agent's deploys: a signed command becomes a release, and exactly one final report.

The order is the promise: verify -> authorize -> claim the id -> fetch if need be -> release -> report into the outbox
-> mark the id done -> Ack. A redelivered claimed id goes the same way again: the release's journal and the report's
fixed id make the second time the same as the first. A done id is answered again, not acted on again.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime

import attrs

from deploykit.bus import Ack, Delivery, Reject, Retry, Verdict
from deploykit.daemons.mirroring import Mirroring
from deploykit.daemons.reporting import Reporter
from deploykit.daemons.seldom import Seldom
from deploykit.errors import (
    DeploykitError,
    IdStoreError,
    MessageError,
    MirrorError,
    OutboxError,
    PolicyRefused,
    SignatureError,
)
from deploykit.ids import Claim, IdStore
from deploykit.messages import DeployOutcome, DeployReported, DeployRequested, StepReport, one_line, utc_now
from deploykit.mirror import Mirror
from deploykit.names import RepoName
from deploykit.release import DeployResult, Runner, Site
from deploykit.settings import Settings
from deploykit.wire import Frame, decode
from deploykit.wire.allowed_signers import AllowedSigners
from deploykit.wire.policy import Policy, addressed_to
from deploykit.wire.signature import HEADER, Signer, body_digest, copy_digest, verify

_log = logging.getLogger(__name__)

#: Whoever reports twice on one request (a crash in between) does it under one id, so that readers can tell.
_REPORTS = uuid.UUID("6b0f6f0c-53f5-4b8e-9a3c-0b0d54f3b9a1")

#: All that somebody hears whom nobody vouches for: what is wrong in particular is for the log.
_NOT_OBEYED = "refused: this node obeys no command without a signature by a key that it trusts"

#: Seconds until a command is tried again that the disk had no room for; and until one that nobody here will try.
_AGAIN = 5.0
_LATER = 60.0


class Deploying:
    """Obeys `DeployRequested` on one node.

    Args:
        settings: sites and trust.
        mirroring: where the trees come from.
        reporter: takes the replies.
        ids: remembers which requests were acted on.
        trusted: returns the current allowed signers; an error means: obey nobody.
        now: the wall clock, aware UTC.
    """

    def __init__(
        self,
        settings: Settings,
        mirroring: Mirroring,
        reporter: Reporter,
        ids: IdStore,
        trusted: Callable[[], AllowedSigners],
        *,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._settings = settings
        self._mirroring = mirroring
        self._reporter = reporter
        self._ids = ids
        self._trusted = trusted
        self._policy = Policy.from_settings(settings.trust)
        self._now = now
        self._changed = threading.Condition()
        self._ending = threading.Event()
        self._in_work: set[tuple[str, str]] = set()
        self._strangers = Seldom()

    def handle(self, delivery: Delivery) -> Verdict:
        """Act on one delivery. What is not a deploy command for this node is acknowledged and left alone.

        Whoever nobody vouches for costs no file, no record and no dead letter: they can send as much as they like.
        """
        frame = Frame(delivery.headers, delivery.body)
        try:
            request = decode(delivery.headers, delivery.body, delivery.destination)
        except MessageError as error:
            return self._unreadable(frame, error)
        if not isinstance(request, DeployRequested) or not addressed_to(request, self._settings.node):
            return Ack()
        try:
            signer = self._signer_of(frame)
        except DeploykitError as error:
            self._pass_over(request, frame, error)
            return Ack()
        asked = (signer.fingerprint, request.id)
        with self._changed:
            if self._ending.is_set():
                return Retry(after=_LATER)  # handed back unsettled when the bus stops: the next agent's work
            if asked in self._in_work:
                return Ack()  # asked again while at work: the one report answers both
            self._in_work.add(asked)
        try:
            return self._obey_when_possible(request, frame, signer)
        finally:
            with self._changed:
                self._in_work.discard(asked)
                self._changed.notify_all()

    def finish(self) -> None:
        """Take on nothing more, and return when the deploys at work have ended."""
        self._ending.set()
        with self._changed:
            if self._in_work:
                _log.info("waiting for %d deploys to end; a second signal ends at once", len(self._in_work))
            self._changed.wait_for(lambda: not self._in_work)

    def log_strangers(self) -> None:
        """Log what was refused since the last line about it, if that is some time ago: nothing more may ever come."""
        count, why = self._strangers.rest(time.monotonic())
        if count:
            _log.warning("refused %d more messages that nobody vouches for; the last one: %s", count, why)

    def _unreadable(self, frame: Frame, problem: MessageError) -> Verdict:
        """Keep what somebody we know sent and we cannot read; what anybody could have sent is counted alone."""
        try:
            self._signer_of(frame)
        except DeploykitError as doubt:
            self._pass_over(None, frame, doubt)
            return Ack()
        return Reject(str(problem))

    def _signer_of(self, frame: Frame) -> Signer:
        """Return who signed a frame. An unsigned one costs nothing: no file is looked at.

        Raises:
            SignatureError: nobody whom we obey.
            KeyFileError: whom we obey cannot be read; so, nobody.
        """
        if HEADER not in frame.headers:
            raise SignatureError("the message is not signed", "")
        return verify(frame, self._trusted(), self._now())

    def _pass_over(self, request: DeployRequested | None, frame: Frame, why: DeploykitError) -> None:
        """Count a message that nobody vouches for. One an interval is logged, and answered if it is a command.

        It is never remembered: a stranger must not be able to spend a genuine request's id.
        """
        shown = f"{request.summary if request else 'not a message'}: {why}"
        count = self._strangers.add(shown, time.monotonic())
        if not count:
            return
        _log.warning("refused%s: %s", f" {count} messages, the last one" if count > 1 else "", shown)
        if request is not None:
            self._say_no(request, frame, _NOT_OBEYED)

    def _obey_when_possible(self, request: DeployRequested, frame: Frame, signer: Signer) -> Verdict:
        """Obey. A disk that is full costs time, not the command or its report: both stand in no dead letter."""
        while True:
            try:
                return self._obey(request, frame, signer, self._now())
            except (IdStoreError, OutboxError) as error:
                _log.error("a command waits, or its report: %s: %s", request.summary, error)
                if self._ending.wait(_AGAIN):
                    return Retry(after=_LATER)

    def _obey(self, request: DeployRequested, frame: Frame, signer: Signer, now: datetime) -> Verdict:
        key = signer.fingerprint
        try:
            # A resumed request was in time when it first came; its time is judged by that instant.
            self._policy.authorize(request, signer, self._settings.node, self._ids.claimed_at(key, request.id) or now)
        except PolicyRefused as error:
            _log.warning("refused: %s: %s", signer, error)
            self._say_no(request, frame, str(error))
            return Ack()
        until = self._policy.replayable_until(request, now)
        match self._ids.claim(key, request.id, body_digest(frame.body), now, keep_until=until):
            case Claim.CONFLICT:
                return Reject("the id of this request was used for another one: a replay, or a broken sender")
            case Claim.DONE:
                _log.info("answered again, not repeated: %s", request.summary)
                self._reporter.say_again(self._ids.reply(key, request.id) or b"")
            case Claim.FRESH | Claim.RESUME:
                (reply,) = self._reporter.say(self._release(request, frame, signer))
                self._ids.done(key, request.id, reply.body, self._now())
        return Ack()

    def _say_no(self, request: DeployRequested, frame: Frame, why: str) -> None:
        """Answer a refusal. Where there is no room to, the log has it: nobody may fill our time with refusals."""
        try:
            self._reporter.say(self._reply(request, frame, "refused", detail=why))
        except OutboxError as error:
            _log.error("a refusal could not be reported: %s", error)

    def _release(self, request: DeployRequested, frame: Frame, signer: Signer) -> DeployReported:
        site = self._settings.sites.get(request.site)
        if site is None:
            return self._reply(request, frame, "refused", detail=f"this node has no site {request.site}")
        try:
            with self._mirroring.mirror(site.repo) as mirror:
                self._make_current(mirror, site.repo, request)
                runner = Runner(Site(site.path, site.release), node=self._settings.node)
                result = self._run(runner, mirror, request, signer)
            self._mirroring.renew_if_damaged(site.repo, result.error)
        except DeploykitError as error:
            self._mirroring.renew_if_damaged(site.repo, error)
            outcome: DeployOutcome = "refused" if error.exit_code == 3 else "failure"
            return self._reply(request, frame, outcome, detail=str(error))
        except Exception as error:  # noqa: BLE001 -- the asker gets one final report, whatever went wrong here
            _log.exception("deploy of %s failed: this is a bug, or a broken disk", request.site)
            return self._reply(request, frame, "failure", detail=f"{type(error).__name__}; see the log of the agent")
        return self._reply_with(request, frame, result)

    def _make_current(self, mirror: Mirror, repo: RepoName, request: DeployRequested) -> None:
        """Fetch when the mirror does not hold yet what is asked for."""
        try:
            if mirror.resolve(request.ref).commit == request.commit:
                return
        except MirrorError:
            _log.info("[%s] does not hold %s yet: fetching", repo, request.ref)
        self._mirroring.sync(repo, correlation_id=request.correlation_id)

    def _run(self, runner: Runner, mirror: Mirror, request: DeployRequested, signer: Signer) -> DeployResult:
        who = f"{request.requested_by}, signed {signer}" if request.requested_by else str(signer)
        match request.phase:
            case "deploy":
                return runner.deploy(mirror, request.ref, request.commit, request=request.id, requested_by=who)
            case "prepare":
                return runner.prepare(mirror, request.ref, request.commit, request=request.id, requested_by=who)
            case "activate":
                return runner.activate(request.commit, request=request.id, requested_by=who)
            case "rollback":
                return runner.rollback(source=mirror, request=request.id, requested_by=who)

    # -- replies -------------------------------------------------------------------------------------------------------

    def _reply(self, request: DeployRequested, frame: Frame, outcome: DeployOutcome, *, detail: str) -> DeployReported:
        copy = copy_digest(frame)
        return DeployReported(
            id=str(uuid.uuid5(_REPORTS, f"{self._settings.node}/{copy}/{outcome}")),
            source=f"agent/{self._settings.node}",
            correlation_id=request.correlation_id or request.id,
            node=self._settings.node,
            site=request.site,
            request=request.id,
            answers=copy,
            phase=request.phase,
            outcome=outcome,
            ref=request.ref,
            commit=request.commit,
            detail=one_line(detail),
        )

    def _reply_with(self, request: DeployRequested, frame: Frame, result: DeployResult) -> DeployReported:
        steps = tuple(
            StepReport(
                name=step.name, outcome=step.outcome, seconds=step.seconds, exit_code=step.exit_code, output=step.output
            )
            for step in result.steps
        )
        reply = self._reply(request, frame, result.outcome, detail=result.detail)
        return attrs.evolve(reply, release=result.release, steps=steps)
