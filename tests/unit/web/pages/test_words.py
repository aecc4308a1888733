"""States in words, icons and tones: every one that the project knows, none by colour alone."""

from __future__ import annotations

import re
from importlib import resources
from typing import get_args

import pytest

from deploykit.fleet.nodesteps import StepState
from deploykit.fleet.rolloutstates import NodeState
from deploykit.messages.build import BuildOutcome, RequestOutcome
from deploykit.messages.deploy import DeployOutcome
from deploykit.messages.mirror import MirrorOutcome
from deploykit.messages.rollout import RolloutState
from deploykit.messages.source import RefChangeKind
from deploykit.web.pages.words import KIND_ICONS, TONES, bar, in_order, known_states, node_state, shown_state, worst
from deploykit.web.projection.views import ProblemKind, SiteStanding

_EVERY = (
    SiteStanding, RolloutState, NodeState, StepState, DeployOutcome, BuildOutcome, RequestOutcome, MirrorOutcome,
    RefChangeKind,
)  # fmt: skip


def symbols() -> set[str]:
    text = (resources.files("deploykit.web.pages") / "templates" / "icons.html").read_text()
    return set(re.findall(r'id="i-(\w+)"', text))


def test_every_state_of_the_project_has_words() -> None:
    states = {state for kind in _EVERY for state in get_args(kind)}
    assert states - known_states() == set()


def test_every_icon_is_drawn() -> None:
    icons = {shown_state(state).icon for state in known_states()} | set(KIND_ICONS.values())
    assert icons - symbols() == set()
    assert {kind for kind in get_args(ProblemKind) if kind not in KIND_ICONS} == set()


def test_two_states_with_the_same_tone_and_icon_differ_in_words() -> None:
    for kind in _EVERY:
        shown = [shown_state(state) for state in get_args(kind)]
        assert len({one.label for one in shown}) == len(shown), kind


def test_an_unknown_state_is_shown_as_it_came() -> None:
    assert shown_state("<new>").label == "<new>"
    assert shown_state("").label == "unknown"
    assert shown_state("<new>").tone == "off"


def test_the_worst_comes_first() -> None:
    counts = {"current": 7, "failed": 1, "frozen": 2, "empty": 0}
    assert [(shown.label, count) for shown, count in in_order(counts)] == [
        ("failed", 1),
        ("held by a lock", 2),
        ("current", 7),
    ]
    assert worst(counts) == "bad"
    assert worst(()) == TONES[-1]


@pytest.mark.parametrize("counts", [{"current": 1000, "failed": 1}, {"current": 1}, {"current": 1, "outdated": 1}])
def test_a_bar_is_full_and_its_smallest_part_is_seen(counts: dict[str, int]) -> None:
    parts = bar(counts)
    assert len(parts) == len(counts)
    assert parts[0].start == 0
    assert parts[-1].start + parts[-1].width == pytest.approx(100, abs=0.1)
    assert min(part.width for part in parts) > 2


def test_a_bar_of_nothing_is_empty() -> None:
    assert bar({}) == ()
    assert bar({"current": 0}) == ()


@pytest.mark.parametrize(
    ("phase", "state", "kind", "shown"),
    [
        ("prepare", "success", "deploy", "prepared"),
        ("activate", "success", "deploy", "active"),
        ("discard", "success", "deploy", "skipped"),
        ("rollback", "success", "deploy", "rolled back"),
        ("rollback", "success", "rollback", "active"),
        ("activate", "rolled-back", "deploy", "failed, went back"),
        ("activate", "began", "deploy", "at work"),
        ("activate", "", "deploy", "pending"),
    ],
)
def test_a_node_that_ended_its_last_command_well_is_shown_as_what_it_became(
    phase: str, state: str, kind: str, shown: str
) -> None:
    assert shown_state(node_state(phase, state, kind)).label == shown


def test_who_may_see_a_site_is_shown_as_good() -> None:
    assert shown_state("granted").tone == "ok"
