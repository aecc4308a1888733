"""How an operation ends: the steps up to the switch, the switch, what follows it, the way back, and the record.

Shared by an operation that runs through and by `recover`, which enters where a crash cut it off.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from datetime import datetime

import attrs

from deploykit.errors import DeploykitError, ReleaseError
from deploykit.release import build
from deploykit.release.environment import environment_of
from deploykit.release.health import check_health
from deploykit.release.journal import Journal, JournalEntry, read_journal
from deploykit.release.model import DeployResult, Outcome, Release, Status, StepRecord
from deploykit.release.ondisk import damage, is_empty, newest_whole
from deploykit.release.orphans import end_orphan
from deploykit.release.plan import RecoveryPlan, plan_prune, plan_recovery
from deploykit.release.scriptfinder import environment_on_disk
from deploykit.release.scripts import open_checked
from deploykit.release.site import Site
from deploykit.release.state import SiteRecord, save_steps
from deploykit.release.steps import Listeners, StepFailed, StepRunner, timestamp
from deploykit.system.boottime import boot_time
from deploykit.trees import Manifest, read_link, remove_symlink, swap_symlink

_log = logging.getLogger(__name__)

#: The scripts that run after the switch; the only ones where a release on disk is put live.
AFTER_SWITCH = ("post-deploy", "health-check")
#: What stands as a step's output when a crash cut it off.
CUT_OFF = "cut off by a crash"


class Finisher:
    """Ends operations of one site; its lock is held."""

    def __init__(self, site: Site, listeners: Listeners, now: Callable[[], datetime]) -> None:
        self._site = site
        self._listeners = listeners
        self._now = now
        self.journal = Journal(site.journal_file, durable=site.settings.durable)

    # -- up to the switch ------------------------------------------------------------------------------------------

    def before_switch(
        self, runner: StepRunner, fd: int, rest: tuple[str, ...], manifest: Manifest | None = None
    ) -> None:
        """Run what is left of the steps between export and switch.

        Args:
            fd: the site's directory, open since before the first write.
            manifest: of the exported tree, where the caller has it at hand.

        Raises:
            StepFailed: one of them failed.
        """
        site, name, environment = self._site, runner.operation.release, runner.environment
        release = site.release_path(name)
        known = manifest if manifest is not None else site.manifest(name)

        def link() -> None:
            nonlocal known
            known = build.link_shared(site, name, known, environment)

        def finalize() -> None:
            build.finalize(site, name, known, environment, runner.entry.version)
            for script in filter(None, map(environment.scripts.get, AFTER_SWITCH)):  # refused now, not after the switch
                os.close(
                    open_checked(release / script, environment.trusted, release, owned=environment.owner is not None)
                )
            build.barrier(site, fd)

        for step in rest:
            if step in ("pre-deploy", "pre-link"):
                runner.script(step, name, previous=runner.entry.previous)
            elif step == "link-shared":
                runner.step(step, link)
            elif step == "finalize":
                runner.step(step, finalize)

    # -- the switch and after --------------------------------------------------------------------------------------

    def switch(self, runner: StepRunner, *, rollback: bool, detail: str = "") -> DeployResult:
        """Put the release live and see it through, or go back."""
        site, name = self._site, runner.operation.release

        def activate() -> None:
            if not site.has(name):
                raise ReleaseError(f"the directory of {name} is gone", "deploy again; current was not touched")
            swap_symlink(site.current_link, f"releases/{name}", durable=site.settings.durable)

        try:
            runner.step("activate", activate, durable=True)
        except StepFailed as failed:
            if site.live_name() != name:
                return self.failed(runner, failed)
            return self.go_back(runner, failed)
        return self.after_switch(
            runner, ("post-deploy", "health-check", "health-url"), rollback=rollback, detail=detail
        )

    def after_switch(
        self, runner: StepRunner, rest: tuple[str, ...], *, rollback: bool, detail: str = ""
    ) -> DeployResult:
        """Run what follows the switch."""
        name, settings = runner.operation.release, self._site.settings
        previous = runner.entry.previous
        try:
            if "post-deploy" in rest:
                runner.script("post-deploy", name, rollback=rollback, previous=previous)
            if "health-check" in rest:
                runner.script("health-check", name, rollback=rollback, previous=previous)
            if "health-url" in rest and settings.health_url:
                runner.step("health-url", lambda: check_health(settings.health_url, settings.health_timeout))
            self._check_live(name)
        except StepFailed as failed:
            return self._failed_after_switch(runner, failed, rollback=rollback)
        return self.record(runner, "success", status="good", detail=detail)

    def _check_live(self, name: str) -> None:
        """Make sure that `current` leads to the release: only then is it a success.

        Raises:
            StepFailed: it does not.
        """
        if self._site.resolved_name() != name:
            gone = f"the directory of {name} is gone" if not self._site.has(name) else f"current was turned from {name}"
            raise StepFailed("activate", ReleaseError(f"{gone} while it was put live", "deploy again"))

    def _failed_after_switch(self, runner: StepRunner, failed: StepFailed, *, rollback: bool) -> DeployResult:
        if rollback and self._site.resolved_name() == runner.operation.release:
            # To return to the release that was rolled back from would be worse: the older one stays live.
            detail = f"{failed.error}; {runner.operation.release} is live"
            return self.record(runner, "failure", status="good", detail=detail, error=failed.error)
        return self.go_back(runner, failed)

    def go_back(self, runner: StepRunner, failed: StepFailed) -> DeployResult:
        """Take the new release back: the one that was live before is live again."""
        runner.journal.undo(str(failed.error))
        return self.undo(runner, str(failed.error), error=failed.error)

    def undo(self, runner: StepRunner, why: str, *, error: DeploykitError | None = None) -> DeployResult:
        """Switch back, run the old release's post-deploy, and record. Can be done again after a crash."""
        site = self._site
        name, entry = runner.operation.release, runner.entry
        if site.live_name() == name:
            link = self._way_back(entry)
            if link:
                swap_symlink(site.current_link, link, durable=site.settings.durable)
            else:
                remove_symlink(site.current_link, durable=site.settings.durable)
        back, link = site.resolved_name(), read_link(site.current_link) or ""
        before = site.name_of(entry.link) or entry.link
        where = f"back to {back or link}" if link else "none is live now"
        if not before:
            where = "no release was live before, none is now"
        elif link != entry.link:
            where = f"{before}, which was live before, is gone; {where}"
        detail = f"{why}; {where}"
        if back:
            try:
                environment = environment_on_disk(site, back, ("post-deploy",))
                there = StepRunner(site, entry, runner.journal, environment, self._listeners)
                there.steps = runner.steps
                there.script("post-deploy", back, rollback=True, previous=name, record_as="post-deploy-rollback")
            except StepFailed as failed:
                detail += f"; its own post-deploy failed as well: {failed.error}"
            except DeploykitError as problem:
                detail += f"; its post-deploy was not run: {problem}"
        outcome: Outcome = "failure" if entry.link and not link else "rolled-back"
        return self.record(runner, outcome, status="failed", detail=detail, error=error or ReleaseError(why))

    def _way_back(self, entry: JournalEntry) -> str:
        """Return the target for `current`: the one before, else the newest good release, else an empty string."""
        site = self._site
        before = site.name_of(entry.link)
        if before and is_empty(site, before):
            found = newest_whole(site, site.state(), but=entry.operation.release)
            return f"releases/{found.name}" if found is not None else ""
        return entry.link if (site.path / entry.link).is_dir() else ""

    def failed(self, runner: StepRunner, failed: StepFailed) -> DeployResult:
        """Record that a step before the switch failed; the live release was not touched."""
        for name in (runner.operation.release, f"{runner.operation.release}.recycled"):
            with contextlib.suppress(OSError):
                build.remove(self._site.building, name)  # on a full disk, room for the record
        return self.record(runner, "failure", status="failed", detail=str(failed.error), error=failed.error)

    # -- the record ------------------------------------------------------------------------------------------------

    def record(
        self,
        runner: StepRunner,
        outcome: Outcome,
        *,
        status: Status,
        detail: str = "",
        error: DeploykitError | None = None,
    ) -> DeployResult:
        """Write down how it ended, prune, drop the journal, and return the result."""
        site, operation = self._site, runner.operation
        if runner.ran_scripts and site.release_path(operation.release).exists():
            build.settle_release(site, operation.release)
        done = attrs.evolve(operation, outcome=outcome, detail=detail, finished=timestamp(self._now()))
        state = site.state()
        state = self._with_release(state, runner.entry, status, detail if outcome != "success" else "")
        state = state.with_operation(done)
        live = site.resolved_name()
        if outcome == "success" and operation.phase == "rollback":
            state = self._withdraw(state, site.name_of(runner.entry.link))
        state = state.with_departures(live, now := boot_time(), operation.release)
        settings = site.settings
        prune = plan_prune(state, live, now=now, grace=settings.grace, keep=settings.keep, recycle=settings.recycle)
        for release in prune.remove:
            state = state.with_release(attrs.evolve(release, present=False, spare=False))
        for release in state.releases:
            spare = any(release.seq == s.seq for s in prune.spares)
            if release.spare != spare:
                state = state.with_release(attrs.evolve(release, spare=spare))
        steps = tuple(runner.steps)
        save_steps(site.history_file(operation.number), done, steps, durable=site.settings.durable)
        site.save(state)
        runner.journal.finish()
        self.sweep(state)
        _log.info("%s of %s: %s%s", operation.phase, operation.release, outcome, f", {detail}" if detail else "")
        return DeployResult(outcome=outcome, release=operation.release, steps=steps, detail=detail, error=error)

    def _with_release(self, state: SiteRecord, entry: JournalEntry, status: Status, detail: str) -> SiteRecord:
        site, operation = self._site, entry.operation
        name = operation.release
        if entry.recycled:
            spare = state.get(entry.recycled)
            if spare is not None:
                state = state.with_release(attrs.evolve(spare, present=False, spare=False))
        now = timestamp(self._now())
        known = state.get(name)
        live = site.live_name() == name
        present = site.release_path(name).is_dir() and site.manifest_file(name).exists()
        if known is not None:
            if status == "failed" and known.status in ("good", "withdrawn") and not live:
                status = known.status  # a failed attempt to go back there does not make it bad
            activated = now if live else known.activated
            return state.with_release(
                attrs.evolve(known, status=status, present=present, detail=detail, activated=activated)
            )
        return state.with_release(
            Release(
                seq=entry.seq,
                name=name,
                ref=operation.ref,
                tag=entry.version.tag,
                commit=operation.commit,
                tree=entry.tree,
                parts=entry.parts,
                status=status,
                present=present,
                created=now,
                activated=now if live else "",
                requested_by=operation.requested_by,
                request=operation.request,
                detail=detail,
            )
        )

    @staticmethod
    def _withdraw(state: SiteRecord, name: str) -> SiteRecord:
        left = state.get(name)
        if left is None or left.status != "good":
            return state
        return state.with_release(attrs.evolve(left, status="withdrawn"))

    def sweep(self, state: SiteRecord) -> None:
        """Remove from disk what is no longer kept, and what a crash left. What fails is tried again later."""
        live = self._site.live_name()
        gone = {r.name for r in state.releases if not r.present and r.name != live}
        try:
            problems = build.sweep(self._site, gone)
        except OSError as error:
            problems = [str(error)]
        for problem in problems:
            _log.warning("could not remove an old release, it is tried again after the next deploy: %s", problem)

    # -- after a crash ---------------------------------------------------------------------------------------------

    def recover(self) -> DeployResult | None:
        """End the operation that the journal names; return None where there is no journal.

        Raises:
            ReleaseError: the journal cannot be read, or a script that was cut off still runs and cannot be ended.
        """
        site = self._site
        entry = read_journal(site.journal_file)
        if entry is None:
            if site.journal_file.exists():  # not even its first line is whole: nothing had begun
                site.journal_file.unlink()
            return None
        state = site.state()
        known = next((o for o in state.operations if o.number == entry.operation.number), None)
        journal = self.journal
        if known is not None and known.outcome not in ("", "interrupted"):
            journal.finish()  # on record; only the journal's removal was cut off
            self.sweep(site.recorded())
            return None
        if entry.process is not None and entry.cut_off:
            end_orphan(entry.process, entry.cut_off)  # before anything is decided: it may still change things
        live = site.live_name()
        plan = plan_recovery(entry, live, site.settings.at_crash)
        if live == entry.operation.release and (plan.kind == "finish" or not site.has(live)):
            # A rollback may have accepted an edited release: then only a lost directory counts.
            problem = damage(site, live, edits=entry.operation.phase == "rollback", unfinished=True)
            if problem:
                plan = RecoveryPlan(kind="undo", why=problem)
        _log.warning("%s of %s was %s", entry.operation.phase, entry.operation.release, plan.why)
        journal.resume()
        if plan.kind in ("discard", "park"):
            return self._interrupted(entry, journal, state, plan.kind, plan.why)
        scripts = tuple(s for s in AFTER_SWITCH if s in plan.rest)
        try:
            environment = environment_on_disk(site, entry.operation.release, scripts)
        except DeploykitError as error:
            _log.warning("the scripts of %s cannot be run: %s", entry.operation.release, error)
            environment = attrs.evolve(environment_of(site.settings), scripts={})
            runner = StepRunner(site, entry, journal, environment, self._listeners)
            if scripts:  # skipped, they would count as passed
                rollback = entry.operation.phase == "rollback"
                return self._failed_after_switch(runner, StepFailed(scripts[0], error), rollback=rollback)
        else:
            runner = StepRunner(site, entry, journal, environment, self._listeners)
        return self._end(runner, plan, live)

    def _end(self, runner: StepRunner, plan: RecoveryPlan, live: str) -> DeployResult:
        """Undo, fail or finish what was cut off, as planned."""
        entry = runner.entry
        if plan.kind == "undo":
            return self.undo(runner, plan.why)
        if plan.kind == "fail":
            status: Status = "good" if live == entry.operation.release else "failed"
            return self.record(runner, "failure", status=status, detail=plan.why, error=ReleaseError(plan.why))
        rollback = entry.operation.phase == "rollback"
        if not plan.rest and entry.cut_off in ("post-deploy", "health-check"):
            runner.steps.append(StepRecord(name=entry.cut_off, outcome="failed", output=CUT_OFF))
            return self.record(runner, "failure", status="failed", detail=plan.why, error=ReleaseError(plan.why))
        if entry.cut_off in ("post-deploy", "health-check") and entry.cut_off not in plan.rest:
            runner.skip(entry.cut_off)
        elif entry.cut_off == "activate":
            runner.steps.append(StepRecord(name="activate", outcome="done"))
        return self.after_switch(runner, plan.rest, rollback=rollback, detail="finished after a crash")

    def _interrupted(
        self, entry: JournalEntry, journal: Journal, state: SiteRecord, kind: str, why: str
    ) -> DeployResult:
        """Close an operation that did not get as far as the switch; its request may go on with it."""
        site, operation = self._site, entry.operation
        name = operation.release
        steps = list(entry.steps)
        if entry.cut_off:
            steps.append(StepRecord(name=entry.cut_off, outcome="failed", output=CUT_OFF))
        done = attrs.evolve(operation, outcome="interrupted", detail=why, finished=timestamp(self._now()))
        if entry.builds:
            if kind == "discard":
                for path in (site.manifest_file(name), site.settled_file(name)):
                    path.unlink(missing_ok=True)
            state = self._with_release(state, entry, "interrupted", why)
        state = state.with_operation(done)
        save_steps(site.history_file(operation.number), done, tuple(steps), durable=site.settings.durable)
        site.save(state)
        journal.finish()
        self.sweep(state)
        return DeployResult(
            outcome="failure", release=name, steps=tuple(steps), detail=why, error=ReleaseError(why, "deploy again")
        )
