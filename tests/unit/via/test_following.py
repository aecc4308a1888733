"""What the API shows of a rollout becomes what displays know; what it cannot know is not made up."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from deploykit.errors import ActionRefused
from deploykit.fleet.view import RolloutView
from deploykit.via.answers import FollowedNode, FollowedRollout, FollowedStep
from deploykit.via.following import (
    NO_TARGET,
    agrees,
    model_of,
    parts_of,
    plan_of_rollout,
    plan_of_shown,
    printed_of,
    progress_of,
    status_of,
)
from deploykit.web.actions.shown import PlannedNode, PlanShown
from tests.support.consoleworld import NOW

REF, COMMIT = "refs/tags/v1", "1" * 40


def shown(*stages: tuple[str, int], **changes: Any) -> PlanShown:
    nodes = tuple(PlannedNode(node=name, stage=stage, to_ref=REF, to_commit=COMMIT) for name, stage in stages)
    return PlanShown(**{"site": "shop", "kind": "deploy", "ref": REF, "commit": COMMIT, "nodes": nodes, **changes})


PLAN = plan_of_shown(shown(("web1", 0), ("web2", 1), ("web3", 1), ("web4", 2)), "r-1")


def rollout(state: str, **changes: Any) -> FollowedRollout:
    return FollowedRollout(
        **{"rollout": "r-1", "site": "shop", "state": state, "ref": REF, "commit": COMMIT, **changes}
    )


def test_the_plan_keeps_its_stages() -> None:
    assert (PLAN.canary, PLAN.batches) == (("web1",), (("web2", "web3"), ("web4",)))
    assert not PLAN.problems()
    assert PLAN.rollout == "r-1"


def test_a_target_that_is_not_told_is_nobody_s() -> None:
    plan = plan_of_rollout(rollout("rolling", ref="", commit=""), (FollowedNode(node="web1"),))
    assert plan.targets == {"web1": NO_TARGET}


@pytest.mark.parametrize("name", ["", "../x", "a b", "\x1b[31m"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ActionRefused):
        plan_of_shown(shown((name, 0)), "r-1")
    with pytest.raises(ActionRefused):
        plan_of_rollout(rollout("rolling", site=name), (FollowedNode(node="web1"),))


@pytest.mark.parametrize(
    ("state", "phase", "kind", "over", "expected"),
    [
        ("", "", "deploy", False, "pending"),
        ("", "", "deploy", True, "skipped"),
        ("began", "activate", "deploy", False, "asked"),
        ("began", "activate", "deploy", True, "silent"),
        ("success", "prepare", "deploy", False, "prepared"),
        ("success", "activate", "deploy", False, "active"),
        ("success", "deploy", "deploy", True, "active"),
        ("success", "rollback", "deploy", True, "rolled-back"),
        ("success", "rollback", "rollback", True, "active"),
        ("success", "discard", "deploy", True, "skipped"),
        ("failure", "activate", "deploy", False, "failed"),
        ("rolled-back", "activate", "deploy", False, "failed"),
        ("refused", "prepare", "deploy", False, "refused"),
        ("something new", "activate", "deploy", False, "failed"),
    ],
)
def test_what_a_node_said_is_its_state(state: str, phase: str, kind: Any, over: bool, expected: str) -> None:
    assert status_of(FollowedNode(node="web1", state=state, phase=phase), kind, over=over).state == expected


@pytest.mark.parametrize(
    ("state", "nodes", "code"),
    [
        ("succeeded", {"web1": "success"}, 0),
        ("failed", {"web1": "failure"}, 1),
        ("failed", {"web1": "refused"}, 3),
        ("aborted", {"web1": "success"}, 1),
        ("rolling", {"web1": "began"}, 0),
        ("nonsense", {}, 0),
    ],
)
def test_the_exit_code_is_that_of_the_rollout(state: str, nodes: dict[str, str], code: int) -> None:
    phase = "prepare" if "refused" in nodes.values() else "activate"
    known = {name: FollowedNode(node=name, state=one, phase=phase) for name, one in nodes.items()}
    assert model_of(PLAN, rollout(state), known, 0.0).exit_code(PLAN) == code


def test_a_display_hears_of_each_step_once() -> None:
    view = RolloutView(PLAN, 0.0)
    began = FollowedNode(
        node="web1", state="began", phase="activate", request="q1",
        steps=(FollowedStep(name="switch", state="began", phase="activate"),),
    )  # fmt: skip
    failed = FollowedNode(
        node="web1", state="failure", phase="activate", request="q1", detail="post-deploy: exit 2",
        steps=(
            FollowedStep(name="switch", state="done", phase="activate", seconds=1.0),
            FollowedStep(name="post-deploy", state="failed", phase="activate", exit_code=2),
        ),
    )  # fmt: skip

    def heard(node: FollowedNode, before: FollowedNode | None) -> list[tuple[str, str]]:
        changes = [change for event in progress_of(PLAN, node, before, NOW) for change in view.hear(event, 1.0)]
        return [(change.step, change.state) for change in changes]

    assert heard(began, None) == [("switch", "began")]
    assert heard(began, began) == []
    assert heard(failed, began) == [("switch", "done"), ("post-deploy", "failed")]
    (printed,) = view.hear(printed_of(PLAN, failed, "post-deploy", ["boom\x1b[31m"], NOW), 2.0)
    assert "boom" in printed.lines[0]
    assert "\x1b" not in printed.lines[0]
    view.follow(model_of(PLAN, rollout("failed"), {"web1": failed}, 3.0), 3.0)
    assert view.row(PLAN.nodes[0], 3.0).state == "failed"


def test_what_was_printed_stands_at_the_step_that_printed_it() -> None:
    steps = tuple(FollowedStep(name=name, state="done", phase="deploy") for name in ("pre-deploy", "health-check"))
    node = FollowedNode(node="web1", state="success", phase="deploy", steps=steps)
    lines = ["cut", "--- pre-deploy ---", "one", "--- a script's own ---", "--- health-check ---", "two"]
    assert list(parts_of(lines, node)) == [
        ("", ["cut"]),
        ("pre-deploy", ["one", "--- a script's own ---"]),
        ("health-check", ["two"]),
    ]
    failed = attrs.evolve(node, steps=(steps[0], attrs.evolve(steps[1], state="failed")))
    assert list(parts_of(["cut"], failed)) == [("health-check", ["cut"])]


def test_a_paused_rollout_waits_for_a_person() -> None:
    model = model_of(PLAN, rollout("paused"), {}, 5.0)
    assert (model.task, model.until, model.paused_since) == ("pause", None, 5.0)


def test_the_last_reports_of_nodes_are_waited_for() -> None:
    """A coordinator announces the end before the console has heard what every node said."""
    nodes = {"web1": FollowedNode(node="web1", state="refused", phase="prepare")}
    early = model_of(PLAN, rollout("failed"), {}, 0.0)
    late = model_of(PLAN, rollout("failed"), nodes, 0.0)
    counted = rollout("failed", counts={"refused": 1, "skipped": 3, "failed": 0})
    assert not agrees(early, counted)
    assert agrees(late, counted)
    assert agrees(early, rollout("failed")), "where nothing was counted there is nothing to wait for"


@pytest.mark.parametrize(
    ("counts", "state", "code"),
    [({"refused": 4}, "refused", 3), ({"silent": 4}, "silent", 1), ({"failed": 2, "refused": 2}, "failed", 1)],
)
def test_what_the_coordinator_says_of_a_node_that_is_not_shown_counts(
    counts: dict[str, int], state: str, code: int
) -> None:
    told = rollout("failed", counts=counts, failed=("web1", "web2", "web3", "web4", "strange"))
    model = model_of(PLAN, told, {}, 0.0)
    assert {status.state for status in model.nodes.values()} == {state}
    assert model.exit_code(PLAN) == code
