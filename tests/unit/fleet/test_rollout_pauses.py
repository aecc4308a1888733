"""Pauses between batches, bakes after activations, and what people may want of both."""

from __future__ import annotations

import pytest

from deploykit.fleet.rollout import CoordinatorCameBack, PauseAsked, PromoteAsked, ResumeAsked, WakeAt
from deploykit.names import NodeName
from tests.support.rolling import NOON, Drill, asks, names, options, plan_of

# -- pauses that were planned ------------------------------------------------------------------------------------------


def test_pauses_are_only_between_batches() -> None:
    drill = Drill(plan_of(3, options(batch="1", pause=60.0)))
    drill.all()
    assert drill.state == "canary"
    drill.all()
    assert drill.state == "paused"
    assert drill.new[-1] == WakeAt(at=NOON + 60)
    drill.wait(59)
    assert drill.state == "paused"
    drill.wait(1)
    assert asks(drill.new) == [("activate", names(2))]
    drill.all()
    drill.wait(60)
    drill.all()
    assert drill.ends == ["succeeded"]
    assert drill.now == NOON + 120


@pytest.mark.parametrize("event", [ResumeAsked(by="anna"), PromoteAsked(by="anna")])
def test_pause_ask_waits_for_somebody(event: ResumeAsked | PromoteAsked) -> None:
    drill = Drill(plan_of(3, options(batch="2", pause="ask")))
    drill.all()
    drill.all()
    assert (drill.state, drill.model.wakes_at) == ("paused", None)
    drill.wait(1e6)
    assert drill.state == "paused"
    drill.do(event)
    assert asks(drill.new) == [("activate", names(2, 3))]
    drill.all()
    assert drill.ends == ["succeeded"]


def test_time_paused_counts_to_no_deadline() -> None:
    drill = Drill(plan_of(3, options(batch="1", pause="ask", deadline=100.0, timeout=50.0)))
    drill.all()
    drill.answer("n1", after=40)
    drill.do(ResumeAsked(), after=10_000)
    assert drill.model.nodes[NodeName("n2")].deadline == drill.now + 50
    assert drill.model.latest == NOON + 10_100
    drill.answer("n2", after=40)
    drill.do(ResumeAsked(), after=10_000)
    drill.answer("n3", after=10)
    assert drill.ends == ["succeeded"]


def test_time_away_while_paused_is_not_counted_twice() -> None:
    drill = Drill(plan_of(2, options(pause="ask", deadline=100.0)))
    drill.all()
    drill.all()
    drill.do(CoordinatorCameBack(away=500.0), after=600)
    drill.do(ResumeAsked())
    assert drill.model.latest == NOON + 700


# -- pauses that somebody wants ----------------------------------------------------------------------------------------


def test_a_pause_that_is_asked_for_begins_when_the_batch_is_done() -> None:
    drill = Drill(plan_of(4, options(batch="2")))
    drill.all()
    drill.all()
    drill.answer("n2")
    drill.do(PauseAsked(by="anna"))
    assert (drill.state, drill.model.pause_asked) == ("rolling", "paused by anna")
    drill.answer("n3")
    assert (drill.state, drill.model.detail, drill.code) == ("paused", "paused by anna", 1)
    drill.do(ResumeAsked())
    assert asks(drill.new) == [("activate", names(4))]


def test_a_pause_while_all_prepare_begins_before_the_canary() -> None:
    drill = Drill(plan_of(2))
    drill.do(PauseAsked())
    drill.all()
    assert drill.state == "paused"
    assert asks(drill.new) == []
    drill.do(ResumeAsked())
    assert drill.state == "canary"


def test_a_timed_pause_has_no_end_when_somebody_wants_one() -> None:
    drill = Drill(plan_of(2, options(pause=60.0)))
    drill.all()
    drill.all()
    drill.do(PauseAsked(by="anna"))
    drill.wait(1e6)
    assert (drill.state, drill.model.detail) == ("paused", "paused by anna")


@pytest.mark.parametrize("event", [ResumeAsked(), PromoteAsked()])
def test_a_pause_that_was_asked_for_can_be_taken_back(event: ResumeAsked | PromoteAsked) -> None:
    drill = Drill(plan_of(3))
    drill.do(PauseAsked())
    drill.do(event)
    drill.to_the_end()
    assert drill.ends == ["succeeded"]


def test_a_pause_that_is_asked_for_in_the_last_batch_holds_nothing_up() -> None:
    drill = Drill(plan_of(2))
    drill.all()
    drill.all()
    drill.do(PauseAsked())
    drill.all()
    assert drill.ends == ["succeeded"]
    assert drill.model.detail == ""


# -- bakes -------------------------------------------------------------------------------------------------------------


def baking(**more: object) -> Drill:
    """The second of four nodes bakes."""
    drill = Drill(plan_of(4, options(batch="1", bake=30.0, **more)))
    drill.all()
    drill.all()
    drill.wait(30)
    drill.all()
    assert drill.task == "bake"
    assert drill.model.stage == 1
    return drill


def test_a_batch_counts_as_good_only_after_its_bake() -> None:
    drill = baking()
    drill.wait(29)
    assert asks(drill.new) == []
    drill.wait(1)
    assert asks(drill.new) == [("activate", names(3))]
    drill.to_the_end()
    assert drill.ends == ["succeeded"]


@pytest.mark.parametrize("outcome", ["failure", "rolled-back"])
def test_a_failure_that_is_reported_during_the_bake_stops_the_next_batch(outcome: str) -> None:
    drill = baking()
    drill.answer("n2", outcome)  # type: ignore[arg-type]
    assert asks(drill.new) == [("discard", names(3, 4))]
    assert drill.states["n2"] == "failed"
    drill.to_the_end()
    assert drill.ends == ["failed"]


def test_a_failure_during_the_bake_counts_in_the_budget_once() -> None:
    drill = baking(max_failures="1")
    drill.answer("n2", "failure")
    drill.answer("n2", "failure", phase="activate")
    assert drill.model.failures == 1
    assert drill.task == "bake"
    drill.to_the_end()
    assert drill.states == {"n1": "active", "n2": "failed", "n3": "active", "n4": "active"}


def test_a_failure_of_an_earlier_batch_is_a_late_copy() -> None:
    drill = baking()
    drill.answer("n1", "failure")
    assert (drill.states["n1"], drill.task) == ("active", "bake")


def test_a_copy_that_a_node_refuses_while_it_bakes_is_no_failure() -> None:
    drill = baking()
    drill.answer("n2", "refused")
    assert (drill.states["n2"], drill.task) == ("active", "bake")


def test_a_canary_that_fails_during_its_bake_stops_the_rollout_whatever_the_budget() -> None:
    drill = Drill(plan_of(3, options(bake=30.0, max_failures="3", on_failure="continue")))
    drill.all()
    drill.all()
    drill.answer("n1", "failure")
    drill.to_the_end()
    assert drill.states == {"n1": "failed", "n2": "skipped", "n3": "skipped"}


def test_promote_ends_a_bake_and_resume_does_not() -> None:
    drill = baking()
    drill.do(ResumeAsked())
    assert drill.task == "bake"
    drill.do(PromoteAsked())
    assert asks(drill.new) == [("activate", names(3))]


def test_promote_of_a_bake_does_not_skip_the_pause_after_it() -> None:
    drill = Drill(plan_of(2, options(bake=30.0, pause=60.0)))
    drill.all()
    drill.all()
    drill.do(PromoteAsked())
    assert drill.state == "paused"


def test_a_batch_without_a_node_that_is_active_does_not_bake() -> None:
    drill = Drill(plan_of(3, options(batch="1", bake=30.0, max_failures="1")))
    drill.all()
    drill.all()
    drill.wait(30)
    drill.answer("n2", "failure")
    assert asks(drill.new) == [("activate", names(3))]


def test_the_last_batch_bakes_too() -> None:
    drill = Drill(plan_of(1, options(bake=30.0)))
    drill.answer("n1")
    assert not drill.model.ended
    drill.wait(30)
    assert drill.ends == ["succeeded"]


def test_a_bake_is_watched_for_its_whole_time_although_the_coordinator_was_away() -> None:
    drill = baking()
    drill.do(CoordinatorCameBack(away=100.0), after=101)
    assert drill.task == "bake"
    drill.wait(28)
    assert drill.task == "bake"
    drill.wait(1)
    assert drill.task == "activate"
