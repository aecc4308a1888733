"""Carry out one operation, inside the site's lock: check, plan, journal, build, and hand over to `Completion`."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from datetime import datetime

import attrs

from deploykit.errors import DeploykitError, PolicyRefused, PreflightRefused, ReleaseError
from deploykit.release import build, preflight
from deploykit.release.boot import moment
from deploykit.release.completion import AFTER_SWITCH, CUT_OFF, Completion, ground_on_disk
from deploykit.release.journal import Entry
from deploykit.release.operation import Listeners, Running, StepFailed, tag_of, timestamp
from deploykit.release.plan import plan_deploy, plan_resume, plan_rollback
from deploykit.release.preflight import Allowances, Ground
from deploykit.release.site import Site, release_name
from deploykit.release.source import ResolvedTree, TreeSource
from deploykit.release.state import SiteState
from deploykit.release.values import SCRIPTS, DeployResult, Operation, Phase, Release, StepRecord
from deploykit.trees import Manifest, read_link
from deploykit.trees.writer import Progress

_log = logging.getLogger(__name__)

_UP_TO_SWITCH = ("pre-deploy", "link-shared", "pre-link", "finalize")


@attrs.frozen(kw_only=True, slots=True)
class Wanted:
    """What somebody asks for. `again`: make a new release although this very one is live."""

    phase: Phase
    ref: str
    commit: str
    request: str
    requested_by: str
    allow: Allowances
    again: bool = False


class Execution:
    """One operation of one site; its lock is held, and nothing that was cut off is left."""

    def __init__(
        self,
        site: Site,
        completion: Completion,
        listeners: Listeners,
        progress: Progress | None,
        node: str,
        now: Callable[[], datetime],
    ) -> None:
        self._site = site
        self._completion = completion
        self._listeners = listeners
        self._progress = progress
        self._node = node
        self._now = now

    # -- a new release -----------------------------------------------------------------------------------------------

    def make(self, source: TreeSource, wanted: Wanted) -> DeployResult:
        """Deploy or prepare, or rebuild for a rollback."""
        started = time.monotonic()
        site, settings = self._site, self._site.settings
        state = site.state()
        answer = self._answer(state, wanted.phase, wanted.request, wanted.commit)
        if answer is not None:
            return answer
        live = site.live_name()
        try:
            found = preflight.resolve_commit(source, wanted.ref, wanted.commit, wanted.allow)
            ref = found.ref or wanted.ref
            tag = tag_of(ref, found.commit)
            here = state.get(live)
            if not wanted.again and here is not None and _is(here, found.commit, tag, "good"):
                return DeployResult(outcome="success", release=live, detail=f"{tag} is live already")
            preflight.check_not_older(source, here, found.commit, wanted.allow, settings)
            ground, warning = preflight.look(source, found.tree, site, wanted.allow)
        except DeploykitError as error:
            return refused(error)
        begun = self._begun(state, wanted, found.commit, tag)
        if begun is not None:
            return begun
        plan = plan_deploy(
            state,
            live,
            now=moment(),
            grace=settings.grace,
            recycle=settings.recycle,
            scripts=ground.optional_steps(site.settings),
            activate=wanted.phase != "prepare",
        )
        entry = Entry(
            operation=self._operation(
                state,
                wanted.phase,
                release_name(plan.seq, tag, found.commit),
                ref,
                found.commit,
                wanted.request,
                wanted.requested_by,
            ),
            seq=plan.seq,
            tree=found.tree,
            previous=live,
            link=read_link(site.current_link) or "",
            builds=True,
            recycled=plan.recycle.name if plan.recycle is not None else "",
            steps=(StepRecord(name="preflight", outcome="done", seconds=round(time.monotonic() - started, 3)),),
        )
        running = self._begin(entry, ground)
        if isinstance(running, DeployResult):
            return running
        return self._build(running, source, found, plan.recycle, warning)

    def _begun(self, state: SiteState, wanted: Wanted, commit: str, tag: str) -> DeployResult | None:
        """Go on with what is there already: a release a crash cut off for this request, or a prepared one."""
        parked = self._parked(state, wanted.request, commit)
        if parked is not None:
            return self._resume(state, parked)
        prepared = state.prepared(commit, tag)
        if prepared is not None and wanted.phase == "deploy" and not wanted.again:
            return self._switch_to("deploy", state, prepared, wanted.request, wanted.requested_by)
        return None

    def _build(
        self, running: Running, source: TreeSource, found: ResolvedTree, recycled: Release | None, warning: str
    ) -> DeployResult:
        site, ground, name = self._site, running.ground, running.operation.release

        manifest: Manifest | None = None

        def export() -> str:
            nonlocal manifest
            acted_on = any(s in ground.scripts for s in ("pre-deploy", "pre-link"))
            done = build.export(
                site, source, name, found.tree, found.commit, ground, recycled, self._progress, final=acted_on
            )
            if acted_on:
                build.barrier(site, fd)  # what a script acts on must not be gone after a power cut
            manifest = done.manifest
            return done.detail

        fd = os.open(site.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            running.step("export", export)
            self._completion.before_switch(running, fd, _UP_TO_SWITCH, manifest)
        except StepFailed as failed:
            return self._completion.failed(running, failed)
        finally:
            os.close(fd)
        return self._proceed(running, warning)

    def _proceed(self, running: Running, detail: str = "") -> DeployResult:
        """The release is whole: leave it at that, or put it live."""
        phase = running.operation.phase
        if phase == "prepare":
            return self._completion.record(running, "success", status="prepared", detail=detail)
        return self._completion.switch(running, rollback=phase == "rollback", detail=detail)

    # -- a request that comes again ------------------------------------------------------------------------------------

    def _answer(self, state: SiteState, phase: Phase, request: str, commit: str) -> DeployResult | None:
        """The answer to a request that was carried out before, or None where it must be."""
        known = state.answered(request)
        if known is None or known.outcome == "" or known.outcome == "interrupted":  # noqa: PLR1714 - mypy narrows by it
            return None
        if known.phase != phase or (commit and known.commit and not known.commit.startswith(commit)):
            return refused(PreflightRefused(f"request {request} was used for {known.phase} of {known.commit[:12]}"))
        _log.info("request %s was carried out before: %s", request, known.outcome)
        error = None if known.outcome == "success" else ReleaseError(known.detail)
        return DeployResult(
            outcome=known.outcome,
            release=known.release,
            steps=self._site.steps(known),
            detail=known.detail,
            error=error,
            again=True,
        )

    def _parked(self, state: SiteState, request: str, commit: str) -> Release | None:
        """The whole release a crash left behind, made for this very request."""
        known = state.answered(request)
        if known is None or known.outcome != "interrupted" or known.commit != commit:
            return None
        release = state.get(known.release)
        return release if release is not None and release.present and release.status == "interrupted" else None

    def _resume(self, state: SiteState, release: Release) -> DeployResult:
        """Go on with a parked release."""
        known = state.answered(release.request)
        if known is None:
            raise ReleaseError(f"{release.name} belongs to no request", "deploy anew")
        steps = self._site.steps(known)
        cut = next((s.name for s in steps if s.output == CUT_OFF), "")
        ended = tuple(s for s in steps if s.name != cut)
        rest = plan_resume({s.name: s.outcome for s in ended}, cut, self._site.settings.at_crash)
        if not isinstance(rest, str):
            ended = tuple(s for s in ended if s.name not in rest)
        entry = Entry(
            operation=attrs.evolve(known, outcome="", detail="", finished=""),
            seq=release.seq,
            tree=release.tree,
            previous=self._site.live_name(),
            link=read_link(self._site.current_link) or "",
            builds=True,
            steps=ended,
        )
        running = self._begin_on_disk(entry)
        if isinstance(running, DeployResult):
            return running
        if isinstance(rest, str):
            problem = ReleaseError(rest, "look at the site, then deploy anew")
            return self._completion.failed(running, StepFailed(cut, problem))
        _log.info("going on with %s, which a crash cut off", release.name)
        fd = os.open(self._site.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if cut and cut not in rest:
                running.skip(cut)
            self._completion.before_switch(running, fd, rest=rest)
        except StepFailed as failed:
            return self._completion.failed(running, failed)
        finally:
            os.close(fd)
        return self._proceed(running)

    # -- a release that is there ---------------------------------------------------------------------------------------

    def activate(self, text: str, request: str, requested_by: str, allow: Allowances) -> DeployResult:
        """Put a prepared release live."""
        state = self._site.state()
        commit = text if len(text) in (40, 64) else ""
        answer = self._answer(state, "activate", request, commit)
        if answer is not None:
            return answer
        live = state.get(self._site.live_name())
        prepared = [r for r in state.releases if r.status == "prepared" and r.present]
        fitting = [r for r in prepared if not text or _means(r, text)]
        if not fitting:
            if live is not None and text and _means(live, text):
                return DeployResult(outcome="success", release=live.name, detail=f"{live.tag} is live already")
            what = f"release {text}" if text else "a release"
            return refused(PreflightRefused(f"{what} has not been prepared", "prepare it first"))
        target = fitting[-1]
        if live is not None and target.seq < live.seq and not allow.older and self._site.settings.older == "refuse":
            return refused(
                PolicyRefused(
                    f"{target.name} was prepared before {live.name}, which is live, was made",
                    "prepare it again, or allow older ones",
                )
            )
        return self._switch_to("activate", state, target, request, requested_by)

    def rollback(self, to: str, source: TreeSource | None, request: str, requested_by: str) -> DeployResult:
        """Go back."""
        state = self._site.state()
        answer = self._answer(state, "rollback", request, "")
        if answer is not None:
            return answer
        plan = plan_rollback(state, self._site.live_name(), to, can_rebuild=source is not None)
        if plan.target is None or plan.kind == "impossible":
            return refused(PreflightRefused(f"cannot roll back: {plan.why}", "deploy the tag that shall be live"))
        if plan.kind == "rebuild" and source is not None:
            wanted = Wanted(
                phase="rollback",
                ref=plan.target.ref,
                commit=plan.target.commit,
                request=request,
                requested_by=requested_by,
                allow=Allowances(moved=True, older=True, drift=True),
                again=True,
            )
            return self.make(source, wanted)
        return self._switch_to("rollback", state, plan.target, request, requested_by)

    def _switch_to(
        self, phase: Phase, state: SiteState, target: Release, request: str, requested_by: str
    ) -> DeployResult:
        operation = self._operation(state, phase, target.name, target.ref, target.commit, request, requested_by)
        entry = Entry(
            operation=operation,
            seq=target.seq,
            tree=target.tree,
            previous=self._site.live_name(),
            link=read_link(self._site.current_link) or "",
        )
        running = self._begin_on_disk(entry, AFTER_SWITCH)
        if isinstance(running, DeployResult):
            return running
        return self._completion.switch(running, rollback=phase == "rollback")

    # -- beginning -----------------------------------------------------------------------------------------------------

    def _operation(
        self, state: SiteState, phase: Phase, release: str, ref: str, commit: str, request: str, requested_by: str
    ) -> Operation:
        return Operation(
            number=state.next_operation,
            phase=phase,
            release=release,
            ref=ref,
            commit=commit,
            request=request,
            requested_by=requested_by,
            node=self._node,
            started=timestamp(self._now()),
        )

    def _begin_on_disk(self, entry: Entry, steps: tuple[str, ...] = SCRIPTS) -> Running | DeployResult:
        try:
            ground = ground_on_disk(self._site, entry.operation.release, steps)
        except DeploykitError as error:
            return refused(error)
        return self._begin(entry, ground)

    def _begin(self, entry: Entry, ground: Ground) -> Running | DeployResult:
        journal = self._completion.journal
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
        return Running(self._site, entry, journal, ground, self._listeners)


def refused(error: DeploykitError) -> DeployResult:
    """The result of a refusal: nothing was touched."""
    return DeployResult(outcome="refused", detail=str(error), error=error)


def _is(release: Release, commit: str, tag: str, status: str) -> bool:
    return (release.commit, release.tag, release.status, release.present) == (commit, tag, status, True)


def _means(release: Release, text: str) -> bool:
    named = text in (release.name, str(release.seq), release.tag, release.ref)
    return named or (len(text) >= 7 and release.commit.startswith(text))
