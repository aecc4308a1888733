"""What a rollout prints: lines for people, JSON lines for scripts, and nothing that a node sends is obeyed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import attrs
import pytest
from jsonschema import Draft202012Validator
from rich.console import Console

from deploykit.cli.liverollout import LiveRollout
from deploykit.cli.rolloutdisplay import JsonRollout, PlainRollout, RolloutDisplay
from deploykit.cli.rolloutsummary import summary_lines
from deploykit.cli.rollouttext import plan_lines
from deploykit.fleet.plan import Amount, Plan, RolloutOptions, Target, make_plan
from deploykit.fleet.rollout import NodeStatus, RolloutModel
from deploykit.fleet.summary import RolloutSummary, summarize
from deploykit.names import NodeName, ObjectId, RefName
from tests.support.rolloutview import SHOP, TARGET, model_of, names, plan_of, progress

SCHEMA = Path(__file__).parents[3] / "docs" / "rollout-lines.schema.json"
#: What a hostile node may send wherever it sends text.
HOSTILE = "[red]boo[/red] [link=x]y[/] \x1b[31mred\x1b]0;title\x07 \u202e\u2066 [/]"
ASKED = NodeStatus(state="asked", phase="deploy", deadline=1_800_000_000.0)


def story(display: RolloutDisplay, plan: Plan) -> RolloutSummary:
    """Show a whole rollout: one node fails, one is silent, one report is not believed, one is skipped."""
    failed = NodeStatus(state="failed", phase="deploy", detail=HOSTILE)
    silent = NodeStatus(state="silent", phase="deploy", detail="did not answer in time; it may yet obey")
    end = model_of(
        plan,
        {"web1": failed, "web2": silent, "web3": NodeStatus(state="active", phase="deploy")},
        state="failed",
        stage=2,
    )
    with display:
        display.changed(
            model_of(plan, {"web1": ASKED, "web2": ASKED}, outstanding={"web1": "deploy", "web2": "deploy"})
        )
        display.progressed(progress(step=HOSTILE, number=0))
        display.progressed(progress(step=HOSTILE, state="output", output=f"{HOSTILE}\nsecond line\n", number=1))
        display.tick()
        display.progressed(progress(step=HOSTILE, state="failed", number=2, seconds=1.5))
        display.doubted(NodeName("web2"), HOSTILE)
        display.problem(f"connection lost: {HOSTILE}")
        display.changed(end)
        summary = summarize(plan, end, display.view, skew=30.0)
        display.ended(summary)
    return summary


def lines_of(capsys: pytest.CaptureFixture[str]) -> tuple[list[str], list[str]]:
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err.splitlines()


def test_plain_lines_say_each_change_once_and_at_the_end_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_of(4)
    story(PlainRollout(plan), plan)
    out, err = lines_of(capsys)
    said = [line[9:] for line in out]  # without the time
    assert said[0].startswith("shop gets v1.2 (abababababab) on 4 nodes, rollout shop-")
    assert said[1:3] == ["canary stage", "web1, web2 asked to deploy"]
    assert sum("web1 failed" in line for line in said) == 1
    assert "a report in the name of web2 was not believed" in err[0]
    end = "\n".join(err)
    assert "failed (1 failed, 1 silent, 1 active, 1 pending)" in end
    assert f"deploykit deploy shop --ref v1.2 --retry-failed {plan.rollout}" in end
    assert "deploykit rollback shop -I web3" in end
    assert "it may yet obey until" in end


def test_every_line_is_printable_whatever_a_node_sends(capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_of(4)
    story(PlainRollout(plan, steps=True), plan)
    out, err = lines_of(capsys)
    assert any("[red]boo[/red]" in line for line in out)
    assert all(line.isprintable() for line in (*out, *err))


def test_of_one_node_the_steps_and_their_output_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_of(1)
    with PlainRollout(plan) as display:
        display.progressed(progress(step="export", number=0))
        display.progressed(progress(step="export", state="done", number=1, seconds=2.0))
        display.progressed(progress(step="pre-deploy", state="output", output="hello\n", number=2))
    said = [line[9:] for line in lines_of(capsys)[0]]
    assert said[1:] == ["web1 export done (2.0 s)", "web1 pre-deploy | hello"]


def test_a_quiet_rollout_says_what_it_waits_for_but_not_all_the_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(RolloutDisplay, "now", staticmethod(lambda: clock[0]))
    plan = plan_of(3)
    with PlainRollout(plan) as display:
        display.changed(model_of(plan, {"web1": ASKED}, outstanding={"web1": "deploy"}))
        for second in range(300):
            clock[0] = float(second)
            display.tick()
    waits = [line[9:] for line in lines_of(capsys)[0] if "waiting for" in line]
    assert waits[0] == "waiting for web1 (deploy, 1.0 s)"
    assert 4 <= len(waits) <= 7


def test_a_pause_says_how_to_go_on_once(capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_of(3)
    paused = attrs.evolve(model_of(plan, state="paused"), task="pause", paused_since=5.0)
    with PlainRollout(plan) as display:
        display.changed(paused)
        display.changed(attrs.evolve(paused, detail="x"))
    said = [line for line in lines_of(capsys)[0] if "promote" in line]
    assert len(said) == 1
    assert f"deploykit rollout promote {plan.rollout}" in said[0]


def test_a_pause_is_named_once_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_of(3)
    with PlainRollout(plan) as display:
        display.changed(attrs.evolve(model_of(plan, state="paused"), detail="paused between batches"))
        display.changed(attrs.evolve(model_of(plan, state="aborting"), detail="aborted by ann"))
    assert [line[9:] for line in lines_of(capsys)[0]][1:] == [
        "paused between batches",
        "stopping: what was prepared is discarded: aborted by ann",
    ]


def test_json_lines_keep_to_their_schema(capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_of(4)
    story(JsonRollout(plan), plan)
    out, err = lines_of(capsys)
    validator = Draft202012Validator(json.loads(SCHEMA.read_text()))
    entries: list[dict[str, Any]] = [json.loads(line) for line in out]
    for entry in entries:
        validator.validate(entry)
    kinds = [entry["event"] for entry in entries]
    assert kinds[0] == "plan"
    assert kinds[-1] == "end"
    assert set(kinds) == {"plan", "rollout", "node", "step", "output", "note", "end"}
    assert err == []
    assert all(line.isprintable() for line in out)
    end = entries[-1]
    assert [(node["node"], node["state"]) for node in end["nodes"]] == [("web1", "failed"), ("web2", "silent")]
    assert end["nodes"][1]["may_obey_until"] == "2027-01-15T08:00:30Z"
    assert len(end["nodes"][1]["doubts"]) == 1


def test_a_line_that_is_none_breaks_the_schema() -> None:
    validator = Draft202012Validator(json.loads(SCHEMA.read_text()))
    assert not validator.is_valid({"event": "node", "at": "2026-01-01T00:00:00Z", "rollout": "x"})
    assert not validator.is_valid({"event": "other", "at": "2026-01-01T00:00:00Z", "rollout": "x"})


@pytest.fixture
def terminal() -> Console:
    """A terminal of 80 columns and 24 lines that keeps what is written to it."""
    return Console(
        file=io.StringIO(), force_terminal=True, width=80, height=24, color_system=None, legacy_windows=False
    )


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


#: The sequences that rich itself uses to draw: cursor, erase.
OWN = ("\x1b[2K", "\x1b[1A", "\x1b[?25l", "\x1b[?25h", "\r")


def test_a_live_picture_obeys_no_markup_and_no_escape(terminal: Console) -> None:
    plan = plan_of(4)
    story(LiveRollout(plan, terminal), plan)
    text = written(terminal)
    assert "[red]boo[/red]" in text
    for sequence in OWN:
        text = text.replace(sequence, "")
    assert all(line.isprintable() for line in text.splitlines())


def test_a_live_picture_fits_the_window_with_200_nodes(terminal: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(RolloutDisplay, "now", staticmethod(lambda: clock[0]))
    plan = plan_of(200, batch="50%")
    asked = {str(node): ASKED for node in names(200)}
    with LiveRollout(plan, terminal) as display:
        clock[0] = 1.0
        display.changed(
            model_of(plan, asked, state="rolling", outstanding=dict.fromkeys(map(str, names(200)), "deploy"))
        )
    frames = written(terminal).split("\x1b[?25h", maxsplit=1)[0].split("\x1b[2K")
    assert all(len(frame.splitlines()) <= 24 for frame in frames)
    assert "… and 184 asked" in written(terminal)
    assert "waiting for web1 (deploy" in written(terminal)


def test_a_wide_window_has_a_column_for_each_step() -> None:
    wide = Console(file=io.StringIO(), force_terminal=True, width=160, height=24, color_system=None)
    plan = plan_of(2)
    with LiveRollout(plan, wide) as display:
        display.changed(model_of(plan, {"web1": ASKED}, outstanding={"web1": "deploy"}))
        display.progressed(progress(step="export", number=0))
        display.progressed(progress(step="export", state="done", number=1, seconds=2.0))
        display.progressed(progress(step="[pre-deploy]", number=2))
    lines = [line.rpartition("\x1b[2K")[2].split() for line in written(wide).splitlines()]
    heading, row = [words for words in lines if words[:1] in (["NODE"], ["web1"])][-2:]
    assert heading == ["NODE", "BATCH", "export", "[pre-deploy]", "STATE", "OUTPUT"]
    assert row[:6] == ["web1", "canary", "✓", "2.0", "s", "●"]


def test_the_last_picture_of_a_large_fleet_has_those_that_failed_alone(terminal: Console) -> None:
    plan = plan_of(200, batch="50%")
    states = {str(node): NodeStatus(state="active", phase="deploy") for node in names(200)}
    states["web77"] = NodeStatus(state="failed", phase="deploy", detail="no space left")
    end = model_of(plan, states, state="failed", stage=2)
    with LiveRollout(plan, terminal) as display:
        display.changed(end)
        before = len(written(terminal))
        display.ended(summarize(plan, end, display.view))
    kept = written(terminal)[before:]
    assert kept.count("web77") == 2
    assert "… and 199 active" in kept
    assert "deploykit rollout show" in kept
    assert "--list active | deploykit rollback shop --nodes -" in kept


def test_a_summary_tells_failed_silent_and_not_believed_apart() -> None:
    plan = plan_of(4)
    model = model_of(
        plan,
        {
            "web1": NodeStatus(state="refused", phase="prepare", detail="the site is locked"),
            "web2": NodeStatus(state="silent", phase="prepare"),
            "web3": NodeStatus(state="failed", phase="activate", detail="post-deploy ended with exit code 1"),
        },
        state="failed",
    )
    lines = list(summary_lines(summarize(plan, model)))
    assert any(line.split()[:3] == ["refused", "web1", "prepare:"] for line in lines)
    assert any(line.split()[:3] == ["silent", "web2", "prepare:"] for line in lines)
    assert any(line.split()[:3] == ["failed", "web3", "activate:"] for line in lines)
    assert "to try those that failed, refused or were silent once more:" in lines


def test_what_had_the_release_before_is_not_told_to_be_taken_back() -> None:
    plan = plan_of(2)
    old = Target(ref=RefName("refs/tags/v1.0"), commit=ObjectId("cd" * 20))
    states = {
        "web1": NodeStatus(state="active", phase="activate", previous=old),
        "web2": NodeStatus(state="active", phase="activate", previous=TARGET),
    }
    lines = list(summary_lines(summarize(plan, model_of(plan, states, state="aborted"))))
    assert lines[-1] == "  deploykit rollback shop -I web1"


def test_after_a_later_rollout_nothing_of_the_older_one_is_to_be_taken_back_or_tried_again() -> None:
    plan = plan_of(2)
    states = {
        "web1": NodeStatus(state="active", phase="activate"),
        "web2": NodeStatus(state="failed", phase="activate", detail="post-deploy ended with exit code 1"),
    }
    summary = summarize(plan, model_of(plan, states, state="failed"), later="shop-20260201-0900-aaaa")
    lines = "\n".join(summary_lines(summary))
    assert "deploykit status --all --site shop" in lines
    assert "rollback" not in lines
    assert "retry" not in lines


def test_nothing_is_left_to_do_after_a_success() -> None:
    plan = plan_of(2)
    active = NodeStatus(state="active", phase="deploy")
    model: RolloutModel = model_of(plan, {"web1": active, "web2": active}, state="succeeded")
    (line,) = summary_lines(summarize(plan, model))
    assert line == f"rollout {plan.rollout} succeeded (2 active)"


def test_a_way_back_to_several_releases_lists_who_goes_where() -> None:
    old = Target(ref=RefName("refs/tags/v1.0"), commit=ObjectId("cd" * 20))
    targets = {NodeName("web1"): TARGET, NodeName("web2"): old}
    plan = make_plan(site=SHOP, nodes=targets, target=targets, kind="rollback")
    lines = list(plan_lines(plan))
    assert "goes back to 2 different releases on 2 nodes" in lines[0]
    assert "  v1.2 (abababababab): web1" in lines
    assert "  v1.0 (cdcdcdcdcdcd): web2" in lines
    assert "prepared" not in lines[-1]


def test_a_plan_shows_its_quorum_and_the_seed_that_makes_its_order_again() -> None:
    options = RolloutOptions(order="random", quorum=Amount.parse("50%"))
    plan = make_plan(site=SHOP, nodes=names(3), target=TARGET, options=options)
    rules = list(plan_lines(plan))[-1]
    assert "at least 2 of them before the first is activated" in rules
    assert f"--seed {plan.options.seed};" in rules


def test_nodes_that_refused_for_one_lock_share_a_line() -> None:
    plan = plan_of(41)
    locked = "site shop is locked by ann (key SHA256:x) until 2026-03-01 13:00 UTC: stocktaking"
    states = {str(node): NodeStatus(state="refused", phase="prepare", detail=locked) for node in names(40)}
    states["web41"] = NodeStatus(state="refused", phase="prepare", detail="no build")
    lines = list(summary_lines(summarize(plan, model_of(plan, states, state="failed"))))
    assert lines[1] == "  refused  40 nodes: web[1-40]"
    assert lines[2] == f"           prepare: {locked}"
    assert lines[3].split() == ["refused", "web41", "prepare:", "no", "build"]
    assert "when the reason why they refused is gone" in lines[4]
