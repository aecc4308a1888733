"""Programs that a hook starts: none can make a push wait, whatever it does with its input, its output and its end."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path
from time import monotonic

import pytest

from deploykit.errors import HookError
from deploykit.hooking import process
from deploykit.hooking.process import NoAnswer, Program, child_environment, find_program, run_program
from tests.support.processes import wait_gone
from tests.support.wait import wait_until

ENV = {"PATH": "/usr/bin:/bin"}


def soon(seconds: float = 0.3) -> float:
    return monotonic() + seconds


def sh(script: str, *, deadline: float | None = None, talk: bool = False) -> Program:
    return Program(("sh", "-c", script), env=ENV, deadline=deadline or soon(60), stdin=None if talk else b"")


@pytest.fixture
def narrow_pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pipes of one page, as the kernel gives them to a user who has many (pipe-user-pages-soft in pipe(7))."""
    real = os.pipe

    def pipe() -> tuple[int, int]:
        ends = real()
        fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, 4096)
        return ends

    monkeypatch.setattr(os, "pipe", pipe)


@pytest.mark.usefixtures("narrow_pipes")
def test_a_long_conversation_over_narrow_pipes_ends() -> None:
    """Each side writes more than the pipes hold: neither may wait for the other before it reads."""
    asked = [f"{number:040x}" for number in range(5_000)]
    answer = 'while read -r id; do printf "%s blob 2000\\n%2000s\\n" "$id" x; done'
    with sh(answer, talk=True) as program:
        told = program.ask(asked)
    assert [oid for oid, _, _ in told] == asked
    assert {len(body) for _, _, body in told} == {2000}


@pytest.mark.usefixtures("narrow_pipes")
def test_a_program_that_reads_nothing_is_ended_at_its_deadline() -> None:
    with sh("exec sleep 600", deadline=soon(), talk=True) as program:
        with pytest.raises(NoAnswer, match="took too long"):
            program.ask(["0" * 40] * 5_000)
        assert program._code == -signal.SIGKILL


@pytest.mark.parametrize("does", ["exec >&-; exec sleep 600", "exec >&- 2>&-; trap '' TERM; while :; do sleep 1; done"])
def test_a_program_that_closes_its_output_and_goes_on_is_ended_at_its_deadline(does: str) -> None:
    began = monotonic()
    with sh(does, deadline=soon()) as program, pytest.raises(NoAnswer, match="took too long"):
        program.output(1000)
    assert monotonic() - began < 30


def test_the_children_of_a_program_end_with_it(tmp_path: Path) -> None:
    """Else a wrapper's child would hold the pusher's connection, or go on for ever."""
    note = tmp_path / "pid"
    script = f"sleep 600 & echo $! > {note}; wait"
    with sh(script) as program:
        wait_until(lambda: note.exists() and note.read_text().strip() != "", "the child's number", 60)
        assert program._code is None
    child = int(note.read_text())
    wait_gone(child)


def test_a_program_that_cannot_be_killed_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that hangs in the kernel (a dead network disk) dies of no signal: the push goes on without it."""
    monkeypatch.setattr(process, "_DYING", 0.05)
    spared: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda pid, _: spared.append(pid))
    began = monotonic()
    with sh("exec sleep 60", deadline=soon()) as program, pytest.raises(NoAnswer):
        program.output(10)
    assert monotonic() - began < 30
    monkeypatch.undo()
    (pid,) = spared
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("does", "says"),
    [
        ("exit 3", r"failed \(3\): it gave no reason"),
        ("exec yes", "printed more than 999 bytes"),
        ("echo first >&2; echo second >&2; exit 1", r"failed \(1\): first$"),
        ("kill -9 $$", r"failed \(-9\)"),
    ],
)
def test_what_went_wrong_is_said(does: str, says: str) -> None:
    with pytest.raises(HookError, match=says):
        run_program(("sh", "-c", does), env=ENV, deadline=soon(60), limit=999)


def test_a_program_that_cannot_be_started_leaves_nothing_open(tmp_path: Path) -> None:
    broken = tmp_path / "git"
    broken.write_text("#!/nonexistent/interpreter\n")
    broken.chmod(0o755)
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - numbers of descriptors, no paths
    for _ in range(3):
        with pytest.raises(HookError, match="cannot start"):
            Program(("git",), env={"PATH": str(tmp_path)}, deadline=soon(60))
    assert set(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208 - as above


def test_input_of_any_size_reaches_a_program() -> None:
    data = os.urandom(1 << 20)
    assert run_program(("cat",), env=ENV, deadline=soon(60), stdin=data) == data


def test_programs_are_looked_for_in_absolute_places_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threat 34."""
    (tmp_path / "git").write_text("#!/bin/sh\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    env = child_environment({"PATH": ".::relative"}, {})
    assert env["PATH"] == process.DEFAULT_PATH
    assert find_program("sh", env).startswith("/")
    with pytest.raises(NoAnswer):
        find_program("git", {"PATH": ".:relative"})


def test_an_empty_environment_still_finds_what_the_administrator_installed() -> None:
    assert "/usr/local/bin" in child_environment({}, {})["PATH"].split(":")
