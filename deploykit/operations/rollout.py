"""Run a rollout: start it, go on with one whose coordinator is gone, take one over to abort it.

Rules:

* One rollout per site on this machine: the lock ends with its holder.
* A rollout goes on where its journal says it stands; the journal's file is all that another machine needs.
* Ctrl-C leaves it unfinished: nodes finish what they were asked, nothing more is sent, and `resume` goes on.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import attrs

from deploykit.bus import Bus
from deploykit.errors import ConnectError, KeyUnavailable, PolicyRefused, RolloutError, UsageError
from deploykit.fleet import controls
from deploykit.fleet.coordinator import RolloutCoordinator
from deploykit.fleet.journal import NAME, JournalHead, RolloutJournal, at_time, journal_path, read_journal
from deploykit.fleet.mandates import time_objection
from deploykit.fleet.observer import RolloutObserver
from deploykit.fleet.plan import Plan
from deploykit.fleet.rollout import RolloutModel
from deploykit.fleet.sitelock import LockHolder, SiteLock
from deploykit.fleet.view import BAD
from deploykit.messages import DeployReported, utc_now
from deploykit.names import NodeName
from deploykit.operations.deploy import load_report_trust, signing_key, user_name
from deploykit.operations.keychoice import KeyGiven
from deploykit.operations.proposals import NAME as PROPOSAL
from deploykit.operations.proposals import prune_proposals
from deploykit.operations.rolloutplan import PlannedRollout
from deploykit.operations.rolloutstore import find_journal, prune, read_stored, unfinished
from deploykit.settings.node import Settings
from deploykit.system.durable import replace_file, sync_directory


@attrs.frozen(kw_only=True, slots=True)
class RolloutResult:
    """How a rollout stands when this process leaves it.

    Args:
        plan, model: what it was to do, and how it stands.
        reports: what nodes reported while this process looked, by node. Of many nodes, output is left out.
        doubts: why reports were not believed, by node.
        interrupted: it was left by Ctrl-C, and has not ended.
    """

    plan: Plan
    model: RolloutModel
    reports: Mapping[NodeName, DeployReported]
    doubts: Mapping[NodeName, tuple[str, ...]]
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """0: every node is as wanted. 1: it is not. 3: every asked node refused. 130: left by Ctrl-C."""
        return 130 if self.interrupted else self.model.exit_code(self.plan)

    @property
    def left_running(self) -> tuple[str, ...]:
        """What goes on after Ctrl-C, and how to come back, a line each; empty where it has ended."""
        return what_goes_on(self.plan, self.model) if self.interrupted else ()


def start_rollout(
    planned: PlannedRollout,
    bus: Bus,
    *,
    observer: RolloutObserver | None = None,
    begun: float | None = None,
) -> RolloutResult:
    """Carry a planned rollout out, and return when it has ended, or at Ctrl-C.

    Args:
        planned: from `plan_deploy` and its siblings.
        bus: connected.
        observer: is shown what happens.
        begun: monotonic seconds when the person gave the command. The time limit of a plan of one node counts from it.

    Raises:
        RolloutBusy: another rollout of the site is coordinated on this machine.
        RolloutError: the journal cannot be written.
        ConnectError: the broker does not answer; nothing was sent, and nothing is left.
    """
    settings, directory = planned.settings, planned.settings.rollouts_directory
    with SiteLock(directory, planned.plan.site, _holder(planned.plan.rollout)):
        prune(directory, time.time())
        prune_proposals(directory, utc_now())
        plan = _within(planned.plan, begun)
        head = JournalHead(
            plan=plan,
            begun=time.time(),
            evidence=planned.evidence,
            without_build=planned.without_build,
            override_lock=planned.override_lock,
            mandate=planned.mandate,
            asks=planned.asks,
        )
        with RolloutJournal.create(directory, head) as journal:
            coordinator = RolloutCoordinator(
                bus,
                settings.topics,
                planned.key,
                planned.trust,
                journal,
                observer=observer,
                connect_timeout=min(plan.options.timeout, settings.broker.connect_timeout),
            )
            try:
                return _run(coordinator)
            except (ConnectError, KeyboardInterrupt):
                if not coordinator.begun:
                    _forget(journal.directory)
                raise


def resume_rollout(
    settings: Settings,
    bus: Bus,
    where: str | Path,
    *,
    key: KeyGiven = None,
    observer: RolloutObserver | None = None,
    then: controls.ControlKind | None = "resume",
    rollback: bool = False,
) -> RolloutResult:
    """Go on with a rollout whose coordinator is gone, and return when it has ended, or at Ctrl-C.

    Args:
        settings: of this machine.
        bus: connected.
        where: its id or the beginning of it; or the path of a journal that was copied from another machine.
        key: signs the commands; the settings' key when None.
        observer: is shown what happens.
        then: what to ask of it first: `resume` and `promote` end a pause, `abort` ends the rollout.
        rollback: of an abort: nodes that have the new release go back.

    Raises:
        RolloutBusy: another process on this machine coordinates it, or another rollout of its site.
        UsageError: there is no such rollout, it has ended, or a later one of its site was begun here.
        RolloutError: its journal cannot be read or written.
        ConnectError: the broker does not answer; nothing was sent.
    """
    signer, trust = signing_key(settings, key), load_report_trust(settings)
    directory = settings.rollouts_directory
    path = _journal_at(directory, where)
    plan = read_resumable(directory, path, aborting=then == "abort", rollback=rollback)
    with SiteLock(directory, plan.site, _holder(plan.rollout)), RolloutJournal.open(path) as journal:
        if then is not None:
            controls.ask(journal.directory, controls.ControlRequest(kind=then, by=user_name(), rollback=rollback))
        coordinator = RolloutCoordinator(
            bus,
            settings.topics,
            signer,
            trust,
            journal,
            resumed=True,
            observer=observer,
            connect_timeout=settings.broker.connect_timeout,
        )
        return _run(coordinator)


def read_resumable(directory: Path, path: Path, *, aborting: bool = False, rollback: bool = False) -> Plan:
    """Return the plan of a rollout that can be gone on with.

    Raises:
        UsageError: it has ended, or a later rollout of its site was begun here.
        PolicyRefused: its mandate has ended: nodes obey nothing of it any more but `discard`.
        RolloutError: its journal cannot be read.
    """
    found = read_stored(directory, path)
    plan = found.plan
    if found.end is not None:
        remedy = f"for what failed: `deploykit rollout retry {plan.rollout}`"
        if not any(status.state in BAD for status in found.model.nodes.values()):
            remedy = f"see `deploykit rollout show {plan.rollout}`"
        raise UsageError(f"rollout {plan.rollout} has ended: {found.end.state}", remedy)
    if found.later and not aborting:
        raise UsageError(
            f"rollout {found.later} of {plan.site} was begun after {plan.rollout}: "
            "going on would put an older release live",
            f"end it: `deploykit rollout abort {plan.rollout}`",
        )
    mandate = found.contents.head.mandate
    over = time_objection(mandate.message, utc_now()) if mandate is not None else ""
    if over and (rollback or not aborting):
        raise PolicyRefused(
            f"{over}: no node goes on under it" + (", or back" if rollback else ""),
            f"end it: `deploykit rollout abort {plan.rollout}`, then propose anew what is left",
        )
    return plan


def left_unfinished(settings: Settings, plan: Plan) -> tuple[str, ...]:
    """Return a line for each rollout of the plan's site that nobody has finished: for the person who begins another."""
    return tuple(
        f"rollout {entry.rollout} of {plan.site} was left unfinished ({entry.state}): "
        f"`deploykit rollout abort {entry.rollout}` ends it"
        for entry in unfinished(settings.rollouts_directory, plan.site, but=plan.rollout)
    )


def what_goes_on(plan: Plan, model: RolloutModel, now: datetime | None = None) -> tuple[str, ...]:
    """Return what happens after this process ends before the rollout does, and how to come back; a line each."""
    waited = model.waiting_for
    lines = []
    if waited:
        names = ", ".join(waited[:5]) + (f" and {len(waited) - 5} more" if len(waited) > 5 else "")
        phases = ", ".join(sorted(set(model.outstanding.values())))
        until = (now or utc_now()) + timedelta(seconds=plan.options.timeout)
        lines.append(f"{names} will finish what was asked ({phases}), or may obey it until {until:%H:%M:%S} UTC")
    left = sum(status.state in ("pending", "prepared") for node, status in model.nodes.items() if node not in waited)
    if left:
        lines.append(f"{left} of {len(plan.nodes)} nodes stay as they are: nothing more is sent")
    lines.append(f"go on: `deploykit rollout resume {plan.rollout}`")
    lines.append(f"end it: `deploykit rollout abort {plan.rollout}`")
    return tuple(lines)


def _run(coordinator: RolloutCoordinator) -> RolloutResult:
    interrupted = False
    rollout = coordinator.plan.rollout
    try:
        coordinator.run()
    except KeyUnavailable as error:
        raise KeyUnavailable(error.problem, f"{error.remedy}; then `deploykit rollout resume {rollout}`") from error
    except KeyboardInterrupt:
        if not coordinator.begun:
            raise  # nothing was sent
        interrupted = not coordinator.model.ended
    return RolloutResult(
        plan=coordinator.plan,
        model=coordinator.model,
        reports=coordinator.reports,
        doubts=coordinator.doubts,
        interrupted=interrupted,
    )


def _forget(directory: Path) -> None:
    """Remove what a rollout left that sent nothing; its proposal stays, with the signatures."""
    if not (directory / PROPOSAL).exists():
        shutil.rmtree(directory, ignore_errors=True)
        return
    shutil.rmtree(directory / "control", ignore_errors=True)
    (directory / NAME).unlink(missing_ok=True)


def _holder(rollout: str) -> LockHolder:
    return LockHolder(rollout=rollout, by=user_name(), since=f"{utc_now():%Y-%m-%dT%H:%M:%SZ}")


def _within(plan: Plan, begun: float | None) -> Plan:
    """Return the plan; of one node: with what is left of its time limit, connecting included."""
    if begun is None or len(plan.nodes) > 1:
        return plan
    left = max(0.1, plan.options.timeout - (time.monotonic() - begun))
    return attrs.evolve(plan, options=attrs.evolve(plan.options, timeout=left))


def _journal_at(directory: Path, where: str | Path) -> Path:
    """Return the journal of a rollout here; one that was copied from elsewhere is taken in first.

    Raises:
        UsageError: there is no such rollout.
        RolloutError: it cannot be read or written, or the rollout has another journal here.
    """
    text = str(where)
    if not isinstance(where, Path) and "/" not in text and not os.path.isfile(text):  # noqa: PTH113 -- never raises
        return find_journal(directory, text)
    source = Path(where) / NAME if Path(where).is_dir() else Path(where)
    rollout = read_journal(source).head.plan.rollout
    path = journal_path(directory, rollout)
    if path.exists() and path.samefile(source):
        return path
    if path.exists():
        raise RolloutError(
            f"rollout {rollout} has a journal here: {path}",
            f"go on with that one (`deploykit rollout resume {rollout}`), or move its directory away",
        )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, source.read_bytes(), mode=0o600)
        sync_directory(path.parent.parent)
    except OSError as error:
        raise RolloutError(f"{path} cannot be written: {error.strerror}", "set `rollouts` in the settings") from error
    return path


__all__ = [
    "RolloutResult",
    "at_time",
    "left_unfinished",
    "read_resumable",
    "resume_rollout",
    "start_rollout",
    "what_goes_on",
]
