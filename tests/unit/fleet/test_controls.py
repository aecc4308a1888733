"""Requests of other processes to a rollout are durable files, in their order, each carried out once."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from deploykit.errors import RolloutError
from deploykit.fleet import controls
from deploykit.fleet.controls import ControlRequest


def test_requests_wait_in_their_order_until_they_are_removed(tmp_path: Path) -> None:
    asked = [
        controls.ask(tmp_path, ControlRequest(kind="pause", by="ada")),
        controls.ask(tmp_path, ControlRequest(kind="abort", by="bob", rollback=True)),
    ]
    assert list(controls.waiting(tmp_path)) == asked
    controls.remove(tmp_path, asked[0])
    controls.remove(tmp_path, asked[0])  # another process was quicker
    assert list(controls.waiting(tmp_path)) == asked[1:]
    assert controls.waiting(tmp_path)[0].rollback


def test_nobody_has_asked_where_there_is_no_directory(tmp_path: Path) -> None:
    assert controls.waiting(tmp_path / "none") == ()


def test_files_are_private(tmp_path: Path) -> None:
    asked = controls.ask(tmp_path, ControlRequest(kind="pause", by="ada"))
    assert stat.S_IMODE((tmp_path / "control" / asked.name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "control").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 2, "kind": "pause", "by": "x", "rollback": false}',
        '{"version": 1, "kind": "x"}',
        "[" * 9000,
    ],
)
def test_what_is_no_request_is_set_aside(tmp_path: Path, text: str) -> None:
    asked = controls.ask(tmp_path, ControlRequest(kind="pause", by="ada"))
    (tmp_path / "control" / asked.name).write_text(text)
    assert controls.waiting(tmp_path) == ()
    assert (tmp_path / "control" / f"{asked.name}.bad").exists()


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    controls.ask(tmp_path, ControlRequest(kind="pause", by="ada"))
    for name in ("x.json", f"{'0' * 20}-00000000.json.new"):
        (tmp_path / "control" / name).write_text("no")
    assert len(controls.waiting(tmp_path)) == 1


def test_a_request_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "control").touch()
    with pytest.raises(RolloutError, match="cannot be written"):
        controls.ask(tmp_path, ControlRequest(kind="pause", by="ada"))


@pytest.mark.parametrize("by", ["\ud800", "\x1b[31m\nred", "x" * 3000])
def test_who_asks_is_a_text_that_a_message_can_carry(tmp_path: Path, by: str) -> None:
    asked = controls.ask(tmp_path, ControlRequest(kind="abort", by="ada"))
    content = {"version": 1, "kind": "abort", "by": by, "rollback": False}
    (tmp_path / "control" / asked.name).write_text(json.dumps(content))
    [request] = controls.waiting(tmp_path)
    assert request.by.isprintable()
    assert len(request.by) <= 300


def test_a_pipe_in_the_place_of_a_request_holds_nobody_up(tmp_path: Path) -> None:
    asked = controls.ask(tmp_path, ControlRequest(kind="pause", by="ada"))
    path = tmp_path / "control" / asked.name
    path.unlink()
    os.mkfifo(path)
    assert controls.waiting(tmp_path) == ()
