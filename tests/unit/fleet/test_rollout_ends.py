"""The ways out of a rollout: going back, abort, what is discarded, and the time that each node has."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deploykit.fleet.plan import Target
from deploykit.fleet.rollout import (
    AbortAsked,
    Ask,
    CoordinatorCameBack,
    End,
    NodeAnswered,
    PauseAsked,
    SendAbort,
    WakeAt,
)
from deploykit.names import NodeName, ObjectId
from tests.support.rolling import NEW, NOON, OLD, Drill, asks, names, options, plan_of

# -- on_failure=rollback -----------------------------------------------------------------------------------------------


def half_way() -> Drill:
    """Of seven nodes four are active when the sixth fails: the seventh is prepared."""
    drill = Drill(plan_of(7, options(first="2", batch="2", on_failure="rollback", pause=60.0, prepare="all")))
    drill.all()
    drill.all()
    drill.wait(60)
    drill.all()
    drill.wait(60)
    drill.answer("n5")
    drill.answer("n6", "failure")
    return drill


def test_going_back_takes_the_newest_first_in_batches_without_pauses_and_then_discards_what_was_prepared() -> None:
    drill = half_way()
    before = len(drill.asked) - 1
    assert drill.state == "rolling-back"
    while not drill.model.ended:
        drill.all()
    assert drill.asked[before:] == [
        ("rollback", ("n5", "n4")),
        ("rollback", ("n3", "n2")),
        ("rollback", ("n1",)),
        ("discard", names(7)),
    ]
    assert drill.states == dict.fromkeys(names(1, 2, 3, 4, 5), "rolled-back") | {"n6": "failed", "n7": "skipped"}
    assert (drill.ends, drill.code) == (["rolled-back"], 1)


def test_each_node_goes_back_to_what_it_had_before() -> None:
    drill = Drill(plan_of(3, options(batch="100%", bake=9.0, on_failure="rollback")))
    other = Target(ref=OLD.ref, commit=ObjectId("c" * 40))
    drill.answer("n1", live=other)
    drill.answer("n2")
    drill.answer("n3")
    drill.all()
    drill.wait(9)
    drill.answer("n2")
    drill.answer("n3", "failure")
    drill.to_the_end()
    back = [(a.target.commit, a.nodes) for a in drill.actions if isinstance(a, Ask) and a.phase == "rollback"]
    assert back == [(OLD.commit, names(2)), (other.commit, names(1))]


@pytest.mark.parametrize("answers", [True, False])
def test_a_node_that_has_or_may_have_the_new_release_and_nothing_older_did_not_go_back(answers: bool) -> None:
    drill = Drill(plan_of(2, options(batch="1", on_failure="rollback")))
    drill.answer("n1")
    drill.do(NodeAnswered(node=NodeName("n2"), phase="prepare", outcome="success"))
    drill.answer("n1")
    if answers:
        drill.answer("n2", "failure", live=NEW, previous=None)
    else:
        drill.wait(300)
    drill.to_the_end()
    assert drill.states["n1"] == "rolled-back"
    assert drill.ends == ["failed"]


def test_a_failure_while_going_back_stops_no_other_from_going_back() -> None:
    drill = half_way()
    drill.all("failure")
    drill.wait(300)
    drill.to_the_end()
    assert drill.states["n1"] == "rolled-back"
    assert drill.states["n5"] == "failed"
    assert drill.states["n3"] == "silent"
    assert drill.ends == ["failed"]
    assert drill.model.failures == 1


def test_a_node_that_had_the_commit_before_is_not_taken_back() -> None:
    drill = Drill(plan_of(3, options(batch="1", on_failure="rollback")))
    drill.answer("n1", live=NEW)
    drill.all()
    drill.all()
    drill.answer("n2", "failure")
    assert asks(drill.new) == [("discard", names(3))]
    drill.to_the_end()
    assert drill.states["n1"] == "active"


def test_a_node_without_a_release_before_stays_active_and_the_rollout_has_failed() -> None:
    drill = Drill(plan_of(3, options(batch="1", prepare="batch", on_failure="rollback")))
    for _ in ("prepare", "activate"):
        drill.do(_without_releases(drill, "n1"))
    drill.all()
    drill.answer("n2")
    drill.answer("n3")
    drill.answer("n3", "failure")
    drill.to_the_end()
    assert drill.states == {"n1": "active", "n2": "rolled-back", "n3": "failed"}
    assert drill.ends == ["failed"]


def test_a_node_that_failed_with_the_new_release_live_goes_back_too() -> None:
    drill = Drill(plan_of(2, options(batch="1", on_failure="rollback")))
    drill.all()
    drill.answer("n1", "failure", live=NEW)
    assert asks(drill.new) == [("rollback", names(1))]
    drill.answer("n1")
    drill.to_the_end()
    assert drill.states["n1"] == "rolled-back"
    assert drill.ends == ["rolled-back"]


def test_nodes_that_were_silent_when_they_were_to_activate_go_back_last_for_they_may_have_obeyed() -> None:
    drill = Drill(plan_of(4, options(batch="3", on_failure="rollback", prepare="all")))
    drill.all()
    drill.all()
    drill.answer("n2")
    drill.answer("n3")
    drill.wait(300)
    drill.wait(1)
    assert SendAbort() in drill.actions
    drill.to_the_end()
    assert drill.asked[-2:] == [("rollback", ("n3", "n2", "n1")), ("rollback", ("n4",))]


def test_a_node_that_answers_late_that_it_is_active_goes_back_with_the_others() -> None:
    drill = Drill(plan_of(4, options(batch="3", on_failure="rollback", prepare="all")))
    for node in names(1, 2, 3):
        drill.answer(node)
    drill.do(_without_releases(drill, "n4"))
    drill.all()
    drill.answer("n2")
    drill.answer("n3")
    drill.wait(300)
    assert drill.model.waiting_for == names(3, 2, 1)
    drill.answer("n4")
    drill.to_the_end()
    assert drill.asked[-1] == ("rollback", names(4))
    assert drill.ends == ["rolled-back"]


def silent_while_activating() -> Drill:
    """The fifth of five nodes was silent when it was to activate; the others go back, one by one."""
    drill = Drill(plan_of(5, options(batch="3,1", on_failure="rollback")))
    drill.all()
    drill.all()
    drill.all()
    drill.wait(300)
    assert drill.model.waiting_for == names(4)
    return drill


def test_a_silent_node_that_reports_late_that_it_changed_nothing_is_not_asked_to_go_back() -> None:
    drill = silent_while_activating()
    drill.answer("n5", "refused", phase="activate")
    drill.to_the_end()
    assert drill.asked[-1] == ("rollback", names(1))
    assert drill.states["n5"] == "refused"
    assert drill.ends == ["rolled-back"]


def test_a_silent_node_that_reports_late_that_it_has_the_new_release_goes_back_once() -> None:
    drill = silent_while_activating()
    drill.answer("n5", "failure", phase="activate", live=NEW)
    drill.to_the_end()
    assert drill.asked.count(("rollback", names(5))) == 1
    assert drill.ends == ["rolled-back"]


def test_a_node_that_reports_late_that_it_has_gone_back_has() -> None:
    drill = silent_while_activating()
    drill.wait(300)
    assert drill.states["n4"] == "silent"
    drill.answer("n4", "success", phase="rollback")
    drill.to_the_end()
    assert drill.states["n4"] == "rolled-back"
    assert drill.ends == ["rolled-back"]


def test_a_node_that_reports_late_that_it_failed_to_go_back_is_not_asked_again() -> None:
    drill = silent_while_activating()
    drill.wait(300)
    drill.answer("n4", "failure", phase="rollback", live=NEW)
    drill.to_the_end()
    assert drill.asked.count(("rollback", names(4))) == 1
    assert (drill.states["n4"], drill.ends) == ("failed", ["failed"])


def test_where_nothing_was_activated_there_is_nothing_to_take_back() -> None:
    drill = Drill(plan_of(3, options(on_failure="rollback")))
    drill.all(n2="failure")
    drill.to_the_end()
    assert (drill.asked[-1], drill.ends) == (("discard", names(1, 3)), ["failed"])


def _without_releases(drill: Drill, node: str) -> NodeAnswered:
    """The success of a node that had nothing live before, or does not know."""
    phase = drill.model.nodes[NodeName(node)].phase
    assert phase is not None
    return NodeAnswered(node=NodeName(node), phase=phase, outcome="success")


# -- abort -------------------------------------------------------------------------------------------------------------


def preparing() -> Drill:
    return Drill(plan_of(4, options(batch="1", pause=60.0, bake=30.0)))


def activating() -> Drill:
    drill = preparing()
    drill.all()
    return drill


def baking() -> Drill:
    drill = activating()
    drill.all()
    assert drill.task == "bake"
    return drill


def paused() -> Drill:
    drill = baking()
    drill.wait(30)
    assert drill.state == "paused"
    return drill


def rolling() -> Drill:
    drill = paused()
    drill.wait(60)
    assert drill.state == "rolling"
    return drill


def discarding() -> Drill:
    drill = rolling()
    drill.all("failure")
    assert drill.state == "aborting"
    return drill


STATES = [preparing, activating, baking, paused, rolling, discarding, half_way]


@pytest.mark.parametrize("rollback", [False, True])
@pytest.mark.parametrize("state", STATES)
def test_abort_ends_it_in_every_state(state: Callable[[], Drill], rollback: bool) -> None:
    drill = state()
    drill.do(AbortAsked(by="anna", rollback=rollback))
    assert drill.new[0] == SendAbort()
    assert not [ask for ask in asks(drill.new) if ask[0] in ("prepare", "activate")]
    seen = len(drill.actions)
    drill.to_the_end()
    assert not [ask for ask in asks(drill.actions[seen:]) if ask[0] in ("prepare", "activate")]
    assert len(drill.ends) == 1
    assert drill.code == 1
    assert "prepared" not in drill.states.values()
    if rollback:
        assert "active" not in drill.states.values()


@pytest.mark.parametrize("state", STATES)
def test_an_abort_ends_without_a_single_further_answer(state: Callable[[], Drill]) -> None:
    drill = state()
    drill.do(AbortAsked(rollback=True))
    for _ in range(20):
        drill.wait(300)
    assert len(drill.ends) == 1


def test_what_is_in_flight_is_waited_for_before_an_abort_discards() -> None:
    drill = activating()
    drill.do(AbortAsked(by="anna"))
    assert asks(drill.new) == []
    assert drill.state == "aborting"
    drill.answer("n1")
    assert asks(drill.new) == [("discard", names(2, 3, 4))]
    drill.to_the_end()
    assert drill.states == {"n1": "active", "n2": "skipped", "n3": "skipped", "n4": "skipped"}
    assert drill.ends == ["aborted"]
    assert drill.model.detail == "aborted by anna"


def test_abort_with_rollback_takes_back_what_is_active() -> None:
    drill = rolling()
    drill.do(AbortAsked(rollback=True))
    drill.answer("n2")
    assert asks(drill.new) == [("rollback", names(2))]
    drill.to_the_end()
    assert drill.states == {"n1": "rolled-back", "n2": "rolled-back", "n3": "skipped", "n4": "skipped"}
    assert drill.ends == ["rolled-back"]


def test_a_node_that_never_answers_the_discard_does_not_hang_it_and_stays_prepared() -> None:
    drill = discarding()
    drill.answer("n3")
    drill.wait(300)
    assert drill.states == {"n1": "active", "n2": "failed", "n3": "skipped", "n4": "prepared"}
    assert "did not answer the discard" in drill.model.nodes[NodeName("n4")].detail
    assert drill.ends == ["failed"]


def test_a_second_abort_can_still_ask_for_going_back() -> None:
    drill = rolling()
    drill.do(AbortAsked())
    drill.do(AbortAsked(rollback=True))
    drill.to_the_end()
    assert drill.states["n1"] == "rolled-back"


def test_an_abort_ends_the_going_back_itself() -> None:
    drill = half_way()
    assert drill.model.waiting_for == ("n5", "n4")
    drill.do(AbortAsked(by="anna"))
    drill.all()
    assert asks(drill.new) == [("discard", names(7))]
    drill.all()
    assert drill.ends == ["aborted"]
    assert drill.states["n1"] == "active"


def test_a_rollback_that_is_aborted_is_not_taken_back() -> None:
    drill = Drill(plan_of(3, options(batch="1"), kind="rollback", target=OLD))
    drill.answer("n1")
    drill.do(AbortAsked(rollback=True))
    drill.answer("n2")
    assert (drill.states, drill.ends) == ({"n1": "active", "n2": "active", "n3": "skipped"}, ["aborted"])


def test_an_abort_of_one_node_waits_for_its_answer() -> None:
    drill = Drill(plan_of(1))
    drill.do(AbortAsked())
    assert not drill.model.ended
    drill.answer("n1")
    assert (drill.ends, drill.states) == (["aborted"], {"n1": "active"})


# -- deadlines ---------------------------------------------------------------------------------------------------------


def test_each_node_has_its_time_in_each_phase_measured_from_when_its_batch_was_asked() -> None:
    drill = Drill(plan_of(3, options(batch="1", timeout=100.0, max_failures="2")))
    assert drill.model.nodes[NodeName("n3")].deadline == NOON + 100
    drill.wait(90)
    drill.all()
    assert drill.model.deadline == NOON + 190
    assert WakeAt(at=NOON + 190) in drill.new or drill.model.wakes_at == NOON + 190
    drill.answer("n1", after=99)
    assert drill.model.deadline == NOON + 289
    drill.wait(99)
    assert drill.states["n2"] == "asked"
    drill.wait(1)
    assert drill.states["n2"] == "silent"
    assert drill.model.nodes[NodeName("n3")].deadline == NOON + 389


def test_a_dead_node_neither_stalls_the_rollout_nor_uses_up_the_others_time() -> None:
    drill = Drill(plan_of(4, options(batch="3", timeout=100.0, max_failures="1")))
    drill.all()
    drill.all()
    drill.answer("n2", after=50)
    drill.answer("n4")
    drill.wait(50)
    assert drill.states == {"n1": "active", "n2": "active", "n3": "silent", "n4": "active"}
    assert drill.ends == ["failed"]


def test_an_answer_that_comes_with_the_deadline_counts() -> None:
    drill = Drill(plan_of(1, options(timeout=100.0)))
    drill.answer("n1", after=100)
    assert drill.ends == ["succeeded"]


def test_the_deadline_of_the_whole_rollout_stops_it_when_what_is_in_flight_has_answered() -> None:
    drill = Drill(plan_of(4, options(batch="1", deadline=100.0, timeout=80.0)))
    drill.all()
    drill.answer("n1", after=60)
    drill.wait(50)
    assert drill.model.waiting_for == names(2)
    drill.answer("n2")
    drill.to_the_end()
    assert drill.states == {"n1": "active", "n2": "active", "n3": "skipped", "n4": "skipped"}
    assert drill.model.detail == "the deadline of the whole rollout passed"
    assert drill.ends == ["failed"]


@pytest.mark.parametrize("on_failure", ["continue", "rollback"])
def test_the_deadline_of_the_whole_rollout_counts_whatever_follows_a_failure(on_failure: str) -> None:
    drill = Drill(plan_of(3, options(batch="1", deadline=100.0, on_failure=on_failure)))
    drill.all()
    drill.answer("n1", after=101)
    drill.to_the_end()
    assert drill.states["n2"] == "skipped"
    assert drill.ends == (["rolled-back"] if on_failure == "rollback" else ["failed"])


def test_a_rollout_that_is_done_when_its_deadline_passes_has_succeeded() -> None:
    drill = Drill(plan_of(2, options(deadline=100.0, batch="1")))
    drill.all()
    drill.all()
    drill.answer("n2", after=150)
    assert drill.ends == ["succeeded"]


def test_the_deadline_ends_a_bake_at_once() -> None:
    drill = Drill(plan_of(2, options(deadline=100.0, batch="1", bake=1000.0)))
    drill.all()
    drill.all()
    assert drill.model.wakes_at == NOON + 100
    drill.wait(100)
    drill.to_the_end()
    assert drill.ends == ["failed"]


def test_a_last_bake_that_the_deadline_ends_is_no_success() -> None:
    drill = Drill(plan_of(2, options(deadline=100.0, batch="1", bake=60.0)))
    drill.all()
    drill.all()
    drill.wait(60)
    drill.all()
    drill.wait(40)
    assert set(drill.states.values()) == {"active"}
    assert (drill.ends, drill.code) == (["failed"], 1)
    assert drill.model.detail == "the deadline of the whole rollout passed"


def test_preparation_that_takes_longer_than_the_whole_deadline_activates_nothing() -> None:
    for prepare in ("all", "batch"):
        drill = Drill(plan_of(2, options(deadline=100.0, batch="1", prepare=prepare)))
        drill.now += 150
        drill.all()
        drill.to_the_end()
        assert {phase for phase, _ in drill.asked} == {"prepare", "discard"}


def test_the_time_in_which_no_coordinator_ran_counts_to_no_deadline() -> None:
    drill = Drill(plan_of(3, options(batch="1", timeout=100.0, deadline=250.0)))
    drill.do(CoordinatorCameBack(away=1000.0), after=1050)
    assert drill.model.waiting_for == names(1, 2, 3)
    assert drill.model.nodes[NodeName("n1")].deadline == NOON + 1100
    drill.all()
    drill.answer("n1", after=90)
    assert drill.model.latest == NOON + 1250
    drill.to_the_end()
    assert drill.ends == ["succeeded"]


def test_a_clock_that_went_back_makes_nobody_silent() -> None:
    drill = Drill(plan_of(2))
    drill.do(CoordinatorCameBack(away=-3600.0), after=-3600)
    assert drill.model.deadline == NOON + 300
    drill.to_the_end()
    assert drill.ends == ["succeeded"]


def test_the_end_is_the_last_action_and_the_only_one_of_its_kind() -> None:
    drill = half_way()
    drill.do(PauseAsked())
    drill.to_the_end()
    assert isinstance(drill.actions[-1], End)
    assert len(drill.ends) == 1
