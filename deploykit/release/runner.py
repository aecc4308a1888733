"""Deploy, prepare, activate, discard, roll back and recover one site.

Rules kept here:

* At every instant `current` points at a whole release, or at nothing on a site that never had one.
* What can refuse does so before the first change, and is returned as `refused`.
* Each step is in the journal before it acts. `recover` (which every operation calls first) finishes or undoes what a
  crash cut off. A request that comes again is answered from the record, or goes on where it was cut off.
* Success is returned only when a power cut could not take it away any more.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, TypedDict, Unpack

import attrs

from deploykit.errors import DeploykitError, PolicyRefused, PreflightRefused, ReleaseError
from deploykit.names import ObjectId, RefName
from deploykit.release import preflight
from deploykit.release.deploy import Deployer
from deploykit.release.discard import discard_prepared
from deploykit.release.finish import AFTER_SWITCH, Finisher
from deploykit.release.model import DeployResult, Phase, Release, refused
from deploykit.release.ondisk import find_rollback
from deploykit.release.plan import RollbackPlan, plan_rollback
from deploykit.release.preview import Preview, preview
from deploykit.release.requests import NO_PARTS, Allowances, DeployRequest, Parts, ReleaseRequest
from deploykit.release.resolve import resolve_request
from deploykit.release.scriptfinder import environment_on_disk
from deploykit.release.scripts import OnOutput
from deploykit.release.site import Site
from deploykit.release.source import TreeSource
from deploykit.release.steps import Listeners, OnStep
from deploykit.trees import Differences
from deploykit.trees.writer import Progress

_log = logging.getLogger(__name__)


class _Origin(TypedDict):
    """Where an operation comes from, for the site's records."""

    request_id: str
    requested_by: str
    rollout: str


_NOBODY: Final = _Origin(request_id="", requested_by="", rollout="")


class Runner:
    """Runs the operations of one site. Safe to use from several threads and processes: the site's lock orders them.

    Args:
        site: where, and by which settings.
        node: this machine's name, for scripts and records.
        on_output: called with (step, "stdout" or "stderr", text) while a script prints.
        on_step: called with (step, None) when a step starts and (step, record) when it ended.
        on_progress: called with (files done, files in all) during a fresh export.
        now: the wall clock, aware UTC; only ever shown, never compared.
        may_begin: called under the site's lock before an operation begins, when what a crash cut off has ended. Where
            it raises `PolicyRefused`, the operation is refused.
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
        may_begin: Callable[[], None] = lambda: None,
    ) -> None:
        self.site = site
        self._node = node
        self._listeners = Listeners(output=on_output, step=on_step)
        self._progress = on_progress
        self._now = now
        self._may_begin = may_begin

    # -- reading ---------------------------------------------------------------------------------------------------

    def current(self) -> Release | None:
        """Return the live release, or None where none is."""
        return self.site.current()

    def releases(self) -> tuple[Release, ...]:
        """Return all releases known, oldest first."""
        return self.site.releases()

    def rollback_plan(
        self, to: str = "", *, ref: str = "", can_rebuild: bool = False, allow: Allowances | None = None
    ) -> RollbackPlan:
        """Return whether a rollback is instant, must rebuild, or is impossible; arguments as for `rollback`."""
        edits = allow is not None and allow.drift
        plan = find_rollback(self.site, self.site.state(), to, ref=ref, can_rebuild=can_rebuild, edits=edits)
        if plan.kind in ("instant", "impossible") and plan.target is not None and self.site.has(plan.target.name):
            try:
                environment_on_disk(self.site, plan.target.name, AFTER_SWITCH)
            except DeploykitError as error:
                return RollbackPlan(kind="impossible", target=plan.target, why=str(error))
        return plan

    def with_site_state(self, result: DeployResult) -> DeployResult:
        """Return a result with what is live now and what a rollback would go to, read from the site."""
        try:
            state, live = self.site.state(), self.site.resolved_name()
        except DeploykitError:
            return result
        linked = self.site.live_name()
        previous = plan_rollback(state.without_twins(linked), linked, can_rebuild=True).target
        about, here = state.get(result.release), state.get(live) if live else None
        known = here is not None or not live  # what is live without a record cannot be named
        return attrs.evolve(result, seen=known, about=about, live=here, previous=previous)

    def verify(self, release: str = "", *, paranoid: bool | None = None) -> Differences:
        """Compare a release (the live one by default) with its manifest.

        Raises:
            PreflightRefused: there is no site.
            ReleaseError: there is no such release, or it has no manifest.
        """
        self.site.require()
        state = self.site.state()
        found = state.find(release) if release else state.get(self.site.resolved_name())
        if found is None or not found.present:
            raise ReleaseError(f"there is no release {release or '(none is live)'} on disk", "see `release list`")
        paranoid = self.site.settings.paranoid if paranoid is None else paranoid
        manifest = preflight.last_manifest(self.site, found.name)
        if manifest is None:
            raise ReleaseError(f"{found.name} has no manifest", "it was not finished; deploy once more")
        return preflight.find_drift(self.site, found.name, manifest, paranoid=paranoid)

    # -- operations ------------------------------------------------------------------------------------------------

    def deploy(
        self,
        source: TreeSource,
        ref: RefName | str = "",
        commit: ObjectId | str = "",
        *,
        parts: Parts = NO_PARTS,
        request: str = "",
        requested_by: str = "",
        rollout: str = "",
        allow: Allowances | None = None,
        again: bool = False,
    ) -> DeployResult:
        """Make a release of `commit`, which `ref` points at, and put it live.

        Args:
            source: a mirror, or any repository; a `PartSource` where there are several.
            commit: what was decided on; what `ref` points at now when empty.
            parts: with several repositories what is asked of each, and no `ref`; the others stay as they are live.
                `commit` is then the id that all parts must come to (`composition_id`), where one is given.
            request: the id of the message that asks; one that was carried out is answered, not repeated.
            again: make a new release although this very commit is live already.

        Raises:
            LockBusy: another operation still ran after `lock_wait`.
            ReleaseError: the site's own records cannot be read.
        """
        origin = _Origin(request_id=request, requested_by=requested_by, rollout=rollout)
        return self._make(source, _wanted("deploy", ref, commit, parts, allow, again, **origin))

    def prepare(
        self,
        source: TreeSource,
        ref: RefName | str = "",
        commit: ObjectId | str = "",
        *,
        parts: Parts = NO_PARTS,
        request: str = "",
        requested_by: str = "",
        rollout: str = "",
        allow: Allowances | None = None,
    ) -> DeployResult:
        """Do all of a deploy but the switch: the release is whole and waits for `activate`. See `deploy`."""
        origin = _Origin(request_id=request, requested_by=requested_by, rollout=rollout)
        return self._make(source, _wanted("prepare", ref, commit, parts, allow, True, **origin))

    def preview(
        self,
        source: TreeSource,
        ref: RefName | str = "",
        commit: ObjectId | str = "",
        *,
        parts: Parts = NO_PARTS,
        allow: Allowances | None = None,
        again: bool = False,
        activate: bool = True,
    ) -> Preview:
        """Return what a deploy would do, and touch nothing, not even a site that does not exist yet.

        Args:
            again, activate: as `deploy(again=True)` and `prepare` would.

        Raises:
            DeploykitError: what the deploy would be refused for.
        """
        phase: Phase = "deploy" if activate else "prepare"
        return preview(self.site, source, _wanted(phase, ref, commit, parts, allow, again, **_NOBODY))

    def activate(
        self,
        release: str = "",
        *,
        ref: RefName | str = "",
        source: TreeSource | None = None,
        request: str = "",
        requested_by: str = "",
        rollout: str = "",
        allow: Allowances | None = None,
    ) -> DeployResult:
        """Put a prepared release live.

        Args:
            release: its name, number, tag or commit; the newest prepared one when empty.
            ref: where given, `release` is a whole commit, and only a release of exactly that ref and commit will do.
            source: where to write it from should it not be whole on disk any more.
        """
        origin = _Origin(request_id=request, requested_by=requested_by, rollout=rollout)
        wanted = ReleaseRequest(name=release, ref=str(ref), source=source, allow=allow or Allowances(), **origin)
        return self._locked(lambda deployer: deployer.activate(wanted), new=False)

    def rollback(
        self,
        to: str = "",
        *,
        ref: RefName | str = "",
        source: TreeSource | None = None,
        request: str = "",
        requested_by: str = "",
        rollout: str = "",
        allow: Allowances | None = None,
    ) -> DeployResult:
        """Go back to the last good release before the live one, or to the one named.

        Args:
            to: its name, number, tag or commit.
            ref: where given, `to` is a whole commit, and only a release of exactly that ref and commit will do.
            source: where to write a release from that is not whole on disk any more.
            allow: with `drift`, a release that was edited by hand will do as it is.
        """
        origin = _Origin(request_id=request, requested_by=requested_by, rollout=rollout)
        wanted = ReleaseRequest(name=to, ref=str(ref), source=source, allow=allow or Allowances(), **origin)
        return self._locked(lambda deployer: deployer.rollback(wanted), new=False)

    def discard(
        self,
        ref: RefName | str,
        commit: ObjectId | str,
        *,
        request: str = "",
        requested_by: str = "",
        rollout: str = "",
    ) -> DeployResult:
        """Remove the prepared releases of exactly that ref and commit, which were never live. No script runs.

        Where none waits, that is a success, and `detail` says so. What is live, or was good, is refused.
        """
        origin = _Origin(request_id=request, requested_by=requested_by, rollout=rollout)
        wanted = ReleaseRequest(name=str(commit), ref=str(ref), source=None, allow=Allowances(), **origin)
        if not self.site.exists():
            return DeployResult(outcome="success", detail=f"nothing was ever deployed to {self.site.path}", seen=True)
        return self._locked_finisher(
            lambda f: discard_prepared(self.site, f, self._listeners, wanted, node=self._node, now=self._now), new=False
        )

    def pin(self, release: str, *, pinned: bool = True) -> Release:
        """Keep a release whatever the keep-limit says, or stop doing so.

        Raises:
            PreflightRefused: there is no site.
            ReleaseError: there is no such release on disk.
        """
        self.site.require()
        with self.site.locked():
            state = self.site.state()
            found = state.find(release)
            if found is None or not found.present:
                raise ReleaseError(f"there is no release {release} on disk", "see `release list`")
            changed = attrs.evolve(found, pinned=pinned, spare=found.spare and not pinned)
            try:
                self.site.save(state.with_release(changed))
            except OSError as error:
                problem = f"cannot write {self.site.state_file}: {error.strerror}"
                raise ReleaseError(problem, "make room or repair the disk; nothing was changed") from error
            return changed

    def recover(self) -> DeployResult | None:
        """End what a crash cut off; return its result, or None where there was nothing.

        Every operation does this first. A daemon calls it when it starts.
        """
        if not self.site.exists():
            return None
        with self.site.locked():
            finisher = self._finisher()
            try:
                done = finisher.recover()
                finisher.sweep(self.site.recorded())
                return done
            finally:
                finisher.journal.close()

    # -- inside the lock -------------------------------------------------------------------------------------------

    def _make(self, source: TreeSource, request: DeployRequest) -> DeployResult:
        if not self.site.exists():
            try:  # not even the site's own directories are made for what will be refused
                found = resolve_request(source, request, None)
                environment, _ = preflight.check_all(source, found.tree, self.site, request.allow)
                preflight.check_objects(source, found, self.site, environment)
            except DeploykitError as error:
                return self.with_site_state(refused(error))
        return self._locked(lambda deployer: deployer.make(source, request))

    def _locked(self, act: Callable[[Deployer], DeployResult], *, new: bool = True) -> DeployResult:
        return self._locked_finisher(lambda finisher: act(self._deployer(finisher)), new=new)

    def _locked_finisher(self, act: Callable[[Finisher], DeployResult], *, new: bool) -> DeployResult:
        """Run one operation under the lock; `new` where it may set up a site that is not there yet."""
        with contextlib.ExitStack() as stack:
            try:
                if not new:
                    self.site.require()
                self.site.set_up()
                stack.enter_context(self.site.locked())
                self.site.check_adopted()
            except (PreflightRefused, ReleaseError) as error:
                return self.with_site_state(refused(error))
            finisher = self._finisher()
            stack.callback(finisher.journal.close)
            try:
                finisher.recover()
                not_now = self._refusal()
                return self.with_site_state(act(finisher) if not_now is None else not_now)
            except OSError as error:
                _log.error("%s: %s; ending it from the journal", self.site.path, error)
                finisher.journal.close()
                return self.with_site_state(self._after_error(finisher, error))

    def _refusal(self) -> DeployResult | None:
        """Return the refusal of an operation that may not begin; None where it may."""
        try:
            self._may_begin()
        except PolicyRefused as error:
            return refused(error)
        return None

    @staticmethod
    def _after_error(finisher: Finisher, error: OSError) -> DeployResult:
        """Return the result where neither step nor record could be written: ended as after a crash, or a failure."""
        try:
            done = finisher.recover()
        except OSError as again:
            error, done = again, None
        if done is not None:
            return done
        problem = ReleaseError(
            f"cannot write down what was done: {error.strerror or error}",
            "make room or repair the disk; the next start finishes or undoes what was begun",
        )
        return DeployResult(outcome="failure", detail=str(problem), error=problem)

    def _finisher(self) -> Finisher:
        return Finisher(self.site, self._listeners, self._now)

    def _deployer(self, finisher: Finisher) -> Deployer:
        return Deployer(self.site, finisher, self._listeners, self._progress, self._node, self._now)


def _wanted(
    phase: Phase,
    ref: str,
    commit: str,
    parts: Parts,
    allow: Allowances | None,
    again: bool,
    **origin: Unpack[_Origin],
) -> DeployRequest:
    return DeployRequest(
        phase=phase,
        ref=str(ref),
        commit=str(commit),
        parts=parts,
        allow=allow or Allowances(),
        again=again,
        **origin,
    )
