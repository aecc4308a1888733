"""The decisions, as tables: no disk, no clock."""

from __future__ import annotations

from typing import Any, get_args

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.release.journal import JournalEntry
from deploykit.release.model import STEPS, Operation, Phase, Release, Status, StepRecord
from deploykit.release.plan import (
    DeployPlan,
    last_good,
    plan_deploy,
    plan_prune,
    plan_recovery,
    plan_resume,
    plan_rollback,
)
from deploykit.release.state import SiteRecord
from deploykit.system.boottime import BootTime

NOW = BootTime(boot="this", seconds=1000.0)


def _release(seq: int, status: Status = "good", **more: object) -> Release:
    return Release(
        seq=seq,
        name=f"{seq:05d}",
        ref=f"refs/tags/v{seq}",
        tag=f"v{seq}",
        commit=f"{seq:040d}",
        tree="",
        status=status,
        **more,  # type: ignore[arg-type]
    )


def _state(*releases: Release) -> SiteRecord:
    return SiteRecord(releases=releases, next_seq=len(releases) + 1)


_releases = st.lists(
    st.tuples(st.sampled_from(get_args(Status)), st.booleans(), st.booleans()), min_size=1, max_size=12
).map(lambda rows: [_release(n + 1, s, present=p, pinned=k) for n, (s, p, k) in enumerate(rows)])


@settings(deadline=None)
@given(releases=_releases, live=st.integers(0, 12), keep=st.integers(1, 5), recycle=st.booleans())
def test_pruning_never_takes_the_live_the_pinned_or_the_last_good_one_and_ends(
    releases: list[Release], live: int, keep: int, recycle: bool
) -> None:
    state = _state(*releases)
    name = f"{live:05d}"
    back = last_good(state, name)
    plan = plan_prune(state, name, now=NOW, grace=10, keep=keep, recycle=recycle)
    gone = {r.name for r in plan.remove}
    touched = gone | {r.name for r in plan.spares}
    assert len(plan.spares) <= int(recycle)
    assert name not in touched
    assert back is None or back.name not in touched
    assert not touched & {r.name for r in releases if r.pinned}
    assert all(r.present for r in plan.remove)
    left = [r for r in releases if r.present and r.name not in gone]
    # keep good ones, and at most: the live one, the way back, pinned ones, one prepared, one failed, one spare
    assert len([r for r in left if not r.pinned]) <= keep + 5
    good = [r.name for r in reversed(releases) if r.present and (r.status == "good" or r.name == name)]
    assert not set(good[:keep]) & touched, "the live one counts among those that are kept, whatever it is marked"
    for release in plan.remove:
        state = state.with_release(attrs.evolve(release, present=False))
    assert plan_prune(state, name, now=NOW, grace=10, keep=keep, recycle=recycle).remove == ()


@settings(deadline=None)
@given(
    releases=_releases,
    ages=st.lists(st.floats(-50, 50), min_size=12, max_size=12),
    boots=st.lists(st.sampled_from(["this", "last", ""]), min_size=12, max_size=12),
    live=st.integers(0, 12),
    keep=st.integers(1, 5),
    recycle=st.booleans(),
)
def test_what_was_live_a_moment_ago_is_neither_removed_nor_recycled(
    releases: list[Release], ages: list[float], boots: list[str], live: int, keep: int, recycle: bool
) -> None:
    """Whatever the order they went in, and with ages that cannot be: from another boot, or from a time to come."""
    marked = [
        attrs.evolve(r, left=NOW.seconds - age, left_boot=boot)
        for r, age, boot in zip(releases, ages, boots, strict=False)
    ]
    state = _state(*marked)
    name = f"{live:05d}"
    plan = plan_prune(state, name, now=NOW, grace=10, keep=keep, recycle=recycle)
    young = {r.name for r, age in zip(marked, ages, strict=False) if r.left_boot == "this" and age < 10}
    assert not young & {r.name for r in plan.remove}
    for release in marked:
        state = state.with_release(attrs.evolve(release, spare=release.name in {s.name for s in plan.spares}))
    following = plan_deploy(state, name, now=NOW, grace=10, recycle=recycle, scripts=frozenset(), activate=True)
    assert following.recycle is None or following.recycle.name not in young
    ready = [s for s in plan.spares if s.name not in young]
    assert len(ready) <= 2
    assert (following.recycle is not None) == bool(ready)
    # Once all have rested, no more than one spare stays.
    later = BootTime(boot="this", seconds=NOW.seconds + 100)
    assert len(plan_prune(state, name, now=later, grace=10, keep=keep, recycle=recycle).spares) <= 1


def test_deploys_faster_than_the_grace_recycle_all_the_same_once_they_go_on_for_longer() -> None:
    """One deploy a second with ten seconds of grace: the disk holds what was live in these, and no deploy is fresh."""
    state, live = SiteRecord(), ""
    fresh, most = [], 0
    for second in range(60):
        now = BootTime(boot="this", seconds=float(second))
        plan = plan_deploy(state, live, now=now, grace=10, recycle=True, scripts=frozenset(), activate=True)
        fresh.append(plan.recycle is None)
        if plan.recycle is not None:
            state = state.with_release(attrs.evolve(plan.recycle, present=False, spare=False))
        made = _release(plan.seq, activated="now")
        state, live = state.with_release(made).with_departures(made.name, now, made.name), made.name
        pruned = plan_prune(state, live, now=now, grace=10, keep=3, recycle=True)
        for release in state.releases:
            gone = release in pruned.remove
            state = state.with_release(
                attrs.evolve(release, present=release.present and not gone, spare=release in pruned.spares)
            )
        most = max(most, len([r for r in state.releases if r.present]))
    assert not any(fresh[20:]), fresh
    assert most <= 3 + 10 + 2


def test_departures_are_noted_once_and_forgotten_when_a_release_is_live_again() -> None:
    state = _state(_release(1, activated="x"), _release(2, activated="x"), _release(3, "failed"), _release(4, "failed"))
    first = state.with_departures("00002", NOW, "00003")
    assert [(r.left, r.left_boot) for r in first.releases] == [(1000, "this"), (0, ""), (1000, "this"), (0, "")]
    later = BootTime(boot="this", seconds=2000.0)
    assert first.with_departures("00002", later, "") == first, "the time of leaving does not move"
    back = first.with_departures("00001", later, "")
    assert [(r.left, r.left_boot) for r in back.releases[:2]] == [(0, ""), (2000, "this")]
    earlier = BootTime(boot="this", seconds=10.0)
    assert first.with_departures("00002", earlier, "").releases[0].left == 10, "a time that lies ahead counts from now"


@pytest.mark.parametrize(
    ("left", "boot", "rested"),
    [(990.1, "this", False), (990.0, "this", True), (0, "last", True), (1e9, "last", True), (1e9, "this", False)],
)
def test_a_release_has_rested_when_the_grace_is_over_or_the_boot(left: float, boot: str, rested: bool) -> None:
    assert _release(1, left=left, left_boot=boot).rested(NOW, 10) is rested


@settings(deadline=None)
@given(releases=_releases, live=st.integers(0, 12))
def test_a_rollback_goes_to_an_older_good_release_or_says_why_not(releases: list[Release], live: int) -> None:
    plan = plan_rollback(_state(*releases), f"{live:05d}")
    if plan.kind == "instant":
        assert plan.target is not None
        assert plan.target.present
        assert plan.target.status == "good"
        assert plan.target.name != f"{live:05d}"
        if 1 <= live <= len(releases):
            assert plan.target.seq < live
    assert plan.why


def test_rollback_by_name_number_tag_or_commit() -> None:
    state = _state(_release(1), _release(2, "failed"), _release(3, present=False), _release(4))
    for text in ("00001", "1", "v1", "refs/tags/v1", f"{1:040d}"):
        plan = plan_rollback(state, "00004", text)
        assert (plan.kind, plan.target) == ("instant", state.releases[0])
    assert plan_rollback(state, "00004", "v2").kind == "impossible"
    assert plan_rollback(state, "00004", "v3").kind == "impossible"
    assert plan_rollback(state, "00004", "v3", can_rebuild=True).kind == "rebuild"
    assert plan_rollback(state, "00004", "v4").kind == "impossible"
    assert plan_rollback(state, "00004", "nothing").kind == "impossible"


def _plan(state: SiteRecord, live: str, **more: Any) -> DeployPlan:
    return plan_deploy(state, live, now=NOW, grace=10, **more)


def test_a_deploy_uses_up_the_spare_and_only_a_spare() -> None:
    spare = _release(1, spare=True)
    state = _state(spare, _release(2))
    plan = _plan(state, "00002", recycle=True, scripts=frozenset(), activate=True)
    assert (plan.seq, plan.recycle, plan.previous) == (3, spare, "00002")
    assert plan.steps == ("preflight", "export", "link-shared", "finalize", "activate")
    assert _plan(state, "00002", recycle=False, scripts=frozenset(), activate=True).recycle is None
    assert _plan(state, "00001", recycle=True, scripts=frozenset(), activate=True).recycle is None
    prepared = plan_deploy(
        state, "00002", now=NOW, grace=10, recycle=True, scripts=frozenset(["pre-link", "post-deploy"]), activate=False
    )
    assert prepared.steps == ("preflight", "export", "link-shared", "pre-link", "finalize")


def _entry(
    started: str, *, ended: bool = False, phase: Phase = "deploy", undoing: str = "", builds: bool = True
) -> JournalEntry:
    before = STEPS[: STEPS.index(started)] if started else ()
    steps = tuple(StepRecord(name=s, outcome="done") for s in before)
    if ended:
        steps = (*steps, StepRecord(name=started, outcome="done"))
    operation = Operation(number=1, phase=phase, release="00002")
    return JournalEntry(
        operation=operation,
        seq=2,
        tree="",
        previous="00001",
        builds=builds,
        started=started,
        steps=steps,
        undoing=undoing,
    )


_SCRIPTS_BEFORE = {"pre-deploy", "pre-link"}


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("started", ["", *STEPS])
@pytest.mark.parametrize("live", ["00001", "00002", ""])
def test_recovery_is_decided_by_what_is_live_and_what_was_begun(started: str, ended: bool, live: str) -> None:
    plan = plan_recovery(_entry(started, ended=ended), live, {})
    switch = STEPS.index("activate")
    reached = STEPS.index(started) if started else -1
    if live == "00002" and reached >= switch:
        assert plan.kind == "finish"
        assert set(plan.rest) <= set(STEPS[switch + 1 :])
        assert started not in plan.rest or not ended
    elif reached < STEPS.index("pre-deploy"):
        assert plan.kind == "discard", "what was exported may not have reached the disk"
    else:
        assert plan.kind == "park"


def test_what_is_being_taken_back_is_taken_back() -> None:
    for live in ("00001", "00002"):
        assert plan_recovery(_entry("post-deploy", ended=True, undoing="why"), live, {}).kind == "undo"


@pytest.mark.parametrize("phase", ["deploy", "rollback"])
@pytest.mark.parametrize("step", ["export", "pre-deploy", "finalize", "post-deploy", "health-check", "health-url"])
def test_a_step_that_failed_before_the_crash_is_never_finished_as_a_success(step: str, phase: Phase) -> None:
    entry = _entry(step, phase=phase)
    entry = attrs.evolve(entry, steps=(*entry.steps, StepRecord(name=step, outcome="failed")))
    after = STEPS.index(step) > STEPS.index("activate")
    plan = plan_recovery(entry, "00002" if after else "00001", {})
    assert plan.kind == ("undo" if after and phase == "deploy" else "fail")


def test_a_cut_off_rollback_changed_nothing_before_the_switch_and_is_finished_after() -> None:
    entry = _entry("activate", phase="rollback", builds=False)
    assert plan_recovery(entry, "00001", {}).kind == "park"
    assert plan_recovery(entry, "00002", {}).kind == "finish"


@pytest.mark.parametrize(
    ("answer", "rest"),
    [("again", ("post-deploy", "health-check", "health-url")), ("skip", ("health-check", "health-url"))],
)
def test_a_cut_off_script_is_run_again_or_skipped_by_setting(answer: str, rest: tuple[str, ...]) -> None:
    answers = {"post-deploy": answer}
    assert plan_recovery(_entry("post-deploy"), "00002", answers).rest == rest  # type: ignore[arg-type]


def test_a_cut_off_script_stops_by_setting() -> None:
    plan = plan_recovery(_entry("post-deploy"), "00002", {"post-deploy": "stop"})
    assert (plan.kind, plan.rest) == ("finish", ())
    assert "stop" in plan.why
    assert isinstance(plan_resume({}, "pre-deploy", {"pre-deploy": "stop"}), str)


def test_a_resumed_release_links_again_until_it_is_final_and_repeats_no_script() -> None:
    done = {"preflight": "done", "export": "done", "pre-deploy": "done", "link-shared": "done"}
    rest = plan_resume(done, "pre-link", {})
    assert rest[:3] == ("link-shared", "pre-link", "finalize")
    assert "pre-deploy" not in rest
    final = plan_resume({**done, "pre-link": "skipped", "finalize": "done"}, "", {})
    assert final[0] == "activate"
