"""Nodes by steps: which columns a rollout's page has, and what stands in each cell. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from deploykit.web.projection.rolloutviews import RolloutNode, StepView, phase_order

#: Columns of the grid; scripts may have any number of steps.
MOST_COLUMNS: Final = 24


@attrs.frozen(slots=True)
class StepColumn:
    """A column: a step of a phase. A name that stands twice in one phase has one column, with its last state."""

    phase: str
    name: str


@attrs.frozen(kw_only=True, slots=True)
class GridRow:
    """A node with its steps in the order of the columns; None where it has no such step."""

    node: RolloutNode
    cells: tuple[StepView | None, ...]


@attrs.frozen(kw_only=True, slots=True)
class StepGrid:
    """The grid. `left_out`: columns that did not fit. `phases`: how many columns in a row belong to one phase."""

    columns: tuple[StepColumn, ...]
    rows: tuple[GridRow, ...]
    left_out: int = 0

    @property
    def phases(self) -> tuple[tuple[str, int], ...]:
        """The phases above the columns, each with its width."""
        found: list[tuple[str, int]] = []
        for column in self.columns:
            if found and found[-1][0] == column.phase:
                found[-1] = (column.phase, found[-1][1] + 1)
            else:
                found.append((column.phase, 1))
        return tuple(found)


def grid_of(nodes: Sequence[RolloutNode]) -> StepGrid:
    """Return the grid of some nodes, phase by phase.

    Within a phase each step stands after the one that came before it on the first node with both.
    """
    columns = _columns(nodes)
    shown = columns[:MOST_COLUMNS]
    rows = []
    for node in nodes:
        steps = {StepColumn(step.phase, step.name): step for step in node.steps}
        rows.append(GridRow(node=node, cells=tuple(steps.get(column) for column in shown)))
    return StepGrid(columns=tuple(shown), rows=tuple(rows), left_out=len(columns) - len(shown))


def _columns(nodes: Iterable[RolloutNode]) -> list[StepColumn]:
    columns: list[StepColumn] = []
    known: set[StepColumn] = set()
    for node in nodes:
        at = 0
        for step in node.steps[:500]:
            column = StepColumn(step.phase, step.name)
            if column in known:
                at = max(at, columns.index(column) + 1)
            else:
                known.add(column)
                columns.insert(at, column)
                at += 1
    return sorted(columns, key=lambda column: phase_order(column.phase))


__all__ = ["MOST_COLUMNS", "GridRow", "StepColumn", "StepGrid", "grid_of"]
