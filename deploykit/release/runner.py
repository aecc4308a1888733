"""Deploy, prepare, activate, roll back and recover one site.

Rules kept here:

* At every instant `current` points at a whole release, or at nothing on a site that never had one.
* What can refuse does so before the first change, and is returned as `refused`.
* Each step is in the journal before it acts. `recover` (which every operation calls first) finishes or undoes what a
  crash cut off. A request that comes again is answered from the record, or goes on where it was cut off.
* Success is returned only when a power cut could not take it away any more.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime

import attrs

from deploykit.errors import DeploykitError, PreflightRefused, ReleaseError
from deploykit.names import ObjectId, RefName
from deploykit.release import build, preflight
from deploykit.release.completion import CUT_OFF, Completion, ground_on_disk
from deploykit.release.journal import Entry, Journal
from deploykit.release.operation import Listeners, OnStep, Running, StepFailed, tag_of, timestamp
from deploykit.release.plan import RollbackPlan, plan_deploy, plan_resume, plan_rollback
from deploykit.release.preflight import Allowances, Ground
from deploykit.release.scripts import OnOutput
from deploykit.release.site import Site, release_name
from deploykit.release.source import ResolvedTree, TreeSource
from deploykit.release.state import SiteState
from deploykit.release.values import DeployResult, Operation, Phase, Release
from deploykit.trees import Differences
from deploykit.trees.writer import Progress

_log = logging.getLogger(__name__)


class Runner:
    """Runs the operations of one site. Safe to use from several threads and processes: the site's lock orders them.

    Args:
        site: where, and by which settings.
        node: this machine's name, for scripts and records.
        on_output: called with (step, "stdout" or "stderr", text) while a script prints.
        on_step: called with (step, None) when a step starts and (step, record) when it ended.
        on_progress: called with (files done, files in all) during a fresh export.
        now: the wall clock, aware UTC; only ever shown, never compared.
    """

    def __init__(
        self,
        site: Site,
        *,
        node: str = "",
        on_output: OnOutput | None = None,
        on_step: OnStep | None = None,
        on_progress: Progress | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.site = site
        self._node = node
        self._listeners = Listeners(output=on_output, step=on_step)
        self._progress = on_progress
        self._now = now

    # -- reading ---------------------------------------------------------------------------------------------------

    def current(self) -> Release | None:
        """The live release."""
        return self.site.current()

    def releases(self) -> tuple[Release, ...]:
        """All releases known, oldest first."""
        return self.site.releases()

    def rollback_plan(self, to: str = "", *, can_rebuild: bool = False) -> RollbackPlan:
        """Say in advance whether a rollback is instant, must rebuild, or is impossible."""
        return plan_rollback(self.site.state(), self.site.live_name(), to, can_rebuild=can_rebuild)

    def verify(self, release: str = "", *, paranoid: bool | None = None) -> Differences:
        """Compare a release (the live one by default) with its manifest.

        Raises:
            ReleaseError: there is no such release, or it has no manifest.
        """
        state = self.site.state()
        found = state.find(release) if release else state.get(self.site.live_name())
        if found is None or not found.present:
            raise ReleaseError(f"there is no release {release or '(none is live)'} on disk", "see `release list`")
        paranoid = self.site.settings.paranoid if paranoid is None else paranoid
        differences = preflight.find_drift(self.site, found.name, paranoid=paranoid)
        if differences is None:
            raise ReleaseError(f"{found.name} has no manifest", "it was not finished; deploy once more")
        return differences

    # -- operations ------------------------------------------------------------------------------------------------

    def deploy(
        self,
        source: TreeSource,
        ref: RefName | str,
        commit: ObjectId | str = "",
        *,
        request: str = "",
        requested_by: str = "",
        allow: Allowances | None = None,
        again: bool = False,
    ) -> DeployResult:
        """Make a release of `commit`, which `ref` points at, and put it live.

        Args:
            source: a mirror, or any repository.
            commit: what was decided on; what `ref` points at now when empty.
            request: the id of the message that asks; one that was carried out is answered, not repeated.
            again: make a new release although this very commit is live already.

        Raises:
            LockBusy: another operation still ran after `lock_wait`.
            ReleaseError: the site's own records cannot be read.
        """
        return self._locked(
            lambda: self._make("deploy", source, ref, commit, request, requested_by, allow or Allowances(), again)
        )

    def prepare(
        self,
        source: TreeSource,
        ref: RefName | str,
        commit: ObjectId | str = "",
        *,
        request: str = "",
        requested_by: str = "",
        allow: Allowances | None = None,
    ) -> DeployResult:
        """Do all of a deploy but the switch: the release is whole and waits for `activate`. See `deploy`."""
        return self._locked(
            lambda: self._make("prepare", source, ref, commit, request, requested_by, allow or Allowances(), True)
        )

    def activate(self, release: str = "", *, request: str = "", requested_by: str = "") -> DeployResult:
        """Put a prepared release live.

        Args:
            release: its name, number, tag or commit; the newest prepared one when empty.
        """
        return self._locked(lambda: self._activate(release, request, requested_by))

    def rollback(
        self,
        to: str = "",
        *,
        source: TreeSource | None = None,
        request: str = "",
        requested_by: str = "",
    ) -> DeployResult:
        """Go back to the last good release before the live one, or to the one named.

        Args:
            source: where to write a release from that is no longer on disk.
        """
        return self._locked(lambda: self._rollback(to, source, request, requested_by))

    def pin(self, release: str, *, pinned: bool = True) -> Release:
        """Keep a release whatever the keep-limit says, or stop doing so.

        Raises:
            ReleaseError: there is no such release on disk.
        """
        with self.site.locked():
            state = self.site.state()
            found = state.find(release)
            if found is None or not found.present:
                raise ReleaseError(f"there is no release {release} on disk", "see `release list`")
            changed = attrs.evolve(found, pinned=pinned, spare=found.spare and not pinned)
            self.site.save(state.with_release(changed))
            return changed

    def recover(self) -> DeployResult | None:
        """Bring to its end what a crash cut off; None where nothing was.

        Every operation does this first. A daemon calls it when it starts.
        """
        if not self.site.journal_file.exists():
            return None
        with self.site.locked():
            return self._completion().recover()

    # -- inside the lock -------------------------------------------------------------------------------------------

    def _locked(self, act: Callable[[], DeployResult]) -> DeployResult:
        try:
            self.site.set_up()
        except PreflightRefused as error:
            return refused(error)
        with self.site.locked():
            try:
                self._completion().recover()
                return act()
            except OSError as error:
                # Not even the record could be written. The journal is still there: the next start ends what this
                # one could not.
                problem = ReleaseError(
                    f"cannot write below {self.site.private}: {error.strerror or error}",
                    "make room or repair the disk; the next start finishes or undoes what was begun",
                )
                return DeployResult(outcome="failure", detail=str(problem), error=problem)

    def _completion(self) -> Completion:
        return Completion(self.site, self._listeners, self._now)

    def _answer(self, state: SiteState, phase: Phase, request: str, commit: str) -> DeployResult | None:
        """The answer to a request that was carried out before, or None where it must be."""
        known = state.answered(request)
        if known is None or known.outcome in ("", "interrupted"):
            return None
        if known.phase != phase or (commit and known.commit and known.commit != commit):
            return refused(PreflightRefused(f"request {request} was used for {known.phase} of {known.commit[:12]}"))
        _log.info("request %s was carried out before: %s", request, known.outcome)
        return DeployResult(
            outcome="failure" if known.outcome == "interrupted" or not known.outcome else known.outcome,
            release=known.release,
            steps=self.site.steps(known),
            detail=known.detail,
            again=True,
        )

    def _make(
        self,
        phase: Phase,
        source: TreeSource,
        ref: str,
        commit: str,
        request: str,
        requested_by: str,
        allow: Allowances,
        again: bool,
        *,
        rollback: bool = False,
    ) -> DeployResult:
        state = self.site.state()
        answer = self._answer(state, phase, request, commit)
        if answer is not None:
            return answer
        parked = self._parked(state, request, commit)
        if parked is not None:
            return self._resume(state, parked)
        settings = self.site.settings
        live = self.site.live_name()
        try:
            found = preflight.resolve_commit(source, ref, commit, allow)
            tag = tag_of(found.ref or ref, found.commit)
            here = state.get(live)
            as_asked = (found.commit, tag, "good")
            if not again and here is not None and (here.commit, here.tag, here.status) == as_asked:
                return DeployResult(outcome="success", release=live, detail=f"{tag} is live already")
            preflight.check_not_older(source, self.site, found.commit, allow)
            ground = preflight.ground_of(settings)
            scripts = preflight.scripts_in_tree(source, found.tree, settings, ground.rules)
            ground = attrs.evolve(ground, scripts=scripts)
            preflight.check_shared(source, found.tree, self.site, ground.rules)
            warning = preflight.check_drift(self.site, allow)
            preflight.check_space(self.site)
        except DeploykitError as error:
            return refused(error)
        plan = plan_deploy(
            state, live, recycle=settings.recycle, scripts=frozenset(scripts), activate=phase != "prepare"
        )
        name = release_name(plan.seq, tag, found.commit)
        operation = self._operation(state, phase, name, found.ref or ref, found.commit, request, requested_by)
        entry = Entry(
            operation=operation,
            seq=plan.seq,
            tree=found.tree,
            previous=live,
            recycled=plan.recycle.name if plan.recycle is not None else "",
        )
        running = self._begin(entry, ground)
        if isinstance(running, DeployResult):
            return running
        return self._run_deploy(running, source, found, plan.recycle, warning, rollback)

    def _begin(self, entry: Entry, ground: Ground) -> Running | DeployResult:
        journal = Journal(self.site.journal_file, durable=self.site.settings.durable)
        try:
            journal.begin(entry)
        except OSError as error:
            journal.close()
            self.site.journal_file.unlink(missing_ok=True)
            return refused(
                PreflightRefused(
                    f"cannot write {self.site.journal_file}: {error.strerror}", "nothing was touched; make room there"
                )
            )
        return Running(self.site, entry, journal, ground, self._listeners)

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

    def _run_deploy(
        self,
        running: Running,
        source: TreeSource,
        found: ResolvedTree,
        recycled: Release | None,
        warning: str,
        rollback: bool,
    ) -> DeployResult:
        site, ground, name = self.site, running.ground, running.operation.release
        completion = self._completion()

        def export() -> str:
            done = build.export(site, source, name, found.tree, ground, recycled, self._progress)
            if any(s in ground.scripts for s in ("pre-deploy", "pre-link")):
                build.barrier(site, fd)  # what a script acts on must not be gone after a power cut
            return done.detail

        fd = os.open(site.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            running.step("export", export)
            completion.before_switch(running, fd, rest=("pre-deploy", "link-shared", "pre-link", "finalize"))
        except StepFailed as failed:
            return completion.failed(running, failed)
        finally:
            os.close(fd)
        if running.operation.phase == "prepare":
            return completion.record(running, "success", status="prepared", detail=warning)
        return completion.switch(running, rollback=rollback, detail=warning)

    def _parked(self, state: SiteState, request: str, commit: str) -> Release | None:
        """The release a crash cut off while it was made for this very request."""
        known = state.answered(request)
        if known is None or known.outcome != "interrupted" or (commit and known.commit != commit):
            return None
        release = state.get(known.release)
        return release if release is not None and release.present and release.status == "interrupted" else None

    def _resume(self, state: SiteState, release: Release) -> DeployResult:
        """Go on with a parked release."""
        known = state.answered(release.request)
        if known is None:
            raise ReleaseError(f"{release.name} belongs to no request", "deploy anew")
        steps = self.site.steps(known)
        cut = next((s.name for s in steps if s.output == CUT_OFF), "")
        rest = plan_resume({s.name: s.outcome for s in steps if s.name != cut}, cut, self.site.settings.at_crash)
        completion = self._completion()
        kept = tuple(s for s in steps if s.name != cut)
        entry = Entry(
            operation=attrs.evolve(known, outcome="", detail="", finished=""),
            seq=release.seq,
            tree=release.tree,
            previous=self.site.live_name(),
            steps=kept,
        )
        try:
            ground = ground_on_disk(self.site, release.name)
        except DeploykitError as error:
            return refused(error)
        running = self._begin(entry, ground)
        if isinstance(running, DeployResult):
            return running
        if isinstance(rest, str):
            return completion.failed(running, StepFailed(cut, ReleaseError(rest, "look at the site, deploy anew")))
        _log.info("going on with %s, which a crash cut off", release.name)
        fd = os.open(self.site.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if cut and cut not in rest:
                running.skip(cut)
            completion.before_switch(running, fd, rest=rest)
        except StepFailed as failed:
            return completion.failed(running, failed)
        finally:
            os.close(fd)
        if known.phase == "prepare":
            return completion.record(running, "success", status="prepared")
        return completion.switch(running, rollback=False)

    def _activate(self, text: str, request: str, requested_by: str) -> DeployResult:
        state = self.site.state()
        answer = self._answer(state, "activate", request, "")
        if answer is not None:
            return answer
        prepared = [r for r in state.releases if r.status == "prepared" and r.present]
        if text:
            fitting = [r for r in prepared if text in (r.name, str(r.seq), r.tag, r.ref) or r.commit.startswith(text)]
        else:
            fitting = prepared
        live = state.get(self.site.live_name())
        if not fitting:
            if live is not None and text and (text in (live.name, live.tag, live.ref) or live.commit.startswith(text)):
                return DeployResult(outcome="success", release=live.name, detail=f"{live.tag} is live already")
            what = f"release {text}" if text else "a release"
            return refused(PreflightRefused(f"{what} has not been prepared", "prepare it first"))
        target = fitting[-1]
        return self._switch_to("activate", state, target, request, requested_by)

    def _rollback(self, to: str, source: TreeSource | None, request: str, requested_by: str) -> DeployResult:
        state = self.site.state()
        answer = self._answer(state, "rollback", request, "")
        if answer is not None:
            return answer
        plan = plan_rollback(state, self.site.live_name(), to, can_rebuild=source is not None)
        if plan.target is None or plan.kind == "impossible":
            return refused(PreflightRefused(f"cannot roll back: {plan.why}", "deploy the tag that shall be live"))
        if plan.kind == "rebuild" and source is not None:
            everything = Allowances(moved=True, older=True)
            target = plan.target
            return self._make(
                "rollback", source, target.ref, target.commit, request, requested_by, everything, True, rollback=True
            )
        return self._switch_to("rollback", state, plan.target, request, requested_by)

    def _switch_to(
        self, phase: Phase, state: SiteState, target: Release, request: str, requested_by: str
    ) -> DeployResult:
        try:
            ground = ground_on_disk(self.site, target.name)
        except DeploykitError as error:
            return refused(error)
        operation = self._operation(state, phase, target.name, target.ref, target.commit, request, requested_by)
        entry = Entry(operation=operation, seq=target.seq, tree=target.tree, previous=self.site.live_name())
        running = self._begin(entry, ground)
        if isinstance(running, DeployResult):
            return running
        return self._completion().switch(running, rollback=phase == "rollback")


def refused(error: DeploykitError) -> DeployResult:
    """The result of a refusal: nothing was touched."""
    return DeployResult(outcome="refused", detail=str(error), error=error)
