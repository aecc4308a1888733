"""`deploykit approve` at a terminal: a person reads, is warned, and answers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploykit.operations.mandatefiles import blobs_of
from deploykit.operations.proposals import read_proposal
from tests.support.approving import ApprovalWorld
from tests.support.cli import command
from tests.support.terminal import TerminalProgram


@pytest.mark.parametrize(
    ("name", "answer", "code", "signatures"),
    [("ann", "y\n", 0, 1), ("eve", "n\n", 1, 0)],
)
def test_nothing_is_signed_without_a_yes(tmp_path: Path, name: str, answer: str, code: int, signatures: int) -> None:
    world = ApprovalWorld(tmp_path)
    path = world.proposed().path
    argv = command("approve", "shop-1", "--key", str(world.root / name), "--config", str(world.config))
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    with TerminalProgram(argv, env=env, cwd=tmp_path, columns=200, rows=60) as program:
        text = program.until(lambda shown: "[y/N]" in shown, "the question")
        assert "nodes      3 nodes: web[1-3]" in text
        assert f"Sign exactly this with key {world.keys[name].fingerprint}?" in text
        assert ("no grant for rollout.approved fits it" in text) == (name == "eve")
        program.press(answer)
        assert program.end() == code
        assert ("deploykit: nothing was signed" in program.screen.text) == (answer == "n\n")
    assert len(blobs_of(read_proposal(path).mandate)) == signatures
