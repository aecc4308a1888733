"""A few seconds of chaos find nothing; and a run that is broken on purpose fails, and keeps its books.

Of the schedules themselves tests/property/bus/test_books.py runs many; `nox -s chaos` runs long ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

#: A run starts interpreters one after the other: more than a minute where others keep the machine busy.
pytestmark = pytest.mark.timeout(660)

_QUICK = ("--seconds", "3", "--seed", "11", "--rate", "80")
#: What takes longer than these seconds, and has tests of its own.
_WITHOUT = ("addresses", "stranger", "full-disk")


def run(*words: str, books: Path) -> subprocess.CompletedProcess[str]:
    without = [word for name in _WITHOUT for word in ("--without", name)]
    return subprocess.run(
        [sys.executable, "-m", "tests.chaos", *words, *_QUICK, *without, "--books", str(books)],
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize("scenario", ["bus-embedded", "relay-embedded"])
def test_a_few_seconds_of_chaos_lose_nothing(scenario: str, tmp_path: Path) -> None:
    done = run(scenario, books=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WRONG" not in done.stdout
    assert list(tmp_path.iterdir()) == [], "books of a run that went well go"
    heads, values = (line.split() for line in done.stdout.splitlines()[-2:])
    line = dict(zip(heads, values, strict=True))
    # How many come about in three seconds is the machine's matter.
    assert int(line["confirmed"]) > 20
    assert int(line["received"]) > 20
    assert int(line["faults"]) > 0


@pytest.mark.parametrize(
    ("scenario", "sabotage", "says"),
    [
        ("bus-embedded", "lose", "topic-observer never got "),
        ("relay-embedded", "steal", "never got writer-"),
    ],
)
def test_a_run_that_is_broken_on_purpose_fails_and_keeps_its_books(
    scenario: str, sabotage: str, says: str, tmp_path: Path
) -> None:
    done = run(scenario, "--settle", "8", "--sabotage", sabotage, books=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "--seed 11 --rate 80 --settle 8 --without " in done.stdout
    assert f"--sabotage {sabotage}" in done.stdout
    (kept,) = tmp_path.iterdir()
    report = json.loads((kept / "report.json").read_text())
    assert [line for line in report["violations"] if says in line]
    assert says in done.stdout
    assert (kept / "history.jsonl").stat().st_size > 0
    if os.geteuid() == 0:
        assert not (kept / "disk" / "spool").exists(), "the small disk is gone"
