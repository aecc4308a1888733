"""Nodes by steps: the order of the columns, and what stands in the cells."""

from __future__ import annotations

from deploykit.web.pages.rolloutgrid import MOST_COLUMNS, grid_of
from deploykit.web.projection.rolloutviews import RolloutNode, StepView


def _node(name: str, *steps: str, phase: str = "") -> RolloutNode:
    return RolloutNode(node=name, steps=tuple(StepView(name=s, state="done", phase=phase) for s in steps))


def test_columns_follow_the_order_of_the_steps_over_all_nodes() -> None:
    grid = grid_of([_node("a", "fetch", "switch"), _node("b", "fetch", "migrate", "switch", "check"), _node("c")])
    assert [column.name for column in grid.columns] == ["fetch", "migrate", "switch", "check"]
    shown = [[cell.name if cell else "" for cell in row.cells] for row in grid.rows]
    assert shown == [["fetch", "", "switch", ""], ["fetch", "migrate", "switch", "check"], ["", "", "", ""]]


def test_the_same_step_of_two_phases_has_two_columns() -> None:
    one = RolloutNode(
        node="a",
        steps=(
            StepView(name="fetch", state="done", phase="prepare"),
            StepView(name="check", state="done", phase="prepare"),
            StepView(name="check", state="failed", phase="activate"),
        ),
    )
    grid = grid_of([one])
    assert grid.phases == (("prepare", 2), ("activate", 1))
    assert [cell.state for cell in grid.rows[0].cells if cell] == ["done", "done", "failed"]


def test_phases_stand_in_the_order_of_a_rollout_whichever_node_comes_first() -> None:
    nodes = [_node("a", "activate", "check", phase="activate"), _node("b", "discard", phase="discard")]
    nodes += [_node("c", "fetch", phase="prepare")]
    assert grid_of(nodes).phases == (("prepare", 1), ("activate", 2), ("discard", 1))


def test_a_step_that_ran_twice_shows_how_it_ended() -> None:
    steps = (StepView(name="check", state="failed"), StepView(name="check", state="done"))
    (row,) = grid_of([RolloutNode(node="a", steps=steps)]).rows
    assert [cell.state for cell in row.cells if cell] == ["done"]


def test_columns_are_bounded_and_what_is_left_out_is_counted() -> None:
    grid = grid_of([_node("a", *(f"step-{n}" for n in range(MOST_COLUMNS + 7)))])
    assert (len(grid.columns), len(grid.rows[0].cells), grid.left_out) == (MOST_COLUMNS, MOST_COLUMNS, 7)


def test_no_nodes_make_no_columns() -> None:
    assert grid_of([]).columns == ()
