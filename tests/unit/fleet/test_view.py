"""What is shown of a rollout follows from plan, model and progress, whatever comes in which order."""

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.fleet.nodesteps import MAX_OUTPUT, MAX_STEPS, NodeSteps
from deploykit.fleet.rollout import NodeStatus, RolloutModel
from deploykit.fleet.view import RolloutView, duration, some_names, stages
from deploykit.messages import DeployProgressed, DeployReported
from deploykit.messages.deploy import StepReport
from deploykit.names import NodeName
from tests.support.rolloutview import ROLLOUT, SHOP, START, model_of, names, plan_of, progress

ASKED = NodeStatus(state="asked", phase="deploy", deadline=1000.0)
ACTIVE = NodeStatus(state="active", phase="deploy")


def followed(count: int = 3) -> RolloutView:
    """A view in which `web1` was asked at second 10."""
    plan = plan_of(count)
    view = RolloutView(plan, 10.0)
    view.follow(model_of(plan, {"web1": ASKED}, outstanding={"web1": "deploy"}), 10.0)
    return view


def test_a_node_is_waited_for_from_the_first_second() -> None:
    assert followed().waiting(10.0) == "waiting for web1 (deploy, 0.0 s)"


def test_the_step_that_a_node_is_at_is_named_with_its_time() -> None:
    view = followed()
    view.hear(progress(step="export"), 20.0)
    assert view.waiting(32.0) == "waiting for web1 (export, 12 s)"


def test_a_step_that_has_ended_is_no_longer_waited_for() -> None:
    view = followed()
    view.hear(progress(step="export", number=0), 20.0)
    view.hear(progress(step="export", state="done", number=1, seconds=2.0), 22.0)
    assert view.waiting(32.0) == "waiting for web1 (deploy, 22 s)"


def test_an_event_that_comes_late_opens_no_step_again() -> None:
    view = followed()
    view.hear(progress(step="export", state="done", number=1), 20.0)
    assert view.hear(progress(step="export", state="began", number=0), 21.0) == ()
    assert [mark.state for mark in view.steps(NodeName("web1")).steps] == ["done"]


def test_a_step_whose_end_was_lost_does_not_run_for_ever() -> None:
    view = followed()
    view.hear(progress(step="export", number=0), 20.0)
    view.hear(progress(step="activate", number=2), 21.0)
    view.hear(progress(step="activate", state="done", number=3), 22.0)
    assert view.steps(NodeName("web1")).current is None


def test_a_repeated_request_begins_its_phase_anew_and_the_old_one_is_passed_over() -> None:
    view = followed()
    view.hear(progress(step="export", state="failed", number=3, after=1), 20.0)
    view.hear(progress(step="export", number=0, request="r2", after=2), 21.0)
    assert view.hear(progress(step="finalize", number=4, after=1), 22.0) == ()
    assert [(mark.name, mark.state) for mark in view.steps(NodeName("web1")).steps] == [("export", "began")]


@pytest.mark.parametrize("event", [progress(rollout="another"), progress(rollout=None), progress(node="web99")])
def test_what_belongs_to_others_is_passed_over(event: DeployProgressed) -> None:
    assert followed().hear(event, 20.0) == ()


def test_each_change_is_announced_once() -> None:
    plan = plan_of()
    view = RolloutView(plan, 0.0)
    model = model_of(plan, {"web1": ASKED}, outstanding={"web1": "deploy"})
    assert [(c.kind, c.node, c.state) for c in view.follow(model, 1.0)] == [
        ("rollout", None, "canary"),
        ("node", "web1", "asked"),
    ]
    assert view.follow(model, 2.0) == ()
    after = model_of(plan, {"web1": ACTIVE}, state="succeeded")
    changes = view.follow(after, 5.0)
    assert [(c.kind, c.state, c.seconds) for c in changes] == [("node", "active", 4.0), ("rollout", "succeeded", 0.0)]


def test_what_a_step_printed_is_one_change_with_printable_lines() -> None:
    (change,) = followed().hear(progress(state="output", output="one\x1b[31m\n\n[red]two[/]\n"), 20.0)
    assert change.lines == ("one [31m", "[red]two[/]")


def test_rows_are_for_those_that_tell_most_and_the_others_are_counted() -> None:
    plan = plan_of(200, batch="50")
    states = {str(node): ACTIVE for node in names(150)}
    states |= {"web7": NodeStatus(state="failed", phase="deploy", detail="no space left")}
    states |= {"web149": ASKED, "web150": ASKED}
    view = RolloutView(plan, 0.0)
    view.follow(model_of(plan, states, state="rolling", outstanding={"web149": "deploy", "web150": "deploy"}), 1.0)
    picture = view.picture(2.0, rows=3)
    assert [row.node for row in picture.rows] == ["web7", "web149", "web150"]
    assert dict(picture.hidden) == {"active": 147, "pending": 50}
    assert picture.rows[0].detail == "no space left"


def test_a_long_list_of_nodes_is_cut_and_the_longest_wait_comes_first() -> None:
    plan = plan_of(10, batch="9")
    view = RolloutView(plan, 0.0)
    asked = {str(node): ASKED for node in names(10)}
    view.follow(model_of(plan, {"web10": ASKED}, outstanding={"web10": "deploy"}), 1.0)
    view.follow(model_of(plan, asked, outstanding={str(node): "deploy" for node in names(10)}), 5.0)
    assert (
        view.waiting(6.0) == "waiting for web10 (deploy, 5.0 s), web1 (deploy, 1.0 s), web2 (deploy, 1.0 s) and 7 more"
    )


def test_what_comes_next_is_named() -> None:
    view = followed(5)
    assert view.picture(11.0, rows=0).next == "next batch 1: web2"
    plan = view.plan
    view.follow(model_of(plan, {str(node): ASKED for node in names(5)}, state="rolling", stage=4), 12.0)
    assert view.picture(12.0, rows=0).next == "then it is done"
    view.follow(model_of(plan, state="failed", stage=4), 13.0)
    assert view.picture(13.0, rows=0).next == ""


def test_a_report_fills_in_the_steps_that_were_not_heard_of() -> None:
    view = followed()
    view.hear(progress(step="export", state="done", number=1, seconds=2.0), 20.0)
    report = DeployReported(
        node=NodeName("web1"),
        site=SHOP,
        request="r1",
        phase="deploy",
        outcome="failure",
        steps=(
            StepReport(name="export", outcome="done", seconds=2.0),
            StepReport(name="pre-deploy", outcome="failed", exit_code=3, output="disk full\n"),
        ),
    )
    changes = view.reported(report, 21.0)
    assert [(c.kind, c.step, c.state, c.exit_code, c.lines) for c in changes] == [
        ("step", "pre-deploy", "failed", 3, ()),
        ("output", "pre-deploy", "", None, ("disk full",)),
    ]
    assert [mark.name for mark in view.steps(NodeName("web1")).steps] == ["export", "pre-deploy"]
    assert view.reported(report, 22.0) == ()
    steps = view.steps(NodeName("web1"))
    assert steps.failed is not None
    assert steps.failed.name == "pre-deploy"
    assert steps.lines_of("pre-deploy") == ("disk full",)
    view.hear(progress(step="pre-deploy", state="output", output="disk full\n", number=2), 23.0)
    assert view.steps(NodeName("web1")).lines_of("pre-deploy") == ("disk full",)


def test_what_comes_after_the_report_changes_nothing_until_the_node_is_asked_again() -> None:
    view = followed()
    view.hear(progress(step="post-deploy", state="output", output="200 OK\n", number=9), 20.0)
    step = StepReport(name="post-deploy", outcome="failed", exit_code=1, output="500\n")
    report = DeployReported(
        node=NodeName("web1"), site=SHOP, request="r1", phase="deploy", outcome="failure", steps=(step,), time=START
    )
    view.reported(report, 21.0)
    assert view.hear(progress(step="post-deploy", state="output", output="200 OK\n", number=10), 22.0) == ()
    assert view.steps(NodeName("web1")).lines_of("post-deploy") == ("500",)
    view.hear(progress(step="export", request="r2", after=60), 23.0)
    assert [mark.name for mark in view.steps(NodeName("web1")).steps] == ["export"]


def test_reasons_against_reports_are_kept_each_once_and_not_without_end() -> None:
    view = followed()
    for at in range(50):
        view.doubted(NodeName("web1"), f"reason {at % 20}")
    assert len(view.doubts[NodeName("web1")]) == 10
    view.doubted(NodeName("stranger"), "who")
    assert NodeName("stranger") not in view.doubts


def test_stages_are_the_canary_and_numbered_batches() -> None:
    assert stages(plan_of(3)) == (("canary", names(3)[:1]), ("1", names(3)[1:2]), ("2", names(3)[2:]))


def test_names_are_cut_only_where_there_are_more() -> None:
    assert some_names(["a", "b"], 2) == "a, b"
    assert some_names(["a", "b", "c"], 2) == "a, b and 1 more"


@pytest.mark.parametrize(("seconds", "shown"), [(-1, "0.0 s"), (59.4, "59 s"), (60, "1 min"), (7260, "2 h 1 min")])
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


PHASES = st.sampled_from(["deploy", "prepare", "activate", "rollback", "discard"])
EVENTS = st.builds(
    progress,
    node=st.sampled_from(["web1", "web2", "web3", "web4"]),
    step=st.text(max_size=60),
    state=st.sampled_from(["began", "done", "failed", "skipped", "output"]),
    number=st.integers(0, 2**53 - 1),
    request=st.sampled_from(["r1", "r2", "r3"]),
    rollout=st.sampled_from([ROLLOUT, None, "other"]),
    phase=PHASES,
    output=st.text(max_size=200),
    seconds=st.floats(0, 1e9),
    after=st.floats(-1e6, 1e6),
)
REPORTS = st.builds(
    DeployReported,
    node=st.sampled_from(["web1", "web2", "web4"]),
    site=st.just(SHOP),
    request=st.sampled_from(["r1", "r2"]),
    phase=PHASES,
    outcome=st.sampled_from(["success", "failure", "refused"]),
    time=st.floats(-1e6, 1e6).map(lambda seconds: START + timedelta(seconds=seconds)),
    steps=st.lists(
        st.builds(
            StepReport,
            name=st.text(max_size=20),
            outcome=st.sampled_from(["done", "failed", "skipped"]),
            exit_code=st.one_of(st.none(), st.integers(0, 255)),
            output=st.text(max_size=100),
        ),
        max_size=100,
    ).map(tuple),
)
STATUSES = st.builds(
    NodeStatus,
    state=st.sampled_from(
        ["pending", "asked", "prepared", "active", "failed", "silent", "refused", "skipped", "rolled-back"]
    ),
    phase=st.one_of(st.none(), PHASES),
    detail=st.text(max_size=50),
)
PLAN = plan_of(3)
MODELS = st.builds(
    lambda statuses, state, outstanding, stage: attrs.evolve(
        model_of(PLAN, dict(zip(map(str, PLAN.nodes), statuses, strict=True))),
        state=state,
        outstanding=outstanding,
        stage=stage,
    ),
    st.tuples(STATUSES, STATUSES, STATUSES),
    st.sampled_from(["planned", "preparing", "canary", "rolling", "paused", "aborting", "rolling-back", "failed"]),
    st.dictionaries(st.sampled_from(PLAN.nodes), PHASES),
    st.integers(-1, 5),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(EVENTS, MODELS, REPORTS), max_size=40), st.integers(0, 4), st.floats(-100, 100))
def test_no_order_of_events_raises_and_a_picture_stays_bounded(events: list[object], rows: int, step: float) -> None:
    view = RolloutView(PLAN, 0.0)
    for at, event in enumerate(events):
        now = at * step
        match event:
            case DeployProgressed():
                assert len(view.hear(event, now)) <= 1
            case DeployReported():
                assert len(view.reported(event, now)) <= 2 * MAX_STEPS
            case RolloutModel():
                assert len(view.follow(event, now)) <= len(PLAN.nodes) + 1
        picture = view.picture(now, rows=rows)
        assert len(picture.rows) <= rows
        assert len(picture.rows) + sum(picture.hidden.values()) == sum(picture.counts.values()) == len(PLAN.nodes)
        texts = [picture.waiting, picture.next]
        texts += [text for row in picture.rows for text in (row.doing, row.output, row.detail)]
        texts += [mark.name for row in picture.rows for mark in row.steps]
        assert all(text.isprintable() for text in texts)
    for node in PLAN.nodes:
        assert len(view.steps(node).steps) <= MAX_STEPS
        assert len(view.steps(node).output) <= MAX_OUTPUT


def test_what_a_node_sends_without_end_is_bounded() -> None:
    steps = NodeSteps()
    for at in range(300):
        steps = steps.heard(progress(step=f"step {at}", number=2 * at), 0.0)
        steps = steps.heard(progress(state="output", output="x" * 9000 + "\n" * 50 + "y", number=2 * at + 1), 0.0)
    assert len(steps.steps) == MAX_STEPS
    assert len(steps.output) == MAX_OUTPUT
    assert max(len(line.text) for line in steps.output) <= 400
