"""The agent's deploys: a signed command becomes a release, and exactly one final report.

The order is the promise: verify -> authorize -> claim the id -> fetch if need be -> release -> report into the outbox
-> mark the id done -> Ack. A redelivered claimed id goes the same way again: the release's journal and the report's
fixed id make the second time the same as the first. A done id is answered again, not acted on again.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import uuid
from collections.abc import Callable
from datetime import datetime

import attrs

from deploykit.bus import Ack, Delivery, Reject, Retry, Verdict
from deploykit.daemons.mirroring import Mirroring
from deploykit.daemons.reporting import Reporter
from deploykit.errors import (
    DeploykitError,
    IdStoreError,
    InvalidName,
    MessageError,
    MirrorError,
    OutboxError,
    PolicyRefused,
)
from deploykit.ids import Claim, IdStore
from deploykit.messages import (
    DeployOutcome,
    DeployReported,
    DeployRequested,
    SiteRelease,
    StepReport,
    one_line,
    utc_now,
)
from deploykit.mirror import Mirror
from deploykit.names import RepoName, parse_object_id, parse_ref_name
from deploykit.release import DeployResult, Release, Runner, Site
from deploykit.settings import Settings
from deploykit.wire import Frame, decode
from deploykit.wire.allowed_signers import AllowedSigners
from deploykit.wire.policy import Policy, addressed_to
from deploykit.wire.signature import Signer, body_digest, copy_digest, verify

_log = logging.getLogger(__name__)

#: Whoever reports twice on one request (a crash in between) does it under one id, so that readers can tell.
_REPORTS = uuid.UUID("6b0f6f0c-53f5-4b8e-9a3c-0b0d54f3b9a1")

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

    def handle(self, delivery: Delivery) -> Verdict:
        """Act on one delivery. What is not a deploy command for this node is acknowledged and left alone."""
        try:
            request = decode(delivery.headers, delivery.body, delivery.destination)
        except MessageError as error:
            return Reject(str(error))
        if not isinstance(request, DeployRequested) or not addressed_to(request, self._settings.node):
            return Ack()
        frame = Frame(delivery.headers, delivery.body)
        try:
            signer = verify(frame, self._trusted(), self._now())
        except DeploykitError as error:
            _log.warning("refused: %s: %s", request.summary, error)
            # Answered, but never remembered: a stranger must not be able to spend a genuine request's id.
            self._say_no(request, frame, str(error))
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
            _log.warning("refused: %s", error)
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
        runner = Runner(Site(site.path, site.release), node=self._settings.node)
        try:
            result = self._run(runner, site.repo, request, signer)
            self._mirroring.renew_if_damaged(site.repo, result.error)
        except DeploykitError as error:
            self._mirroring.renew_if_damaged(site.repo, error)
            outcome: DeployOutcome = "refused" if error.exit_code == 3 else "failure"
            result = runner.seen(DeployResult(outcome=outcome, detail=str(error), error=error))
        except Exception as error:  # noqa: BLE001 -- the asker gets one final report, whatever went wrong here
            _log.exception("deploy of %s failed: this is a bug, or a broken disk", request.site)
            result = DeployResult(outcome="failure", detail=f"{type(error).__name__}; see the log of the agent")
            with contextlib.suppress(Exception):  # what is live is told where it can be read
                result = runner.seen(result)
        return self._reply_with(request, frame, result)

    def _make_current(self, mirror: Mirror, repo: RepoName, request: DeployRequested) -> None:
        """Fetch when the mirror does not hold yet what is asked for."""
        try:
            if mirror.resolve(request.ref).commit == request.commit:
                return
        except MirrorError:
            _log.info("[%s] does not hold %s yet: fetching", repo, request.ref)
        self._mirroring.sync(repo, correlation_id=request.correlation_id)

    def _run(self, runner: Runner, repo: RepoName, request: DeployRequested, signer: Signer) -> DeployResult:
        """Do what the command says with exactly its ref and commit; the mirror serves only what is not on disk yet."""
        claimed = one_line(request.requested_by)
        who = f"{claimed}, signed {signer}" if claimed else str(signer)
        ref, commit, phase = request.ref, request.commit, request.phase
        with contextlib.ExitStack() as stack:
            mirror = None
            if phase in ("deploy", "prepare") or not runner.holds(ref, commit):
                mirror = stack.enter_context(self._mirroring.mirror(repo))
                self._make_current(mirror, repo, request)
            if phase == "activate":
                return runner.activate(commit, ref=ref, source=mirror, request=request.id, requested_by=who)
            if phase == "rollback" or mirror is None:
                return runner.rollback(commit, ref=ref, source=mirror, request=request.id, requested_by=who)
            make = runner.deploy if phase == "deploy" else runner.prepare
            return make(mirror, ref, commit, request=request.id, requested_by=who)

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
            detail=one_line(detail),
        )

    def _reply_with(self, request: DeployRequested, frame: Frame, result: DeployResult) -> DeployReported:
        steps = tuple(
            StepReport(
                name=step.name, outcome=step.outcome, seconds=step.seconds, exit_code=step.exit_code, output=step.output
            )
            for step in result.steps
        )
        outcome, detail, live = result.outcome, result.detail, _named(result.live)
        if outcome == "success" and request.phase != "prepare" and not _is(result.live, request):
            # An answer to a request that was carried out before, and something else went live since.
            outcome, detail = "failure", f"it was done ({detail or result.release}), and is not live any more"
        reply = self._reply(request, frame, outcome, detail=detail)
        if live is not None:
            reply = attrs.evolve(reply, release=live.release, ref=live.ref, commit=live.commit)
        return attrs.evolve(
            reply, live_known=result.seen, target=_named(result.about), previous=_named(result.previous), steps=steps
        )


def _is(release: Release | None, request: DeployRequested) -> bool:
    return release is not None and (release.ref, release.commit) == (request.ref, request.commit)


def _named(release: Release | None) -> SiteRelease | None:
    """Name a release as the site's own records have it; somebody may have made it from what is no full ref."""
    if release is None:
        return None
    with contextlib.suppress(InvalidName):
        return SiteRelease(
            release=release.name, ref=parse_ref_name(release.ref), commit=parse_object_id(release.commit)
        )
    with contextlib.suppress(InvalidName):
        return SiteRelease(release=release.name, commit=parse_object_id(release.commit))
    return SiteRelease(release=release.name)
