"""The agent's deploys: a signed command becomes a release, and exactly one final report.

The order is the promise: verify -> authorize -> claim the id -> fetch if need be -> release -> report into the outbox
-> mark the id done -> Ack. A redelivered claimed id goes the same way again: the release's journal and the report's
fixed id make the second time the same as the first. A done id is answered again, not acted on again.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime

import attrs

from deploykit.bus import Ack, Delivery, Reject, Retry, Verdict
from deploykit.daemons.agent.mirrors import MirrorHandler
from deploykit.daemons.agent.reports import Reporter
from deploykit.daemons.service.throttle import KeyedLogThrottle, LogThrottle
from deploykit.errors import (
    DeploykitError,
    IdForgotten,
    IdStoreError,
    InvalidName,
    MessageError,
    MirrorError,
    OutboxError,
    PolicyRefused,
    SignatureError,
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
from deploykit.names import NodeName, RepoName, parse_object_id, parse_ref_name
from deploykit.release import DeployResult, Release, Runner, Site
from deploykit.settings.node import Settings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.policy import Policy, addressed_to
from deploykit.trust.signature import HEADER, Signer, body_digest, copy_digest, verify
from deploykit.wire import CONTENT_TYPE, Frame, decode

_log = logging.getLogger(__name__)

#: Whoever reports twice on one request (a crash in between) does it under one id, so that readers can tell.
_REPORTS = uuid.UUID("6b0f6f0c-53f5-4b8e-9a3c-0b0d54f3b9a1")

#: All that somebody hears whom nobody vouches for: what is wrong in particular is for the log.
_NOT_OBEYED = "this node obeys no command without a signature by a key that it trusts"

#: A report's detail is as long at most; the remedy stands at its end.
_DETAIL = 2000
#: Seconds until a command is tried again that the disk had no room for.
_AGAIN = 5.0
#: Seconds until one that nobody here will try: as long as a bus waits. Each time counts as an attempt, and an agent
#: ends only when its scripts have ended.
_LATER = 900.0
#: Seconds in which a report is said again at most once: less than an asker waits before it asks again, for anybody can
#: send copies of a command.
_SAID_AGAIN = 5.0
#: After so many failures that nobody foresaw a command is answered without being obeyed, or reported without its steps.
_TRIES = 3


@attrs.define(kw_only=True, slots=True)
class _Decision:
    """What is to be answered to a command, and how far that has come.

    Args:
        result: what to report, if it is new.
        stored: the body of the answer that was given before, if it is that.
        verdict: for the bus, once it is answered.
        claimed: the id is ours, and to be marked done.
        said: the body of the report that is in the outbox.
    """

    result: DeployResult | None = attrs.field(default=None, kw_only=False)
    stored: bytes | None = None
    verdict: Verdict = attrs.field(factory=Ack)
    claimed: bool = False
    said: bytes | None = None


class DeployHandler:
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
        mirroring: MirrorHandler,
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
        self._strangers = LogThrottle()
        self._delayed = LogThrottle()
        self._kept = KeyedLogThrottle()
        self._said_again = KeyedLogThrottle(_SAID_AGAIN)

    def handle(self, delivery: Delivery) -> Verdict:
        """Act on one delivery. What is not a deploy command for this node is acknowledged and left alone.

        Whoever nobody vouches for costs no file, no record and no dead letter: they can send as much as they like.
        """
        frame = Frame(delivery.headers, delivery.body)
        try:
            signer = self._signer_of(frame)
        except SignatureError as error:
            self._pass_over(frame, error)
            return Ack()
        except Exception as error:  # noqa: BLE001 -- it is not obeyed, whatever went wrong
            return self._unchecked(delivery, frame, error)
        try:
            request = decode(frame.headers, frame.body, delivery.destination)
        except MessageError as error:
            return self._unreadable(frame, error)
        if not isinstance(request, DeployRequested) or not addressed_to(request, self._settings.node):
            return Ack()
        return self._obey_once(request, frame, signer)

    def _obey_once(self, request: DeployRequested, frame: Frame, signer: Signer) -> Verdict:
        """Obey a genuine command, unless it is at work already."""
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

    def _unchecked(self, delivery: Delivery, frame: Frame, problem: Exception) -> Verdict:
        """Leave for later what may be genuine: files that cannot be read now say nothing of who signed it."""
        if delivery.attempt >= _TRIES:
            self._pass_over(frame, problem)
            return Ack()
        if count := self._delayed.add(str(problem), time.monotonic()):
            _log.warning("signatures cannot be checked now, %d messages wait: %s", count, problem)
        return Retry(after=_AGAIN)

    def _unreadable(self, frame: Frame, problem: MessageError) -> Verdict:
        """Keep what somebody we know sent and we cannot read, each body once an interval: anybody can send a copy.

        A body that can be read came with headers that were changed on the way, for no signature covers them. It is not
        answered: the sender of the genuine command would take that for an answer to it.
        """
        with contextlib.suppress(MessageError):
            decode({"content-type": CONTENT_TYPE}, frame.body)
            self._pass_over(frame, problem)
            return Ack()
        return Reject(str(problem)) if self._kept.due(body_digest(frame.body), time.monotonic()) else Ack()

    def _signer_of(self, frame: Frame) -> Signer:
        """Return who signed a frame. An unsigned one costs nothing: no file is looked at.

        Raises:
            SignatureError: nobody whom we obey.
            KeyFileError: whom we obey cannot be read; so, nobody.
        """
        if HEADER not in frame.headers:
            raise SignatureError("the message is not signed", "")
        return verify(frame, self._trusted(), self._now())

    def _pass_over(self, frame: Frame, why: Exception) -> None:
        """Count a message that nobody vouches for. One an interval is read, logged, and answered if it is a command.

        It is never remembered: a stranger must not be able to spend a genuine request's id.
        """
        count = self._strangers.add(str(why), time.monotonic())
        if not count:
            return
        request = _command_in(frame, self._settings.node)
        foreseen = isinstance(why, DeploykitError)
        _log.warning(
            "refused%s: %s: %s",
            f" {count} messages, the last one" if count > 1 else "",
            request.summary if request else "no command for this node",
            why,
            exc_info=None if foreseen else why,
        )
        if request is not None:
            self._say_no(request, frame, _NOT_OBEYED)

    def _obey_when_possible(self, request: DeployRequested, frame: Frame, signer: Signer) -> Verdict:
        """Obey. A disk that is full, or whatever else fails around a deploy, costs time, not the command or its report.

        What was decided is not decided again: then only the report is tried again.
        """
        decided: _Decision | None = None
        tries, before = 0, ""
        while True:
            try:
                if decided is None:
                    decided = self._decide(request, frame, signer, self._now(), give_up=tries >= _TRIES)
                return self._answer(decided, request, frame, signer, plain=tries >= _TRIES)
            except (IdStoreError, OutboxError) as error:
                if str(error) != before:
                    _log.error("a command waits, or its report: %s: %s", request.summary, error)
                before = str(error)
            except Exception:  # noqa: BLE001 -- the asker gets one final report, whatever went wrong here
                tries += 1
                if tries <= _TRIES:
                    _log.exception("a command waits, or its report: %s", request.summary)
            if self._ending.wait(_AGAIN):
                return Retry(after=_LATER)

    def _decide(
        self, request: DeployRequested, frame: Frame, signer: Signer, now: datetime, *, give_up: bool
    ) -> _Decision:
        """Act on a genuine command, or refuse it.

        Args:
            give_up: do not act; it failed before it could be acted on, again and again, and not for want of a disk.

        Raises:
            IdStoreError: nothing was done, for it could not be written down. Try again, until it has expired.
        """
        if give_up:
            return _Decision(DeployResult(outcome="failure", detail="given up; see the log of the agent"))
        key = signer.fingerprint
        try:
            # A resumed request was in time when it first came; its time is judged by that instant.
            self._policy.authorize(request, signer, self._settings.node, self._ids.claimed_at(key, request.id) or now)
            until = self._policy.replayable_until(request, now)
            claim = self._ids.claim(key, request.id, body_digest(frame.body), now, keep_until=until)
        except (PolicyRefused, IdForgotten) as error:
            _log.warning("refused: %s: %s", signer, error)
            return _Decision(DeployResult(outcome="refused", detail=str(error)))
        except IdStoreError as error:
            if now <= request.expires + self._policy.skew:
                raise
            _log.error("given up, it has expired: %s: %s", request.summary, error)
            return _Decision(DeployResult(outcome="failure", detail=f"its id could not be looked up: {error}"))
        match claim:
            case Claim.CONFLICT:
                why = "the id of this request was used for another one: a replay, or a broken sender"
                return _Decision(verdict=Reject(why))
            case Claim.DONE:
                stored = self._ids.reply(key, request.id) or b""  # before it counts as said again
                due = self._said_again.due((key, request.id), time.monotonic())
                if due:
                    _log.info("answered again, not repeated: %s", request.summary)
                return _Decision(stored=stored if due else None)
            case Claim.FRESH | Claim.RESUME:
                return _Decision(self._release(request, signer), claimed=True)

    def _answer(
        self, decided: _Decision, request: DeployRequested, frame: Frame, signer: Signer, *, plain: bool
    ) -> Verdict:
        """Report what was decided, and mark its id done.

        Args:
            plain: without the steps: a report with them could not be made, again and again.

        Raises:
            IdStoreError, OutboxError: there is no room. Try again.
        """
        if decided.stored is not None:
            try:
                self._reporter.say_again(decided.stored)
            except MessageError as error:
                _log.error("the report of an earlier time cannot be said again: %s: %s", request.summary, error)
                detail = "it was answered before, and that report is damaged: see `deploykit release list`"
                self._reporter.say(self._reply(request, frame, "failure", detail=detail))
        elif decided.result is not None:
            if decided.said is None:
                decided.said = self._say(decided.result, request, frame, plain=plain).body
            if decided.claimed:
                self._ids.done(signer.fingerprint, request.id, decided.said, self._now())
        return decided.verdict

    def _say(self, result: DeployResult, request: DeployRequested, frame: Frame, *, plain: bool) -> Frame:
        if not plain:
            try:
                (said,) = self._reporter.say(self._reply_with(request, frame, result))
            except MessageError as error:
                _log.error("a report cannot be written as it is: %s: %s", request.summary, error)
            else:
                return said
        detail = f"{result.detail}; " if result.detail else ""
        detail += "the steps could not be reported"
        short = self._reply_without_steps(request, frame, attrs.evolve(result, detail=detail))
        (said,) = self._reporter.say(short)
        return said

    def _say_no(self, request: DeployRequested, frame: Frame, why: str) -> None:
        """Answer a refusal. Where there is no room to, the log has it: nobody may fill our time with refusals."""
        try:
            self._reporter.say(self._reply(request, frame, "refused", detail=why))
        except Exception as error:  # noqa: BLE001 -- nor with commands that come again because of theirs
            _log.error("a refusal could not be reported: %s", error)

    def _release(self, request: DeployRequested, signer: Signer) -> DeployResult:
        """Carry the command out, and return what came of it, whatever goes wrong here."""
        site = self._settings.sites.get(request.site)
        if site is None:
            return DeployResult(outcome="refused", detail=f"this node has no site {request.site}")
        claimed = one_line(request.requested_by)
        who = f"{claimed}, signed {signer}" if claimed else str(signer)
        runner: Runner | None = None
        result: DeployResult | None = None
        try:
            runner = Runner(Site(site.path, site.release), node=self._settings.node)
            with contextlib.ExitStack() as stack:
                result = self._run(stack, runner, site.repo, request, who)
        except Exception as error:  # noqa: BLE001 -- the asker gets one final report, whatever went wrong here
            if result is None:
                result = _failed(error, request)
                with contextlib.suppress(Exception):  # what is live is reported where it can be read
                    result = runner.with_site_state(result) if runner is not None else result
            else:  # what came of the deploy stands
                _log.exception("after the deploy of %s", request.site)
        self._mirroring.renew_if_damaged(site.repo, result.error)
        return result

    def _make_current(self, mirror: Mirror, repo: RepoName, request: DeployRequested) -> None:
        """Fetch when the mirror does not hold yet what is asked for."""
        try:
            if mirror.resolve(request.ref).commit == request.commit:
                return
        except MirrorError:
            _log.info("[%s] does not hold %s yet: fetching", repo, request.ref)
        self._mirroring.sync(repo, correlation_id=request.correlation_id)

    def _run(
        self, stack: contextlib.ExitStack, runner: Runner, repo: RepoName, request: DeployRequested, who: str
    ) -> DeployResult:
        """Do what the command says with exactly its ref and commit; the mirror serves only what is not on disk yet.

        The site decides what it needs: what it refuses without a mirror, with nothing touched, it is asked again with
        one.

        Args:
            stack: closes the mirror.
            who: asks for it, for the records.
        """
        ref, commit, phase = request.ref, request.commit, request.phase
        if phase in ("activate", "rollback"):
            put_live = runner.activate if phase == "activate" else runner.rollback
            result = put_live(commit, ref=ref, request=request.id, requested_by=who)
            if result.outcome != "refused":
                return result
        mirror = stack.enter_context(self._mirroring.mirror(repo))
        self._make_current(mirror, repo, request)
        if phase in ("activate", "rollback"):
            return put_live(commit, ref=ref, source=mirror, request=request.id, requested_by=who)
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
            detail=one_line(detail, _DETAIL),
        )

    def _reply_with(self, request: DeployRequested, frame: Frame, result: DeployResult) -> DeployReported:
        steps = tuple(
            StepReport(
                name=step.name, outcome=step.outcome, seconds=step.seconds, exit_code=step.exit_code, output=step.output
            )
            for step in result.steps
        )
        return attrs.evolve(self._reply_without_steps(request, frame, result), steps=steps)

    def _reply_without_steps(self, request: DeployRequested, frame: Frame, result: DeployResult) -> DeployReported:
        outcome, detail, live = result.outcome, result.detail, _named(result.live)
        if outcome == "success" and request.phase != "prepare" and not _is(result.live, request):
            # An answer to a request that was carried out before, and something else went live since.
            outcome, detail = "failure", f"it was done ({detail or result.release}), and is not live any more"
        reply = self._reply(request, frame, outcome, detail=detail)
        if live is not None:
            reply = attrs.evolve(reply, release=live.release, ref=live.ref, commit=live.commit)
        return attrs.evolve(
            reply, live_known=result.seen, target=_named(result.about), previous=_named(result.previous)
        )


def _command_in(frame: Frame, node: NodeName) -> DeployRequested | None:
    try:
        message = decode(frame.headers, frame.body)
    except MessageError:
        return None
    return message if isinstance(message, DeployRequested) and addressed_to(message, node) else None


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


def _failed(error: Exception, request: DeployRequested) -> DeployResult:
    """What an error that came out of a deploy, or on the way to it, means for the asker."""
    if isinstance(error, DeploykitError):
        outcome: DeployOutcome = "refused" if error.exit_code == 3 else "failure"
        return DeployResult(outcome=outcome, detail=str(error), error=error)
    _log.error("deploy of %s failed: this is a bug, or a broken disk", request.site, exc_info=error)
    return DeployResult(outcome="failure", detail=f"{type(error).__name__}; see the log of the agent")
