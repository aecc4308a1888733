"""Carry out one operation inside the site's lock: check, plan, journal, build, and hand over to `Finisher`."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from datetime import datetime

import attrs

from deploykit.errors import DeploykitError, PolicyRefused, PreflightRefused, ReleaseError
from deploykit.release import answers, build, preflight
from deploykit.release.environment import Environment
from deploykit.release.finish import AFTER_SWITCH, CUT_OFF, Finisher
from deploykit.release.journal import JournalEntry
from deploykit.release.model import (
    SCRIPTS,
    DeployResult,
    Operation,
    Phase,
    Release,
    ReleaseVersion,
    StepRecord,
    refused,
)
from deploykit.release.ondisk import damage, find_rollback, is_live
from deploykit.release.plan import plan_deploy, plan_resume
from deploykit.release.requests import Allowances, DeployRequest, PartRequest, ReleaseRequest
from deploykit.release.resolve import resolve_request, version_of
from deploykit.release.scriptfinder import environment_on_disk
from deploykit.release.site import Site, release_name
from deploykit.release.source import ResolvedTree, TreeSource, as_it_was
from deploykit.release.state import SiteRecord
from deploykit.release.steps import Listeners, StepFailed, StepRunner, timestamp
from deploykit.system.boottime import boot_time
from deploykit.trees import Manifest, read_link
from deploykit.trees.writer import Progress

_log = logging.getLogger(__name__)

_DAMAGED = "give a mirror to write it again from (--mirror)"
_TAKE_IT = f"{_DAMAGED}, or take it as it is where its directory is there (--allow-drift)"
_UP_TO_SWITCH = ("pre-deploy", "link-shared", "pre-link", "finalize")


class Deployer:
    """Carries out one operation of one site, whose lock is held; what a crash cut off has been ended before."""

    def __init__(
        self,
        site: Site,
        finisher: Finisher,
        listeners: Listeners,
        progress: Progress | None,
        node: str,
        now: Callable[[], datetime],
    ) -> None:
        self._site = site
        self._finisher = finisher
        self._listeners = listeners
        self._progress = progress
        self._node = node
        self._now = now

    # -- a new release -----------------------------------------------------------------------------------------------

    def make(self, source: TreeSource, request: DeployRequest) -> DeployResult:
        """Deploy or prepare, or write a release again that an activation or a rollback is to put live.

        Where it fails, and what was live before is gone from the disk, that release is made anew from the mirror.
        """
        before = self._site.recorded().get(self._site.live_name())
        result = self._make(source, request)
        if result.outcome not in ("failure", "rolled-back") or before is None or before.status != "good":
            return result
        if request.phase == "rollback" or self._site.live_name() in (before.name, result.release):
            return result
        anew = self._make_anew("deploy", source, before, attrs.evolve(request, request_id=""))
        if anew.outcome == "success":
            detail = f"{result.detail}; {before.name} was made anew from the mirror: {anew.release} is live"
            return attrs.evolve(result, outcome="rolled-back", detail=detail)
        return attrs.evolve(result, detail=f"{result.detail}; it could not be made anew: {anew.detail}")

    def _make(self, source: TreeSource, request: DeployRequest) -> DeployResult:
        started = time.monotonic()
        site, settings = self._site, self._site.settings
        state = site.state()
        answer = answers.recorded_answer(site, state, request.phase, request)
        if answer is not None and not answers.lost_since(site, state, request.phase, answer):
            return answer
        live = site.resolved_name()
        try:
            here = state.get(site.live_name())
            found = resolve_request(source, request, here)
            version = version_of(found, request.ref)
            if not request.again and is_live(site, state, version):
                return DeployResult(outcome="success", release=live, detail=f"{version.tag} is live already")
            preflight.check_not_older(source, here, version, request.allow, settings)
            environment, warning = preflight.check_all(source, found.tree, site, request.allow)
        except DeploykitError as error:
            return refused(error)
        begun = self._go_on_with_existing(state, request, version)
        if begun is not None:
            return begun
        plan = plan_deploy(
            state,
            live,
            now=boot_time(),
            grace=settings.grace,
            recycle=settings.recycle,
            scripts=environment.optional_steps(site.settings),
            activate=request.phase != "prepare",
        )
        try:
            preflight.check_objects(source, found, site, environment, plan.recycle)
        except DeploykitError as error:
            return refused(error)
        entry = JournalEntry(
            operation=self._operation(
                state, request.phase, release_name(plan.seq, version.tag, version.commit), version, request
            ),
            seq=plan.seq,
            tree=found.tree,
            parts=version.parts,
            previous=live,
            link=read_link(site.current_link) or "",
            builds=True,
            recycled=plan.recycle.name if plan.recycle is not None else "",
            steps=(StepRecord(name="preflight", outcome="done", seconds=round(time.monotonic() - started, 3)),),
        )
        runner = self._begin(entry, environment)
        return self._build(runner, source, found, plan.recycle, warning) if isinstance(runner, StepRunner) else runner

    def _go_on_with_existing(
        self, state: SiteRecord, request: DeployRequest, version: ReleaseVersion
    ) -> DeployResult | None:
        """Go on with what is there already: a release a crash cut off for this request, or a prepared one."""
        parked = answers.parked_release(state, request.request_id, version)
        if parked is not None:
            resumed = self._resume(state, parked)
            if resumed is not None:
                return resumed
        prepared = None
        if request.phase == "deploy" and not request.again:
            prepared = state.prepared(version.ref, version.commit)
        if prepared is not None and prepared.version == version and not damage(self._site, prepared.name):
            return self._switch_to("deploy", state, prepared, request)
        return None

    def _build(
        self, runner: StepRunner, source: TreeSource, found: ResolvedTree, recycled: Release | None, warning: str
    ) -> DeployResult:
        site, environment, name = self._site, runner.environment, runner.operation.release

        manifest: Manifest | None = None

        def export() -> str:
            nonlocal manifest
            acted_on = any(s in environment.scripts for s in ("pre-deploy", "pre-link"))
            done = build.export(site, source, name, found, environment, recycled, self._progress, final=acted_on)
            if acted_on:
                build.barrier(site, fd)  # what a script acts on must not be gone after a power cut
            manifest = done.manifest
            return done.detail

        fd = os.open(site.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            runner.step("export", export)
            self._finisher.before_switch(runner, fd, _UP_TO_SWITCH, manifest)
        except StepFailed as failed:
            return self._finisher.failed(runner, failed)
        finally:
            os.close(fd)
        return self._proceed(runner, warning)

    def _proceed(self, runner: StepRunner, detail: str = "") -> DeployResult:
        """Record a whole release as prepared, or put it live."""
        phase, name = runner.operation.phase, runner.operation.release
        if phase == "prepare":
            if not self._site.has(name):
                problem = ReleaseError(f"the directory of {name} is gone", "prepare it again")
                return self._finisher.failed(runner, StepFailed("finalize", problem))
            return self._finisher.record(runner, "success", status="prepared", detail=detail)
        return self._finisher.switch(runner, rollback=phase == "rollback", detail=detail)

    def _answer_whole(self, state: SiteRecord, phase: Phase, request: ReleaseRequest) -> DeployResult | None:
        """Return the answer to a request that was carried out before; make its release anew if it was lost since."""
        answer = answers.recorded_answer(self._site, state, phase, request)
        target = state.get(answer.release) if answer is not None else None
        problem = answers.lost_since(self._site, state, phase, answer) if answer is not None else ""
        if target is None or not problem:
            return answer
        if request.source is None:
            return refused(PreflightRefused(f"request {request.request_id} was carried out, but {problem}", _DAMAGED))
        return self._make_anew(phase, request.source, target, request)

    def _resume(self, state: SiteRecord, release: Release) -> DeployResult | None:
        """Go on with a parked release; return None where files of it were lost since and it has to be made anew."""
        known = state.answered(release.request)
        if known is None:
            raise ReleaseError(f"{release.name} belongs to no request", "deploy anew")
        steps = self._site.steps(known)
        cut = next((s.name for s in steps if s.output == CUT_OFF), "")
        ended = tuple(s for s in steps if s.name != cut)
        rest = plan_resume({s.name: s.outcome for s in ended}, cut, self._site.settings.at_crash)
        if not isinstance(rest, str):
            problem = damage(self._site, release.name, unfinished=True)
            if problem:
                _log.warning("not going on with %s, which a crash cut off: %s", release.name, problem)
                return None
            ended = tuple(s for s in ended if s.name not in rest)
        entry = JournalEntry(
            operation=attrs.evolve(known, outcome="", detail="", finished=""),
            seq=release.seq,
            tree=release.tree,
            parts=release.parts,
            previous=self._site.resolved_name(),
            link=read_link(self._site.current_link) or "",
            builds=True,
            steps=ended,
        )
        runner = self._begin_on_disk(entry)
        if isinstance(runner, DeployResult):
            return runner
        if isinstance(rest, str):
            stopped = ReleaseError(rest, "look at the site, then deploy anew")
            return self._finisher.failed(runner, StepFailed(cut, stopped))
        _log.info("going on with %s, which a crash cut off", release.name)
        fd = os.open(self._site.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if cut and cut not in rest:
                runner.skip(cut)
            self._finisher.before_switch(runner, fd, rest=rest)
        except StepFailed as failed:
            return self._finisher.failed(runner, failed)
        finally:
            os.close(fd)
        return self._proceed(runner)

    # -- a release that is there ---------------------------------------------------------------------------------------

    def activate(self, request: ReleaseRequest) -> DeployResult:
        """Put a prepared release live."""
        state = self._site.state()
        answer = self._answer_whole(state, "activate", request)
        if answer is not None:
            return answer
        target = self._prepared(state, request)
        if isinstance(target, DeployResult):
            return target
        problem = damage(self._site, target.name, edits=request.allow.drift)
        if not problem:
            return self._switch_to("activate", state, target, request)
        if request.source is None:
            return refused(PreflightRefused(f"cannot activate: {problem}", f"prepare it again, {_TAKE_IT}"))
        return self._make_anew("activate", request.source, target, request)

    def _prepared(self, state: SiteRecord, request: ReleaseRequest) -> Release | DeployResult:
        """Find the newest prepared release that fits, on disk or not; the result where it cannot or need not go live.

        An older one is never taken instead of the newest.
        """
        site = self._site
        live = state.get(site.live_name())
        fitting = [r for r in state.releases if r.status == "prepared" and request.means(r)]
        if live is not None and request.name and request.means(live):
            newest = all(r.seq < live.seq for r in fitting)
            if newest and is_live(site, state, live.version):
                return DeployResult(outcome="success", release=live.name, detail=f"{live.tag} is live already")
        if not fitting:
            what = f"release {request.name}" if request.name else "a release"
            of = f" of {request.ref}" if request.ref else ""
            return refused(PreflightRefused(f"{what}{of} has not been prepared", "prepare it first"))
        target = fitting[-1]
        may_be_older = request.allow.older or site.settings.older == "allow"
        if live is not None and target.seq < live.seq and not may_be_older:
            return refused(
                PolicyRefused(
                    f"{target.name} was prepared before {live.name}, which is live, was made",
                    "prepare it again, or allow older ones",
                )
            )
        return target

    def rollback(self, request: ReleaseRequest) -> DeployResult:
        """Put the release of the request, or else the last good one, live again."""
        site, state = self._site, self._site.state()
        answer = self._answer_whole(state, "rollback", request)
        if answer is not None:
            return answer
        plan = find_rollback(
            site,
            state,
            request.name,
            ref=request.ref,
            can_rebuild=request.source is not None,
            edits=request.allow.drift,
        )
        if plan.target is None or plan.kind == "impossible":
            remedy = "deploy the tag that is to be live"
            if plan.target is not None and damage(site, plan.target.name):
                remedy += f", {_TAKE_IT}"
            return refused(PreflightRefused(f"cannot roll back: {plan.why}", remedy))
        if plan.kind == "live":
            return DeployResult(outcome="success", release=plan.target.name, detail=plan.why)
        if plan.kind == "rebuild" and request.source is not None:
            return self._make_anew("rollback", request.source, plan.target, request)
        return self._switch_to("rollback", state, plan.target, request, detail=plan.why if plan.passed_over else "")

    def _make_anew(
        self, phase: Phase, source: TreeSource, target: Release, request: DeployRequest | ReleaseRequest
    ) -> DeployResult:
        """Write a release again from its mirror, as it was: it is not whole on disk any more."""
        anew = DeployRequest(
            phase=phase,
            ref=target.ref,
            commit=target.commit,
            request_id=request.request_id,
            requested_by=request.requested_by,
            allow=Allowances(moved=True, older=True, drift=True),
            again=True,
            rollout=request.rollout,
            parts={part.repo: PartRequest(ref=part.ref, commit=part.commit) for part in target.parts},
        )
        return self.make(as_it_was(source, target), anew)

    def _switch_to(
        self,
        phase: Phase,
        state: SiteRecord,
        target: Release,
        request: DeployRequest | ReleaseRequest,
        *,
        detail: str = "",
    ) -> DeployResult:
        operation = self._operation(state, phase, target.name, target.version, request)
        entry = JournalEntry(
            operation=operation,
            seq=target.seq,
            tree=target.tree,
            parts=target.parts,
            previous=self._site.resolved_name(),
            link=read_link(self._site.current_link) or "",
        )
        runner = self._begin_on_disk(entry, AFTER_SWITCH)
        if isinstance(runner, DeployResult):
            return runner
        return self._finisher.switch(runner, rollback=phase == "rollback", detail=detail)

    # -- beginning -----------------------------------------------------------------------------------------------------

    def _operation(
        self,
        state: SiteRecord,
        phase: Phase,
        release: str,
        version: ReleaseVersion,
        request: DeployRequest | ReleaseRequest,
    ) -> Operation:
        return Operation(
            number=state.next_operation,
            phase=phase,
            release=release,
            ref=version.ref,
            commit=version.commit,
            request=request.request_id,
            requested_by=request.requested_by,
            node=self._node,
            started=timestamp(self._now()),
            rollout=request.rollout,
        )

    def _begin_on_disk(self, entry: JournalEntry, steps: tuple[str, ...] = SCRIPTS) -> StepRunner | DeployResult:
        try:
            environment = environment_on_disk(self._site, entry.operation.release, steps)
        except DeploykitError as error:
            return refused(error)
        return self._begin(entry, environment)

    def _begin(self, entry: JournalEntry, environment: Environment) -> StepRunner | DeployResult:
        journal = self._finisher.journal
        try:
            journal.begin(entry)
        except OSError as error:
            journal.close()
            self._site.journal_file.unlink(missing_ok=True)
            return refused(
                PreflightRefused(
                    f"cannot write {self._site.journal_file}: {error.strerror}", "nothing was touched; make room there"
                )
            )
        return StepRunner(self._site, entry, journal, environment, self._listeners)
