"""Going on with a rollout whose coordinator is gone: nothing is acted on twice, and others may take it over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.errors import RolloutError, UsageError
from deploykit.fleet.inbox import RolloutInbox
from deploykit.fleet.plan import Amount
from deploykit.messages import utc_now
from deploykit.names import NodeName
from deploykit.operations.rollout import RolloutResult, left_unfinished
from deploykit.operations.rolloutstore import ask_rollout, list_rollouts, read_rollout
from tests.support.rollouts import NEW, ONE_BY_ONE, Rolling, Seen, go_on, plan_of, roll_out
from tests.support.standins import OLD, StandIns, names
from tests.support.wait import wait_until


def interrupted(fleet: StandIns, at: str = "paused", **options: Any) -> RolloutResult:
    """Run a rollout that Ctrl-C leaves in a state."""
    seen = Seen()

    seen.on_change = lambda model: press(model.state == at)
    return roll_out(fleet, seen=seen, **{"pause": "ask", "batch": ONE_BY_ONE, **options})


def test_ctrl_c_leaves_it_unfinished_and_says_what_goes_on(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    with StandIns(tmp_path, deploykit_broker.address, names(3)) as fleet:
        result = interrupted(fleet, at="canary", pause=0.0)
        rollout = result.plan.rollout
        assert (result.exit_code, result.interrupted) == (130, True)
        said = "\n".join(result.left_running)
        assert "web1 will finish what was asked (activate)" in said
        assert f"deploykit rollout resume {rollout}" in said
        assert "2 of 3 nodes stay as they are" in said
        stored = read_rollout(fleet.settings, rollout)
        assert not stored.running
        assert stored.exit_code == 1
        assert rollout in "".join(left_unfinished(fleet.settings, plan_of(fleet.nodes)))
        assert go_on(fleet, rollout).exit_code == 0


def test_it_goes_on_and_no_node_acts_twice(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    with StandIns(tmp_path, deploykit_broker.address, names(3)) as fleet:
        rollout = interrupted(fleet, pause=0.0, at="canary").plan.rollout
        assert go_on(fleet, rollout).exit_code == 0
        assert set(fleet.live().values()) == {NEW.commit}
        assert all(fleet.acted(node) == ["prepare", "activate"] for node in fleet.nodes)
        with pytest.raises(UsageError, match="has ended"):
            go_on(fleet, rollout)


def test_ctrl_c_before_anything_was_sent_leaves_nothing(
    tmp_path: Path, deploykit_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RolloutInbox, "__enter__", lambda self: press(True))
    with StandIns(tmp_path, deploykit_broker.address, names(2)) as fleet:
        with pytest.raises(KeyboardInterrupt):
            roll_out(fleet)
        assert list_rollouts(fleet.settings) == ()


def test_two_coordinators_of_one_rollout_hear_of_each_other(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    """Somebody went on elsewhere with a rollout that was not left: nodes act once, and a person is told."""
    with StandIns(tmp_path, deploykit_broker.address, names(3)) as fleet:
        with Rolling(fleet, pause="ask", batch=(Amount(number=2),)) as rolling:
            rolling.seen.wait(lambda model: model.state == "paused", "the pause")
            copied = tmp_path / "copied.jsonl"
            copied.write_bytes(read_rollout(fleet.settings, rolling.plan.rollout).path.read_bytes())
            there = attrs.evolve(fleet.settings, state=tmp_path / "there")
            assert go_on(fleet, copied, settings=there).exit_code == 0
            wait_until(lambda: "another process" in "".join(rolling.seen.problems), "a word about the other one")
            ask_rollout(fleet.settings, rolling.plan.rollout, "abort")
            assert rolling.result().model.ended
        assert all(len(fleet.acted(node)) <= 3 for node in fleet.nodes)


def test_another_machine_goes_on_from_the_journal_alone(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    with StandIns(tmp_path, deploykit_broker.address, names(3)) as fleet:
        rollout = interrupted(fleet, pause=0.0, at="canary").plan.rollout
        copied = tmp_path / "copied.jsonl"
        copied.write_bytes(read_rollout(fleet.settings, rollout).path.read_bytes())
        there = attrs.evolve(fleet.settings, state=tmp_path / "there")
        assert go_on(fleet, copied, settings=there).exit_code == 0
        assert all(fleet.acted(node) == ["prepare", "activate"] for node in fleet.nodes)
        assert [entry.rollout for entry in list_rollouts(there)] == [rollout]
        with pytest.raises(RolloutError, match="has a journal here"):
            go_on(fleet, copied, settings=there)


def test_a_journal_that_names_a_place_outside_is_refused(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    with StandIns(tmp_path, deploykit_broker.address, names(2)) as fleet:
        rollout = interrupted(fleet).plan.rollout
        copied = tmp_path / "copied.jsonl"
        text = read_rollout(fleet.settings, rollout).path.read_text()
        copied.write_text(text.replace(f'"{rollout}"', '"../../outside"'))
        with pytest.raises(RolloutError):
            go_on(fleet, copied, settings=attrs.evolve(fleet.settings, state=tmp_path / "there"))
        assert not list(tmp_path.rglob("outside"))


def test_an_expired_command_is_made_anew_for_the_same_commit(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    behaves = {"web1": {"deploy": "silent"}}
    with StandIns(tmp_path, deploykit_broker.address, names(1), behaves=behaves) as fleet:
        stand = fleet.nodes[NodeName("web1")]
        seen = Seen()
        seen.on_tick = lambda: press(bool(stand.heard))
        rollout = roll_out(fleet, seen=seen, timeout=8.0).plan.rollout
        (first,) = stand.heard
        wait_until(lambda: utc_now() > fleet.expires[first], "the end of the command")
        stand.behaves = {}
        assert go_on(fleet, rollout).exit_code == 0
        assert set(fleet.live().values()) == {NEW.commit}
        ((second, _),) = stand.acted
        assert second != first


def press(pressed: bool) -> None:
    """Press Ctrl-C, or not."""
    if pressed:
        raise KeyboardInterrupt


def test_abort_of_what_nobody_coordinates_takes_it_over(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    with StandIns(tmp_path, deploykit_broker.address, names(3)) as fleet:
        rollout = interrupted(fleet).plan.rollout
        result = go_on(fleet, rollout, then="abort", rollback=True)
        assert result.model.ended
        assert set(fleet.live().values()) == {OLD.commit}
        assert all(stand.prepared is None for stand in fleet.nodes.values())
        assert roll_out(fleet).exit_code == 0


def test_a_pause_that_was_asked_while_nobody_coordinated_is_kept(
    tmp_path: Path, deploykit_broker: EmbeddedBroker
) -> None:
    with StandIns(tmp_path, deploykit_broker.address, names(3)) as fleet:
        rollout = interrupted(fleet, pause=0.0, at="canary").plan.rollout
        ask_rollout(fleet.settings, rollout, "pause")
        seen = Seen()
        seen.on_change = lambda model: ask_rollout(fleet.settings, rollout, "promote") if model.state == "paused" else 0
        assert go_on(fleet, rollout, seen=seen, then=None).exit_code == 0
        assert "paused" in seen.states


def test_an_older_rollout_is_not_gone_on_with_after_a_later_one(
    tmp_path: Path, deploykit_broker: EmbeddedBroker
) -> None:
    with StandIns(tmp_path, deploykit_broker.address, names(3)) as fleet:
        old = interrupted(fleet).plan.rollout
        new = roll_out(fleet).plan.rollout
        with pytest.raises(UsageError, match=new):
            go_on(fleet, old)
        assert go_on(fleet, old, then="abort").model.ended


def test_an_hour_away_costs_no_node_its_deadline(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    """The clock of the machine that goes on is an hour ahead, or an hour behind."""
    for hours in (1, -1):
        root = tmp_path / str(hours)
        root.mkdir()
        with StandIns(root, deploykit_broker.address, names(3)) as fleet:
            rollout = interrupted(fleet, pause=0.0, at="canary").plan.rollout
            path = read_rollout(fleet.settings, rollout).path
            shift_times(path, hours * 3600)
            assert go_on(fleet, rollout).exit_code == 0
            assert all(fleet.acted(node) == ["prepare", "activate"] for node in fleet.nodes)


def shift_times(path: Path, seconds: float) -> None:
    """Let a journal look as if it was written earlier, or by a clock that is ahead."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        for name in ("at", "begun"):
            if name in line:
                line[name] -= seconds
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
