"""A rollout on its way forward: canaries, batches, preparation, the failure budget, what is told apart at the end."""

from __future__ import annotations

import time

import pytest

from deploykit.errors import UsageError
from deploykit.fleet.options import MAX_BATCH
from deploykit.fleet.rollout import (
    AbortAsked,
    Announce,
    Ask,
    End,
    NodeAnswered,
    PauseAsked,
    SendAbort,
    TimePassed,
    outstanding_asks,
    retry_plan,
    step,
)
from deploykit.messages.deploy import DeployOutcome
from deploykit.names import NodeName
from tests.support.rolling import NEW, OLD, Drill, asks, names, options, plan_of

# -- the straight way --------------------------------------------------------------------------------------------------


def test_all_are_prepared_first_then_the_canary_is_activated_then_batches() -> None:
    drill = Drill(plan_of(4, options(batch="2")))
    drill.to_the_end()
    assert drill.asked == [
        ("prepare", names(1, 2, 3, 4)),
        ("activate", names(1)),
        ("activate", names(2, 3)),
        ("activate", names(4)),
    ]
    assert [a.state for a in drill.actions if isinstance(a, Announce)] == [
        "preparing",
        "prepared",
        "canary",
        "rolling",
        "succeeded",
    ]
    assert drill.ends == ["succeeded"]
    assert isinstance(drill.actions[-1], End)
    assert drill.code == 0
    assert set(drill.states.values()) == {"active"}


def test_with_prepare_batch_each_batch_is_prepared_and_then_activated() -> None:
    drill = Drill(plan_of(3, options(batch="2", prepare="batch")))
    drill.to_the_end()
    assert drill.asked == [
        ("prepare", names(1)),
        ("activate", names(1)),
        ("prepare", names(2, 3)),
        ("activate", names(2, 3)),
    ]
    assert drill.ends == ["succeeded"]


def test_one_node_is_asked_once() -> None:
    drill = Drill(plan_of(1))
    assert drill.asked == [("deploy", names(1))]
    drill.answer("n1")
    assert (drill.ends, drill.code) == (["succeeded"], 0)


def test_commands_name_at_most_1000_nodes() -> None:
    drill = Drill(plan_of(2500, options(first="0", batch="100%")))
    drill.to_the_end()
    assert [len(nodes) for _, nodes in drill.asked] == [MAX_BATCH, MAX_BATCH, 500] * 2
    assert drill.ends == ["succeeded"]


def test_a_rollback_goes_canary_first_with_a_command_for_each_commit_and_without_preparation() -> None:
    targets = dict.fromkeys(names(1, 2, 3, 4), OLD) | {NodeName("n3"): NEW}
    drill = Drill(plan_of(4, options(batch="100%"), kind="rollback", target=targets))
    drill.to_the_end()
    asked = [action for action in drill.actions if isinstance(action, Ask)]
    assert [(ask.phase, ask.target.commit, ask.nodes) for ask in asked] == [
        ("rollback", OLD.commit, names(1)),
        ("rollback", OLD.commit, names(2, 4)),
        ("rollback", NEW.commit, names(3)),
    ]
    assert drill.ends == ["succeeded"]
    assert set(drill.states.values()) == {"active"}


def test_a_failure_in_a_rollback_counts_in_the_budget() -> None:
    drill = Drill(plan_of(4, options(batch="1"), kind="rollback", target=OLD))
    drill.answer("n1")
    drill.answer("n2", "failure")
    assert drill.ends == ["failed"]
    assert drill.states == {"n1": "active", "n2": "failed", "n3": "skipped", "n4": "skipped"}


# -- canaries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prepare", ["all", "batch"])
@pytest.mark.parametrize("outcome", ["failure", "rolled-back", "refused", "silent"])
@pytest.mark.parametrize("on_failure", ["stop", "continue", "rollback"])
def test_a_canary_that_fails_leaves_the_others_untouched_whatever_the_budget(
    prepare: str, outcome: str, on_failure: str
) -> None:
    drill = Drill(plan_of(5, options(first="2", batch="1", max_failures="5", prepare=prepare, on_failure=on_failure)))
    drill.all()
    if prepare == "batch":
        assert drill.asked == [("prepare", names(1, 2)), ("activate", names(1, 2))]
    drill.answer("n1")
    if outcome == "silent":
        drill.wait(300)
    else:
        drill.answer("n2", outcome)  # type: ignore[arg-type]
    drill.to_the_end()
    assert {node for phase, nodes in drill.asked if phase == "activate" for node in nodes} == {"n1", "n2"}
    assert drill.ends == (["rolled-back"] if on_failure == "rollback" else ["failed"])
    assert drill.code == 1


def test_a_canary_that_cannot_be_prepared_stops_the_rollout_although_a_quorum_would_do_without_it() -> None:
    drill = Drill(plan_of(5, options(quorum="1", max_failures="5", on_failure="continue")))
    drill.all(n1="failure")
    drill.to_the_end()
    assert {phase for phase, _ in drill.asked} == {"prepare", "discard"}
    assert drill.ends == ["failed"]
    assert "canary n1 failed" in drill.model.detail


# -- the budget --------------------------------------------------------------------------------------------------------


def test_it_stops_when_more_than_n_failed() -> None:
    drill = Drill(plan_of(7, options(batch="2", max_failures="1")))
    drill.all()
    drill.all()
    drill.all(n3="failure")
    assert drill.model.failures == 1
    assert drill.model.waiting_for == names(4, 5)
    drill.all(n4="failure")
    drill.to_the_end()
    assert not any("n6" in nodes for phase, nodes in drill.asked if phase == "activate")
    assert drill.ends == ["failed"]
    assert drill.model.detail == "2 of 7 nodes failed, refused or were silent, 1 may"


def test_the_budget_counts_for_the_whole_rollout_not_for_a_batch() -> None:
    drill = Drill(plan_of(9, options(batch="2", max_failures="2")))
    drill.all()
    drill.all()
    drill.all(n2="failure")
    drill.all(n4="failure")
    assert drill.model.waiting_for == names(6, 7)
    drill.all(n6="failure")
    drill.to_the_end()
    assert drill.states["n8"] == "skipped"


def test_a_batch_that_failed_stops_the_next_and_what_is_in_flight_is_waited_for() -> None:
    drill = Drill(plan_of(6, options(batch="3")))
    drill.all()
    drill.all()
    drill.answer("n2", "failure")
    assert drill.new == ()
    assert drill.model.waiting_for == names(3, 4)
    drill.answer("n3")
    drill.answer("n4", "failure")
    drill.to_the_end()
    assert drill.states == {
        "n1": "active",
        "n2": "failed",
        "n3": "active",
        "n4": "failed",
        "n5": "skipped",
        "n6": "skipped",
    }
    assert ("discard", names(5, 6)) in drill.asked


def test_a_silent_node_counts_as_a_failure_and_is_told_apart_from_one() -> None:
    drill = Drill(plan_of(4, options(batch="1")))
    drill.all()
    drill.all()
    drill.wait(300)
    drill.to_the_end()
    assert drill.states["n2"] == "silent"
    assert "may yet obey" in drill.model.nodes[NodeName("n2")].detail
    assert drill.ends == ["failed"]
    assert drill.model.failures == 1


def test_a_node_that_put_its_old_release_back_by_itself_has_failed() -> None:
    drill = Drill(plan_of(1))
    drill.answer("n1", "rolled-back")
    assert (drill.states, drill.ends, drill.code) == ({"n1": "failed"}, ["failed"], 1)


def test_the_last_nodes_failure_is_a_failure() -> None:
    drill = Drill(plan_of(5, options(batch="1", max_failures="3")))
    drill.all()
    for _ in range(4):
        drill.all()
    drill.answer("n5", "failure")
    assert (drill.ends, drill.code) == (["failed"], 1)


def test_failures_within_the_budget_do_not_stop_it_but_it_has_not_succeeded() -> None:
    drill = Drill(plan_of(4, options(batch="1", max_failures="1")))
    drill.all()
    drill.all()
    drill.all(n2="failure")
    drill.to_the_end()
    assert drill.states == {"n1": "active", "n2": "failed", "n3": "active", "n4": "active"}
    assert (drill.ends, drill.code) == (["failed"], 1)


def test_on_failure_continue_asks_all_the_batches() -> None:
    drill = Drill(plan_of(5, options(batch="1", on_failure="continue")))
    drill.all()
    drill.all()
    drill.to_the_end("failure")
    assert [phase for phase, _ in drill.asked] == ["prepare", *["activate"] * 5]
    assert drill.ends == ["failed"]


def test_percent_of_the_budget_is_of_all_nodes() -> None:
    drill = Drill(plan_of(11, options(batch="1", max_failures="10%", prepare="batch")))
    drill.all()
    drill.all()
    drill.all("failure")
    drill.all("failure")
    assert drill.model.waiting_for == names(4)
    drill.all("failure")
    assert drill.model.detail == "3 of 11 nodes failed, refused or were silent, 2 may"


# -- preparation and quorum --------------------------------------------------------------------------------------------


def test_by_default_all_must_be_prepared_before_the_first_activation() -> None:
    drill = Drill(plan_of(4))
    drill.all(n4="failure")
    assert asks(drill.new) == [("discard", names(1, 2, 3))]
    assert drill.state == "aborting"
    drill.to_the_end()
    assert drill.states == {"n1": "skipped", "n2": "skipped", "n3": "skipped", "n4": "failed"}
    assert drill.ends == ["failed"]


def test_without_a_quorum_failures_in_preparation_count_in_the_one_budget() -> None:
    drill = Drill(plan_of(5, options(batch="1", max_failures="1")))
    drill.all(n5="failure")
    assert drill.state == "canary"
    drill.all()
    drill.all(n2="failure")
    drill.to_the_end()
    assert drill.model.failures == 2
    assert drill.states["n3"] == "skipped"


def test_who_is_not_prepared_is_not_activated() -> None:
    drill = Drill(plan_of(5, options(batch="2", max_failures="2")))
    for node in names(1, 2, 4):
        drill.answer(node)
    drill.answer("n3", "refused")
    drill.wait(300)
    drill.to_the_end()
    assert [nodes for phase, nodes in drill.asked if phase == "activate"] == [names(1), names(2), names(4)]
    assert drill.states == {"n1": "active", "n2": "active", "n3": "refused", "n4": "active", "n5": "silent"}
    assert drill.code == 1


def test_a_quorum_lets_nodes_be_skipped_that_then_do_not_count_in_the_budget() -> None:
    drill = Drill(plan_of(10, options(batch="100%", quorum="80%")))
    drill.all(n9="failure", n10="refused")
    assert drill.state == "canary"
    assert drill.model.failures == 0
    drill.to_the_end()
    assert [phase for phase, _ in drill.asked] == ["prepare", "activate", "activate"]
    assert (drill.ends, drill.code) == (["failed"], 1)
    assert drill.model.counts == {"active": 8, "failed": 1, "refused": 1}


def test_a_node_that_a_quorum_lets_be_skipped_does_not_count_when_it_fails_late() -> None:
    drill = Drill(plan_of(4, options(batch="1", quorum="3")))
    for node in names(1, 2, 3):
        drill.answer(node)
    drill.wait(300)
    assert (drill.states["n4"], drill.state) == ("silent", "canary")
    drill.answer("n4", "failure", phase="prepare")
    assert (drill.states["n4"], drill.model.failures) == ("failed", 0)
    drill.to_the_end()
    assert drill.states["n3"] == "active"


def test_a_node_that_a_quorum_lets_be_skipped_counts_when_it_joins_late_and_fails_to_activate() -> None:
    drill = Drill(plan_of(4, options(batch="1", quorum="3")))
    for node in names(1, 3, 4):
        drill.answer(node)
    drill.wait(300)
    drill.answer("n2", "success", phase="prepare")
    drill.all()
    drill.answer("n2", "failure")
    assert drill.model.failures == 1
    assert asks(drill.new) == [("discard", names(3, 4))]


def test_below_the_quorum_nothing_is_activated_even_with_continue() -> None:
    drill = Drill(plan_of(10, options(quorum="80%", on_failure="continue", max_failures="100%")))
    drill.all(n8="failure", n9="failure", n10="failure")
    drill.to_the_end()
    assert drill.model.detail == "7 of 10 nodes are prepared, the quorum is 8"
    assert not any(phase == "activate" for phase, _ in drill.asked)


def test_without_a_canary_and_with_continue_nothing_is_activated_where_nothing_is_prepared() -> None:
    drill = Drill(plan_of(3, options(first="0", on_failure="continue")))
    drill.to_the_end("failure")
    assert drill.asked == [("prepare", names(1, 2, 3))]
    assert (drill.ends, drill.code) == (["failed"], 1)


def test_a_batch_whose_preparation_exceeds_the_budget_is_not_activated() -> None:
    drill = Drill(plan_of(5, options(batch="2", prepare="batch")))
    drill.all()
    drill.all()
    drill.all(n3="failure")
    drill.to_the_end()
    assert drill.asked[2:] == [("prepare", names(2, 3)), ("discard", names(2))]
    assert drill.states == {"n1": "active", "n2": "skipped", "n3": "failed", "n4": "skipped", "n5": "skipped"}


def test_a_batch_of_which_nothing_is_prepared_is_passed_over_within_the_budget() -> None:
    drill = Drill(plan_of(3, options(batch="1", prepare="batch", max_failures="1")))
    drill.all()
    drill.all()
    drill.all("failure")
    assert drill.model.waiting_for == names(3)
    drill.to_the_end()
    assert drill.states == {"n1": "active", "n2": "failed", "n3": "active"}


# -- exit codes --------------------------------------------------------------------------------------------------------


def test_only_when_every_node_asked_refused_and_nothing_changed_it_was_refused() -> None:
    one = Drill(plan_of(1))
    one.answer("n1", "refused")
    every = Drill(plan_of(3))
    every.all("refused")
    canary = Drill(plan_of(3, options(prepare="batch")))
    canary.all("refused")
    assert [drill.code for drill in (one, every, canary)] == [3, 3, 3]
    some = Drill(plan_of(3))
    some.all("refused", n2="failure")
    changed = Drill(plan_of(3))
    changed.all(n2="refused")
    changed.to_the_end()
    assert [drill.code for drill in (some, changed)] == [1, 1]


def test_nodes_that_prepared_and_refuse_to_activate_have_changed() -> None:
    drill = Drill(plan_of(2, options(first="0", batch="100%")))
    drill.all()
    drill.all("refused")
    assert (drill.states, drill.code) == ({"n1": "refused", "n2": "refused"}, 1)


def test_a_canary_that_refuses_to_go_back_has_not_refused_the_rollout() -> None:
    drill = Drill(plan_of(3, options(prepare="batch", bake=10.0, on_failure="rollback")))
    drill.all()
    drill.all()
    drill.answer("n1", "failure", live=NEW)
    assert asks(drill.new) == [("rollback", names(1))]
    drill.answer("n1", "refused")
    assert (drill.states["n1"], drill.ends, drill.code) == ("refused", ["failed"], 1)


def test_an_abort_is_no_refusal() -> None:
    drill = Drill(plan_of(1))
    drill.do(AbortAsked(by="anna"))
    drill.answer("n1", "refused")
    assert (drill.ends, drill.code) == (["aborted"], 1)


def test_while_it_runs_the_exit_code_is_0_and_1_where_somebody_has_to_end_its_pause() -> None:
    drill = Drill(plan_of(3, options(pause="ask")))
    assert drill.code == 0
    drill.all()
    drill.all()
    assert (drill.state, drill.code) == ("paused", 1)


# -- answers that are late, double, or not ours ------------------------------------------------------------------------


def test_a_late_duplicate_never_turns_a_finished_state_back() -> None:
    drill = Drill(plan_of(3))
    drill.all()
    drill.answer("n1")
    before = drill.model
    outcomes: tuple[DeployOutcome, ...] = ("success", "failure", "refused", "rolled-back")
    for outcome in outcomes:
        drill.answer("n1", outcome, phase="activate")
        drill.answer("n1", outcome, phase="prepare")
        drill.answer("n2", outcome, phase="prepare")
    assert drill.model == before
    assert drill.new == ()


def test_a_failed_node_stays_failed_whatever_it_sends_later() -> None:
    drill = Drill(plan_of(4, options(batch="1", max_failures="1")))
    drill.all()
    drill.all()
    drill.answer("n2", "failure")
    drill.answer("n2", "success", phase="activate")
    assert drill.states["n2"] == "failed"


def test_a_late_success_of_a_silent_node_is_what_is_true_and_still_counts_in_the_budget() -> None:
    drill = Drill(plan_of(4, options(batch="1", max_failures="1")))
    drill.all()
    drill.all()
    drill.wait(300)
    assert drill.states["n2"] == "silent"
    drill.answer("n2", "success")
    assert (drill.states["n2"], drill.model.failures) == ("active", 1)
    drill.answer("n3", "failure")
    drill.to_the_end()
    assert drill.states["n4"] == "skipped"
    assert drill.ends == ["failed"]


def test_a_rollout_of_which_every_node_is_active_in_the_end_has_succeeded() -> None:
    drill = Drill(plan_of(3, options(batch="1", max_failures="1")))
    drill.all()
    drill.all()
    drill.wait(300)
    drill.answer("n2", "success")
    drill.answer("n3")
    assert (drill.ends, drill.code) == (["succeeded"], 0)


def test_a_node_that_is_prepared_late_joins_its_batch() -> None:
    drill = Drill(plan_of(3, options(batch="1", max_failures="1")))
    drill.answer("n1")
    drill.answer("n2")
    drill.wait(300)
    drill.answer("n3", "success")
    drill.to_the_end()
    assert drill.asked[1:] == [("activate", names(1)), ("activate", names(2)), ("activate", names(3))]
    assert drill.ends == ["succeeded"]


def test_what_is_prepared_after_its_batch_is_discarded_before_the_end() -> None:
    drill = Drill(plan_of(4, options(batch="1", max_failures="1")))
    for node in names(1, 3, 4):
        drill.answer(node)
    drill.wait(300)
    drill.answer("n1")
    assert drill.model.waiting_for == names(3)
    drill.answer("n2", "success", phase="prepare")
    drill.to_the_end()
    assert drill.asked[-1] == ("discard", names(2))
    assert (drill.states["n2"], drill.ends) == ("skipped", ["failed"])
    assert retry_plan(drill.plan, drill.model).nodes == names(2)


def test_answers_in_any_order_count() -> None:
    drill = Drill(plan_of(4, options(batch="3")))
    for node in reversed(drill.model.waiting_for):
        drill.answer(node)
    drill.answer("n1")
    for node in reversed(drill.model.waiting_for):
        drill.answer(node)
    assert drill.ends == ["succeeded"]


def test_a_stranger_and_a_phase_that_was_not_asked_change_nothing() -> None:
    drill = Drill(plan_of(2))
    before = drill.model
    drill.do(NodeAnswered(node=NodeName("elsewhere"), phase="prepare", outcome="success"))
    drill.answer("n1", phase="activate")
    drill.answer("n1", phase="rollback")
    assert (drill.model, drill.new) == (before, ())


def test_after_the_end_nothing_changes_and_nothing_is_wanted() -> None:
    drill = Drill(plan_of(2))
    drill.all()
    drill.all()
    drill.all()
    before = drill.model
    assert before.ended
    for event in (TimePassed(), AbortAsked(), PauseAsked(), drill.made(NodeName("n1"), "failure", "activate")):
        assert step(drill.plan, before, event, drill.now + 1e6) == (before, ())


def test_what_has_to_be_sent_again_is_known() -> None:
    drill = Drill(plan_of(4, options(batch="3")))
    drill.answer("n2")
    assert asks(outstanding_asks(drill.plan, drill.model)) == [("prepare", names(1, 3, 4))]
    drill.all()
    assert asks(outstanding_asks(drill.plan, drill.model)) == [("activate", names(1))]
    drill.to_the_end()
    assert outstanding_asks(drill.plan, drill.model) == ()


# -- a retry -----------------------------------------------------------------------------------------------------------


def test_a_retry_has_only_the_nodes_that_failed_were_silent_or_refused() -> None:
    drill = Drill(plan_of(6, options(batch="100%", first_nodes=frozenset(names(6)))))
    drill.all()
    drill.all()
    for node, outcome in (("n1", "failure"), ("n2", "refused"), ("n4", "success"), ("n5", "success")):
        drill.answer(node, outcome)  # type: ignore[arg-type]
    drill.wait(300)
    again = retry_plan(drill.plan, drill.model, requested_by="anna")
    assert sorted(again.nodes) == list(names(1, 2, 3))
    assert again.rollout != drill.plan.rollout
    assert (again.requested_by, again.options.timeout) == ("anna", 300.0)
    assert again.targets[NodeName("n1")] == NEW
    assert again.problems() == ()


def test_there_is_no_retry_of_what_still_runs_or_succeeded() -> None:
    drill = Drill(plan_of(2))
    with pytest.raises(UsageError, match="has not ended"):
        retry_plan(drill.plan, drill.model)
    drill.to_the_end()
    with pytest.raises(UsageError, match="no node of rollout r1"):
        retry_plan(drill.plan, drill.model)


def test_a_stop_with_a_silent_node_has_it_begin_nothing_later() -> None:
    silent = Drill(plan_of(2))
    silent.all()
    silent.wait(300)
    assert SendAbort() in silent.actions
    failed = Drill(plan_of(2))
    failed.all()
    failed.answer("n1", "failure")
    assert SendAbort() not in failed.actions


# -- cost --------------------------------------------------------------------------------------------------------------


def test_two_thousand_nodes_in_two_phases_take_less_than_two_seconds() -> None:
    began = time.process_time()
    drill = Drill(plan_of(2000, options(batch="10%")))
    drill.to_the_end()
    assert drill.ends == ["succeeded"]
    assert time.process_time() - began < 2.0
