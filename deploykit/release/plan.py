"""What a deploy, a rollback, a clean-up and a start after a crash are going to do: decided here, done elsewhere.

Pure: values in, values out; nothing here looks at the disk or the clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from deploykit.release.journal import Entry
from deploykit.release.state import SiteState
from deploykit.release.values import SCRIPTS, STEPS, Moment, Release

AtCrash = Literal["again", "skip", "stop"]


@attrs.frozen(kw_only=True, slots=True)
class DeployPlan:
    """One deploy.

    Args:
        seq: the new release's number.
        recycle: the release whose directory becomes the new one; None: written afresh.
        previous: the release that is live before.
        steps: those that will run, in order.
    """

    seq: int
    recycle: Release | None
    previous: str
    steps: tuple[str, ...]


@attrs.frozen(kw_only=True, slots=True)
class RollbackPlan:
    """A way back, known before anything is touched.

    Args:
        kind: `instant`: one rename. `rebuild`: the directory is gone and is written again from the mirror.
            `impossible`: there is nothing to go back to, `why` says so.
        target: the release to go back to.
    """

    kind: Literal["instant", "rebuild", "impossible"]
    target: Release | None
    why: str


@attrs.frozen(kw_only=True, slots=True)
class PrunePlan:
    """Which releases leave the disk, and which ones wait to become the next, newest first."""

    remove: tuple[Release, ...]
    spares: tuple[Release, ...]


@attrs.frozen(kw_only=True, slots=True)
class RecoveryPlan:
    """How the operation a journal tells of comes to its end.

    Args:
        kind: `discard` what was being written; `park` the whole, inactive release, so that its request can go on;
            `finish` the steps after activation; `undo` back to the release that was live before; `fail`: a step had
            failed, and only the record of it was cut off.
        rest: for `finish`, the steps still to run.
        why: for people.
    """

    kind: Literal["discard", "park", "finish", "undo", "fail"]
    rest: tuple[str, ...] = ()
    why: str = ""


def plan_deploy(
    state: SiteState,
    live: str,
    *,
    now: Moment,
    grace: float,
    recycle: bool,
    scripts: frozenset[str],
    activate: bool,
) -> DeployPlan:
    """Plan a deploy of a new release.

    Args:
        live: the live release's name, or empty.
        grace: seconds for which a release that was live is not touched.
        recycle: a spare may be used up.
        scripts: the scripts there are, and `health-url` where one is set.
        activate: all of it; else only up to and with `finalize`.
    """
    spares = (r for r in reversed(state.releases) if r.spare and r.present and not r.pinned and r.name != live)
    spare = next((r for r in spares if r.rested(now, grace)), None)
    last = STEPS if activate else STEPS[: STEPS.index("finalize") + 1]
    steps = tuple(s for s in last if s not in (*SCRIPTS, "health-url") or s in scripts)
    return DeployPlan(seq=state.next_seq, recycle=spare if recycle else None, previous=live, steps=steps)


def last_good(state: SiteState, live: str) -> Release | None:
    """The newest good release on disk that is not live: where a rollback would go."""
    here = state.get(live)
    older = [r for r in state.releases if r.status == "good" and r.name != live and (here is None or r.seq < here.seq)]
    return next((r for r in reversed(older) if r.present), None)


def plan_rollback(state: SiteState, live: str, to: str = "", *, can_rebuild: bool = False) -> RollbackPlan:
    """Find the way back from the live release.

    Args:
        to: a release by name, number, tag or commit; the last good one before the live one when empty.
        can_rebuild: there is a mirror to write a release from that is no longer on disk.
    """
    target, problem = _rollback_target(state, live, to)
    if target is None or problem:
        return RollbackPlan(kind="impossible", target=target, why=problem)
    if target.present:
        return RollbackPlan(kind="instant", target=target, why=f"{target.name} is on disk")
    if can_rebuild:
        return RollbackPlan(kind="rebuild", target=target, why=f"{target.name} is gone and is written again")
    why = f"{target.name} is no longer on disk, and no mirror was given to write it again"
    return RollbackPlan(kind="impossible", target=target, why=why)


def _rollback_target(state: SiteState, live: str, to: str) -> tuple[Release | None, str]:
    """Return the release to go back to, or what stands against it."""
    if to:
        target = state.find(to)
        if target is None:
            return None, f"there is no release {to!r}"
        if target.name == live:
            return target, f"{target.name} is live already"
        if target.status not in ("good", "withdrawn", "prepared"):
            return target, f"{target.name} was never good: it is marked {target.status}"
        return target, ""
    back = last_good(state, live)
    if back is not None:
        return back, ""
    here = state.get(live)
    gone = [r for r in state.releases if r.status == "good" and here is not None and r.seq < here.seq]
    return (gone[-1], "") if gone else (None, "no earlier good release is known")


def plan_prune(state: SiteState, live: str, *, now: Moment, grace: float, keep: int, recycle: bool) -> PrunePlan:
    """Decide what leaves the disk. Never: the live one, the last good one, pinned ones, the newest prepared one.

    A failed release never pushes a good one out: of those that never were good only the newest stays, beyond the
    `keep` good ones. One that was live less than `grace` seconds ago stays, and one more spare with it: where deploys
    follow each other fast, the next one would else find none that may be touched yet.
    """
    present = [r for r in reversed(state.releases) if r.present]
    fixed = {r.name for r in present if r.pinned or r.name == live}
    back = last_good(state, live)
    if back is not None:
        fixed.add(back.name)
    good = [r for r in present if r.status == "good" or r.name == live]
    prepared = [r for r in present if r.status == "prepared"]
    other = [r for r in present if r.status in ("failed", "interrupted", "withdrawn") and r.name != live]
    kept = fixed | {r.name for r in good[:keep]} | {r.name for r in prepared[:1]} | {r.name for r in other[:1]}
    beyond = [r for r in present if r.name not in kept]
    resting = [r for r in beyond if not r.rested(now, grace)]
    ready = [r for r in beyond if r not in resting]
    wanted = (2 if resting else 1) if recycle else 0
    return PrunePlan(remove=tuple(ready[wanted:]), spares=(*resting, *ready[:wanted]) if recycle else ())


def plan_recovery(entry: Entry, live: str, answers: Mapping[str, AtCrash]) -> RecoveryPlan:
    """Decide how a cut-off operation ends, from its journal and from what is live now."""
    name = entry.operation.release
    if entry.undoing:
        return RecoveryPlan(kind="undo", why=entry.undoing)
    reached = STEPS.index(entry.started) if entry.started in STEPS else -1
    switch = STEPS.index("activate")
    failed = next((s for s in entry.steps if s.outcome == "failed"), None)
    if failed is not None:
        # It failed before the crash, and that stays so: neither the crash nor a second try makes it good.
        taken_back = live == name and reached >= switch and entry.operation.phase != "rollback"
        return RecoveryPlan(kind="undo" if taken_back else "fail", why=f"{failed.name} had failed")
    if live != name or reached < switch:
        where = entry.cut_off or entry.started or "preflight"
        # What was exported is sure to be on disk once a script ran in it or the switch began: not before.
        sure = reached >= switch or any(s.name in SCRIPTS for s in entry.steps) or entry.started in SCRIPTS
        if sure or not entry.builds:
            return RecoveryPlan(kind="park", why=f"cut off in {where}; nothing was activated")
        return RecoveryPlan(kind="discard", why=f"cut off in {where}; nothing was activated")
    after = STEPS[switch + 1 :]
    rest = tuple(s for s in after if entry.ended(s) is None)
    cut = entry.cut_off
    if cut in SCRIPTS:
        answer = answers.get(cut, "again")
        if answer == "skip":
            rest = tuple(s for s in rest if s != cut)
        elif answer == "stop":
            return RecoveryPlan(kind="finish", rest=(), why=f"{cut} was cut off, and the settings say to stop there")
    return RecoveryPlan(kind="finish", rest=rest, why=f"cut off in {cut or entry.started}, after the switch")


def plan_resume(entry_steps: Mapping[str, str], cut_off: str, answers: Mapping[str, AtCrash]) -> tuple[str, ...] | str:
    """Decide which steps a parked release still needs when its request comes again.

    Args:
        entry_steps: step -> outcome, of those that ended.
        cut_off: the step that did not.

    Returns:
        the steps to run, or in words why a person must decide.
    """
    ended = {s for s, outcome in entry_steps.items() if outcome in ("done", "skipped")} | {"preflight"}
    if "finalize" not in ended:
        ended.discard("link-shared")  # the manifest does not know the links yet; making them twice does no harm
    rest = tuple(s for s in STEPS if s not in ended)
    if cut_off in SCRIPTS:
        answer = answers.get(cut_off, "again")
        if answer == "skip":
            return tuple(s for s in rest if s != cut_off)
        if answer == "stop":
            return f"{cut_off} was cut off by a crash, and the settings say to stop there"
    return rest
