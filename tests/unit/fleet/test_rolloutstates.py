"""The tables of states: complete, reachable, taken row by row by real rollouts, and shown in the documentation."""

from __future__ import annotations

import random
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

from deploykit.fleet import rolloutdraft
from deploykit.fleet.rollout import AbortAsked, PauseAsked, PromoteAsked, ResumeAsked, RolloutEvent, TimePassed
from deploykit.fleet.rolloutstates import ENDS, NODE, ROLLOUT, NodeState, NodeTurn, RolloutTurn
from deploykit.messages.rollout import RolloutState
from tests.support.rolling import NEW, Drill, options, plan_of

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize(("states", "table"), [(RolloutState, ROLLOUT), (NodeState, NODE)])
def test_every_state_is_in_its_table_and_can_be_reached(states: Any, table: Mapping[str, Mapping[Any, str]]) -> None:
    assert list(table) == list(get_args(states))
    reached = {next(iter(table))}
    while more := {after for state in reached for after in table[state].values()} - reached:
        reached |= more
    assert reached == set(table)


def test_the_ends_are_the_states_that_nothing_follows() -> None:
    assert {state for state, turns in ROLLOUT.items() if not turns} == ENDS


def test_every_turn_is_in_its_table() -> None:
    assert {turn for turns in ROLLOUT.values() for turn in turns} == set(RolloutTurn)
    assert {turn for turns in NODE.values() for turn in turns} == set(NodeTurn)


def test_the_documentation_shows_the_tables_as_they_are() -> None:
    """`python docs/rollouttable.py --write` puts them there."""
    table = runpy.run_path(str(DOCS / "rollouttable.py"))
    page = (DOCS / "rollouts.md").read_text(encoding="utf-8")
    assert table["markdown_tables"]() in page
    assert table["page_with_tables"](page) == page


class Recorder(dict[Any, Any]):
    """A row of a table that notes which of its cells are read."""

    def __init__(self, state: str, row: Mapping[Any, str], seen: set[tuple[str, Any]]) -> None:
        super().__init__(row)
        self.state, self.seen = state, seen

    def __getitem__(self, turn: Any) -> Any:
        self.seen.add((self.state, turn))
        return super().__getitem__(turn)

    def get(self, turn: Any, default: Any = None) -> Any:
        return self[turn] if super().get(turn) is not None else default


def one_rollout(chance: random.Random) -> None:
    """Drive a small rollout to its end, by chance."""
    drill = Drill(
        plan_of(
            chance.randint(1, 5),
            options(
                first=chance.choice(["0", "1", "2"]),
                batch=chance.choice(["1", "2", "50%"]),
                max_failures=chance.choice(["0", "1", "2"]),
                pause=chance.choice([0.0, 50.0, "ask"]),
                bake=chance.choice([0.0, 50.0]),
                deadline=chance.choice([None, 80.0, 300.0]),
                prepare=chance.choice(["all", "batch"]),
                on_failure=chance.choice(["stop", "rollback", "rollback", "continue"]),
                timeout=100.0,
            ),
        )
    )
    asked: set[tuple[str, Any]] = set()
    outcome: Any
    while not drill.model.ended:
        asked |= set(drill.model.outstanding.items())
        what = chance.random()
        if what < 0.6 and drill.model.outstanding:
            outcome = chance.choice(["success"] * 6 + ["failure", "refused"])
            live = NEW if outcome == "failure" and chance.random() < 0.5 else None
            drill.answer(chance.choice(drill.model.waiting_for), outcome, live=live)
        elif what < 0.75:
            name, phase = chance.choice(sorted(asked))
            outcome = chance.choice(["success", "success", "failure", "refused"])
            drill.answer(name, outcome, phase=phase)
        elif what < 0.95:
            drill.do(TimePassed(), after=chance.choice([10.0, 50.0, 100.0]))
        else:
            abort = AbortAsked(rollback=chance.random() < 0.5)
            wishes: list[RolloutEvent] = [PauseAsked(), ResumeAsked(), PromoteAsked(), abort]
            drill.do(chance.choice(wishes))
        if drill.model.wakes_at is None and not drill.model.ended:
            drill.do(ResumeAsked())


def recorded(table: Mapping[Any, Mapping[Any, str]], seen: set[tuple[str, Any]]) -> dict[str, Recorder]:
    """The table, noting in `seen` what is read of it."""
    return {state: Recorder(state, row, seen) for state, row in table.items()}


def rows(table: Mapping[Any, Mapping[Any, str]]) -> set[tuple[str, Any]]:
    """Every row of a table."""
    return {(state, turn) for state, row in table.items() for turn in row}


def test_every_row_of_the_tables_is_taken_by_some_rollout(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[tuple[str, Any]] = set()
    monkeypatch.setattr(rolloutdraft, "ROLLOUT", recorded(ROLLOUT, seen))
    monkeypatch.setattr(rolloutdraft, "NODE", recorded(NODE, seen))
    chance = random.Random(6)
    for _ in range(20_000):
        one_rollout(chance)
        if seen >= rows(ROLLOUT) | rows(NODE):
            break
    assert (rows(ROLLOUT) | rows(NODE)) - seen == set()
