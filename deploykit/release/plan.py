"""Plans of a deploy, a rollback, a clean-up and a start after a crash: decided here, carried out elsewhere.

Pure: values in, values out; nothing here looks at the disk or the clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

import attrs

from deploykit.release.journal import JournalEntry
from deploykit.release.model import SCRIPTS, STEPS, Release
from deploykit.release.state import SiteRecord
from deploykit.system.boottime import BootTime

AtCrash = Literal["again", "skip", "stop"]

#: What a release must be marked as to be gone back to.
_LIVABLE: Final = ("good", "withdrawn", "prepared")
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@attrs.frozen(kw_only=True, slots=True)
class DeployPlan:
    """The plan of a deploy.

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
    """The plan of a rollback, made before anything is touched.

    Args:
        kind: `instant`: one rename. `rebuild`: it is not whole on disk and is written again from the mirror.
            `live`: exactly this ref and commit is live already. `impossible`: there is nothing to go back to, `why`
            says so.
        target: the release to go back to.
        passed_over: a newer good release that would be due, but is not on disk; or empty.
    """

    kind: Literal["instant", "rebuild", "live", "impossible"]
    target: Release | None
    why: str
    passed_over: str = ""


@attrs.frozen(kw_only=True, slots=True)
class PrunePlan:
    """Which releases leave the disk, and which ones wait to become the next, newest first."""

    remove: tuple[Release, ...]
    spares: tuple[Release, ...]


@attrs.frozen(kw_only=True, slots=True)
class RecoveryPlan:
    """How the operation that a journal names comes to its end.

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
    state: SiteRecord,
    live: str,
    *,
    now: BootTime,
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


def last_good(state: SiteRecord, live: str) -> Release | None:
    """Return the newest good release on disk that is not live: where a rollback would go."""
    return next((r for r in reversed(_good_before(state, live)) if r.present), None)


def plan_rollback(
    state: SiteRecord,
    live: str,
    to: str = "",
    *,
    ref: str = "",
    can_rebuild: bool = False,
    broken: Mapping[str, str] = _NOTHING,
) -> RollbackPlan:
    """Find the way back from the live release.

    Args:
        to: a release by name, number, tag or commit; the last good one before the live one when empty.
        ref: where given, `to` is a whole commit, and only a release of exactly that ref and commit will do. So it is
            with the whole id of several repositories, which has no ref.
        can_rebuild: there is a mirror to write a release from that is not (whole) on disk.
        broken: releases found on disk that must not go live, each with what is wrong.
    """
    target, problem = _rollback_target(state, live, to, ref, can_rebuild, broken)
    if target is None or problem:
        return RollbackPlan(kind="impossible", target=target, why=problem)
    wrong = broken.get(target.name, "" if target.present else f"{target.name} is no longer on disk")
    if target.name == live and not wrong:
        kind: Literal["live", "impossible"] = "live" if _is_exact(state, to, ref) else "impossible"
        return RollbackPlan(kind=kind, target=target, why=f"{target.name} is live already")
    if not wrong:
        newest = target if to else _good_before(state, live, broken)[-1]
        passed = newest.name if newest != target else ""
        why = f"{target.name} is on disk" + (f"; {passed}, which was live later, is not" if passed else "")
        return RollbackPlan(kind="instant", target=target, why=why, passed_over=passed)
    if can_rebuild:
        return RollbackPlan(kind="rebuild", target=target, why=f"{wrong}: it is written again")
    return RollbackPlan(kind="impossible", target=target, why=f"{wrong}, and no mirror was given to write it again")


def _rollback_target(
    state: SiteRecord, live: str, to: str, ref: str, can_rebuild: bool, broken: Mapping[str, str]
) -> tuple[Release | None, str]:
    """Return the release to go back to, and the reason against it or an empty string."""
    if not to:
        good = _good_before(state, live, broken)
        if not good:
            return None, "no earlier good release is known"
        present = [r for r in good if r.present]
        return (present[-1] if present and not can_rebuild else good[-1]), ""
    if _is_exact(state, to, ref):
        target, named = _exactly(state, ref, to, broken), f"of {ref or 'these parts'} at {to[:12]}"
    else:
        target, named = state.find(to), repr(to)
    if target is None:
        return None, f"there is no release {named}"
    if target.status not in _LIVABLE and target.name != live:
        return target, f"{target.name} was never good: it is marked {target.status}"
    return target, ""


def _is_exact(state: SiteRecord, to: str, ref: str) -> bool:
    return bool(ref) or any(release.parts and release.commit == to for release in state.releases)


def _exactly(state: SiteRecord, ref: str, commit: str, broken: Mapping[str, str]) -> Release | None:
    """Return the newest release of that ref and commit, a good one and one on disk first."""

    def suits(release: Release) -> tuple[bool, bool, int]:
        return release.status in _LIVABLE, release.present and release.name not in broken, release.seq

    return max(state.of(ref, commit), key=suits, default=None)


def _good_before(state: SiteRecord, live: str, broken: Mapping[str, str] = _NOTHING) -> list[Release]:
    """Return the good releases before the live one, oldest first, on disk or not; all of them where none is live.

    A lost one that was made anew is left out where its successor is live or withdrawn: making it again would not help.
    """
    here = state.get(live)
    left = {r.version: r.seq for r in state.releases if r.status == "withdrawn" or r.name == live}

    def due(release: Release) -> bool:
        whole = release.present and release.name not in broken
        return whole or left.get(release.version, 0) < release.seq

    good = (r for r in state.releases if r.status == "good" and r.name != live and (here is None or r.seq < here.seq))
    return [r for r in good if due(r)]


def plan_prune(state: SiteRecord, live: str, *, now: BootTime, grace: float, keep: int, recycle: bool) -> PrunePlan:
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
    kept_spares = (2 if resting else 1) if recycle else 0
    return PrunePlan(remove=tuple(ready[kept_spares:]), spares=(*resting, *ready[:kept_spares]) if recycle else ())


def plan_recovery(entry: JournalEntry, live: str, answers: Mapping[str, AtCrash]) -> RecoveryPlan:
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
        The steps to run, or the reason why a person must decide.
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
