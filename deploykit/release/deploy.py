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
from deploykit.release.finish import AFTER_SWITCH, CUT_OFF, Completion, ground_on_disk
from deploykit.release.journal import JournalEntry
from deploykit.release.model import SCRIPTS, DeployResult, Operation, Phase, Release, StepRecord
from deploykit.release.ondisk import damage, find_rollback, is_live
from deploykit.release.plan import plan_deploy, plan_resume
from deploykit.release.preflight import Allowances, Environment
from deploykit.release.site import Site, release_name
from deploykit.release.source import ResolvedTree, TreeSource
from deploykit.release.state import SiteRecord
from deploykit.release.steps import Listeners, StepFailed, StepRunner, tag_of, timestamp
from deploykit.system.boottime import boot_time
from deploykit.trees import Manifest, read_link
from deploykit.trees.writer import Progress

_log = logging.getLogger(__name__)

_DAMAGED = "give a mirror to write it again from (--mirror)"
_TAKE_IT = f"{_DAMAGED}, or take it as it is where its directory is there (--allow-drift)"
_UP_TO_SWITCH = ("pre-deploy", "link-shared", "pre-link", "finalize")


@attrs.frozen(kw_only=True, slots=True)
class DeployRequest:
    """What somebody asks for. `again`: make a new release although this very one is live."""

    phase: Phase
    ref: str
    commit: str
    request: str
    requested_by: str
    allow: Allowances
    again: bool = False


@attrs.frozen(kw_only=True, slots=True)
class Chosen:
    """A release that is there already, as somebody names it.

    Args:
        text: its name, number, tag or commit; the one that is due when empty.
        ref: where given, `text` is the whole commit, and the release has to be of exactly these two.
        source: where to write it from should it not be whole on disk.
    """

    text: str
    ref: str
    source: TreeSource | None
    request: str
    requested_by: str
    allow: Allowances

    @property
    def commit(self) -> str:
        """The commit, where a whole one was given."""
        return self.text if len(self.text) in (40, 64) else ""

    def means(self, release: Release) -> bool:
        """Return whether a release is one that is named."""
        if self.ref:
            return (release.ref, release.commit) == (self.ref, self.text)
        named = self.text in ("", release.name, str(release.seq), release.tag, release.ref)
        return named or (len(self.text) >= 7 and release.commit.startswith(self.text))


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

    def make(self, source: TreeSource, wanted: DeployRequest) -> DeployResult:
        """Deploy or prepare, or write a release again that an activation or a rollback is to put live.

        Where it failed, and what was live before is gone from the disk, that is made anew: the mirror has it.
        """
        before = self._site.recorded().get(self._site.live_name())
        result = self._make(source, wanted)
        if result.outcome not in ("failure", "rolled-back") or before is None or before.status != "good":
            return result
        if wanted.phase == "rollback" or self._site.live_name() in (before.name, result.release):
            return result
        asked = attrs.evolve(wanted, phase="deploy", request="")
        anew = self._make_anew("deploy", source, before, asked)
        if anew.outcome == "success":
            detail = f"{result.detail}; {before.name} was made anew from the mirror: {anew.release} is live"
            return attrs.evolve(result, outcome="rolled-back", detail=detail)
        return attrs.evolve(result, detail=f"{result.detail}; it could not be made anew: {anew.detail}")

    def _make(self, source: TreeSource, wanted: DeployRequest) -> DeployResult:
        started = time.monotonic()
        site, settings = self._site, self._site.settings
        state = site.state()
        answer = self._answer(state, wanted.phase, wanted.request, wanted.commit, wanted.ref)
        if answer is not None and not self._lost(state, wanted.phase, answer):
            return answer
        live = site.resolved_name()
        try:
            found = preflight.resolve_commit(source, wanted.ref, wanted.commit, wanted.allow)
            ref = found.ref or wanted.ref
            tag = tag_of(ref, found.commit)
            if not wanted.again and is_live(site, state, ref, found.commit):
                return DeployResult(outcome="success", release=live, detail=f"{tag} is live already")
            here = state.get(site.live_name())
            preflight.check_not_older(source, here, found.commit, wanted.allow, settings)
            ground, warning = preflight.look(source, found.tree, site, wanted.allow)
        except DeploykitError as error:
            return refused(error)
        begun = self._begun(state, wanted, ref, found.commit)
        if begun is not None:
            return begun
        plan = plan_deploy(
            state,
            live,
            now=boot_time(),
            grace=settings.grace,
            recycle=settings.recycle,
            scripts=ground.optional_steps(site.settings),
            activate=wanted.phase != "prepare",
        )
        entry = JournalEntry(
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

    def _begun(self, state: SiteRecord, wanted: DeployRequest, ref: str, commit: str) -> DeployResult | None:
        """Go on with what is there already: a release a crash cut off for this request, or a prepared one."""
        parked = self._parked(state, wanted.request, commit)
        if parked is not None:
            resumed = self._resume(state, parked)
            if resumed is not None:
                return resumed
        prepared = state.prepared(ref, commit) if wanted.phase == "deploy" and not wanted.again else None
        if prepared is not None and not damage(self._site, prepared.name):
            return self._switch_to("deploy", state, prepared, wanted)
        return None

    def _build(
        self, running: StepRunner, source: TreeSource, found: ResolvedTree, recycled: Release | None, warning: str
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

    def _proceed(self, running: StepRunner, detail: str = "") -> DeployResult:
        """The release is whole: leave it at that, or put it live."""
        phase, name = running.operation.phase, running.operation.release
        if phase == "prepare":
            if not self._site.has(name):
                problem = ReleaseError(f"the directory of {name} is gone", "prepare it again")
                return self._completion.failed(running, StepFailed("finalize", problem))
            return self._completion.record(running, "success", status="prepared", detail=detail)
        return self._completion.switch(running, rollback=phase == "rollback", detail=detail)

    # -- a request that comes again ------------------------------------------------------------------------------------

    def _answer(self, state: SiteRecord, phase: Phase, request: str, commit: str, ref: str) -> DeployResult | None:
        """Return the answer to a request that was carried out before, or None where it was not."""
        known = state.answered(request)
        if known is None or known.outcome == "" or known.outcome == "interrupted":  # noqa: PLR1714 - mypy narrows by it
            return None
        other_commit = commit and known.commit and not known.commit.startswith(commit)
        other_ref = ref.startswith("refs/") and known.ref.startswith("refs/") and ref != known.ref
        if known.phase != phase or other_commit or other_ref:
            used = f"{known.phase} of {known.ref} {known.commit[:12]}"
            return refused(PreflightRefused(f"request {request} was used for {used}"))
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

    def _lost(self, state: SiteRecord, phase: Phase, answer: DeployResult) -> str:
        """Return what is wrong with the release of a recorded success that should still be there, or "".

        One that others followed may have been pruned, and nobody asks for it to come back.
        """
        prepared = next((r.name for r in reversed(state.releases) if r.status == "prepared"), "")
        due = prepared if phase == "prepare" else self._site.live_name()
        return damage(self._site, due) if answer.outcome == "success" and answer.release == due else ""

    def _answer_whole(self, state: SiteRecord, phase: Phase, chosen: Chosen) -> DeployResult | None:
        """Return the answer to a request that was carried out before; what it put live is made anew if it was lost."""
        answer = self._answer(state, phase, chosen.request, chosen.commit, chosen.ref)
        target = state.get(answer.release) if answer is not None else None
        problem = self._lost(state, phase, answer) if answer is not None else ""
        if target is None or not problem:
            return answer
        if chosen.source is None:
            return refused(PreflightRefused(f"request {chosen.request} was carried out, but {problem}", _DAMAGED))
        return self._make_anew(phase, chosen.source, target, chosen)

    def _parked(self, state: SiteRecord, request: str, commit: str) -> Release | None:
        """The whole release a crash left behind, made for this very request."""
        known = state.answered(request)
        if known is None or known.outcome != "interrupted" or known.commit != commit:
            return None
        release = state.get(known.release)
        return release if release is not None and release.present and release.status == "interrupted" else None

    def _resume(self, state: SiteRecord, release: Release) -> DeployResult | None:
        """Go on with a parked release; None where files of it were lost since, so that it has to be made anew."""
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
            previous=self._site.resolved_name(),
            link=read_link(self._site.current_link) or "",
            builds=True,
            steps=ended,
        )
        running = self._begin_on_disk(entry)
        if isinstance(running, DeployResult):
            return running
        if isinstance(rest, str):
            stopped = ReleaseError(rest, "look at the site, then deploy anew")
            return self._completion.failed(running, StepFailed(cut, stopped))
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

    def activate(self, chosen: Chosen) -> DeployResult:
        """Put a prepared release live."""
        state = self._site.state()
        answer = self._answer_whole(state, "activate", chosen)
        if answer is not None:
            return answer
        target = self._prepared(state, chosen)
        if isinstance(target, DeployResult):
            return target
        problem = damage(self._site, target.name, edits=chosen.allow.drift)
        if not problem:
            return self._switch_to("activate", state, target, chosen)
        if chosen.source is None:
            return refused(PreflightRefused(f"cannot activate: {problem}", f"prepare it again, {_TAKE_IT}"))
        return self._make_anew("activate", chosen.source, target, chosen)

    def _prepared(self, state: SiteRecord, chosen: Chosen) -> Release | DeployResult:
        """Find the newest prepared release that fits, on disk or not; the result where it cannot or need not go live.

        An older one never stands in for the newest: nobody asked for it.
        """
        site = self._site
        live = state.get(site.live_name())
        fitting = [r for r in state.releases if r.status == "prepared" and chosen.means(r)]
        if live is not None and chosen.text and chosen.means(live):
            newest = all(r.seq < live.seq for r in fitting)
            if newest and is_live(site, state, live.ref, live.commit):
                return DeployResult(outcome="success", release=live.name, detail=f"{live.tag} is live already")
        if not fitting:
            what = f"release {chosen.text}" if chosen.text else "a release"
            of = f" of {chosen.ref}" if chosen.ref else ""
            return refused(PreflightRefused(f"{what}{of} has not been prepared", "prepare it first"))
        target = fitting[-1]
        may_be_older = chosen.allow.older or site.settings.older == "allow"
        if live is not None and target.seq < live.seq and not may_be_older:
            return refused(
                PolicyRefused(
                    f"{target.name} was prepared before {live.name}, which is live, was made",
                    "prepare it again, or allow older ones",
                )
            )
        return target

    def rollback(self, chosen: Chosen) -> DeployResult:
        """Go back."""
        site, state = self._site, self._site.state()
        answer = self._answer_whole(state, "rollback", chosen)
        if answer is not None:
            return answer
        plan = find_rollback(
            site,
            state,
            chosen.text,
            ref=chosen.ref,
            can_rebuild=chosen.source is not None,
            edits=chosen.allow.drift,
        )
        if plan.target is None or plan.kind == "impossible":
            remedy = "deploy the tag that shall be live"
            if plan.target is not None and damage(site, plan.target.name):
                remedy += f", {_TAKE_IT}"
            return refused(PreflightRefused(f"cannot roll back: {plan.why}", remedy))
        if plan.kind == "live":
            return DeployResult(outcome="success", release=plan.target.name, detail=plan.why)
        if plan.kind == "rebuild" and chosen.source is not None:
            return self._make_anew("rollback", chosen.source, plan.target, chosen)
        return self._switch_to("rollback", state, plan.target, chosen, detail=plan.why if plan.passed_over else "")

    def _make_anew(
        self, phase: Phase, source: TreeSource, target: Release, asked: DeployRequest | Chosen
    ) -> DeployResult:
        """Write a release again from its mirror, as it was: it is not whole on disk any more."""
        wanted = DeployRequest(
            phase=phase,
            ref=target.ref,
            commit=target.commit,
            request=asked.request,
            requested_by=asked.requested_by,
            allow=Allowances(moved=True, older=True, drift=True),
            again=True,
        )
        return self.make(source, wanted)

    def _switch_to(
        self, phase: Phase, state: SiteRecord, target: Release, asked: DeployRequest | Chosen, *, detail: str = ""
    ) -> DeployResult:
        operation = self._operation(
            state, phase, target.name, target.ref, target.commit, asked.request, asked.requested_by
        )
        entry = JournalEntry(
            operation=operation,
            seq=target.seq,
            tree=target.tree,
            previous=self._site.resolved_name(),
            link=read_link(self._site.current_link) or "",
        )
        running = self._begin_on_disk(entry, AFTER_SWITCH)
        if isinstance(running, DeployResult):
            return running
        return self._completion.switch(running, rollback=phase == "rollback", detail=detail)

    # -- beginning -----------------------------------------------------------------------------------------------------

    def _operation(
        self, state: SiteRecord, phase: Phase, release: str, ref: str, commit: str, request: str, requested_by: str
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

    def _begin_on_disk(self, entry: JournalEntry, steps: tuple[str, ...] = SCRIPTS) -> StepRunner | DeployResult:
        try:
            ground = ground_on_disk(self._site, entry.operation.release, steps)
        except DeploykitError as error:
            return refused(error)
        return self._begin(entry, ground)

    def _begin(self, entry: JournalEntry, ground: Environment) -> StepRunner | DeployResult:
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
        return StepRunner(self._site, entry, journal, ground, self._listeners)


def refused(error: DeploykitError) -> DeployResult:
    """The result of a refusal: nothing was touched."""
    return DeployResult(outcome="refused", detail=str(error), error=error)
