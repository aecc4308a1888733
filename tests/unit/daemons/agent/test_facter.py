"""facter as a program: found without a shell, bounded in time and output, whatever it does."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from deploykit.daemons.agent import facter
from deploykit.daemons.agent.facter import find_facter, run_facter
from deploykit.errors import FactsError


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where facter is; the test writes it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(facter, "_ALSO_IN", "/usr/bin:/bin")
    return tmp_path / "facter"


def write(program: Path, *lines: str) -> None:
    program.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
    program.chmod(0o755)


def test_its_facts_are_returned_and_it_gets_no_secrets_of_our_environment(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPLOYKIT_PASSCODE", "canary")
    monkeypatch.setenv("LD_PRELOAD", "")
    write(
        program,
        'test "$1" = --json || exit 9',
        'printf \'{"os": {"name": "%s"}, "env": "%s"}\' Debian "$(env | wc -l)"',
    )
    found = run_facter()
    assert found["os"] == {"name": "Debian"}
    write(program, "printf '{\"env\": \"'; env | tr '\\n' ' '; printf '\"}'")
    assert "canary" not in str(run_facter()["env"])
    assert "LD_PRELOAD" not in str(run_facter()["env"])


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["echo broken >&2", "exit 3"], "broken"),
        (["kill -9 $$"], "failed"),
        (["head -c 3000000 /dev/zero"], "more than"),
        (["echo '[1]'"], "printed no facts"),
        (["echo nonsense"], "printed no facts"),
        (["printf '\\377'"], "printed no facts"),
        (["exit 0"], "printed no facts"),
    ],
)
def test_what_fails_is_a_problem_line(program: Path, lines: list[str], says: str) -> None:
    write(program, *lines)
    with pytest.raises(FactsError, match=says) as failed:
        run_facter()
    assert str(failed.value).isprintable()


@pytest.mark.parametrize(
    "lines",
    [["sleep 60"], ["sleep 60 &", "exec 1>&-", "wait"], ["(trap '' TERM; sleep 60) &", "cat /dev/zero >/dev/null"]],
)
def test_one_that_does_not_end_is_killed_with_its_children(program: Path, lines: list[str]) -> None:
    write(program, *lines)
    began = time.monotonic()
    with pytest.raises(FactsError, match=r"no answer within 0\.3 s"):
        run_facter(deadline=0.3)
    assert time.monotonic() - began < 30


def test_without_facter_the_error_says_what_to_do(program: Path) -> None:
    for search in (find_facter, run_facter):
        with pytest.raises(FactsError, match=r"facter is not on PATH.*facter = false"):
            search()


def test_too_few_descriptors_are_a_problem_of_its_own(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(program, "echo '{}'")

    def none_left() -> tuple[int, int]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pipe", none_left)
    with pytest.raises(FactsError, match="Too many open files"):
        run_facter()
