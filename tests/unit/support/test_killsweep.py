"""The sweep tool finds what it is for, and fails when it did nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.killsweep import Run, error_sweep, kill_sweep, sample_size
from tests.support.processes import wait_gone
from tests.support.straceparse import Point, draw, meant, points_in

WHOLE = "x" * 100


def writer(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", f"import os, sys\n{code}"]


def careful(target: Path) -> list[str]:
    return writer(
        f"fd = os.open('{target}.tmp', os.O_WRONLY | os.O_CREAT)\n"
        f"os.write(fd, b'{WHOLE}'); os.fsync(fd); os.rename('{target}.tmp', '{target}')"
    )


def careless(target: Path) -> list[str]:
    return writer(
        f"fd = os.open('{target}', os.O_WRONLY | os.O_CREAT)\n"
        f"os.write(fd, b'{WHOLE[:50]}')\nos.write(fd, b'{WHOLE[50:]}')"
    )


class Place:
    """A directory that is empty before each run, and must hold the whole file or nothing after it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.target = root / "file"

    def prepare(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()

    def check(self, run: Run) -> None:
        assert not self.target.exists() or self.target.read_text() == WHOLE, "torn"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "place")


def test_a_write_that_is_whole_at_any_instant_passes_and_each_run_died_at_a_point_of_its_own(place: Place) -> None:
    report = kill_sweep(careful(place.target), roots=[place.root], prepare=place.prepare, check=place.check, sample=99)
    assert [p.call for p in report.hit] == ["openat", "write", "fsync", "rename"]
    assert report.distinct == 4
    assert not report.missed


def test_a_write_that_can_be_cut_in_two_is_found(place: Place) -> None:
    with pytest.raises(AssertionError, match=r"FAILED at write#2 .*torn"):
        kill_sweep(careless(place.target), roots=[place.root], prepare=place.prepare, check=place.check, sample=99)


def test_a_sweep_without_a_single_point_fails(place: Place) -> None:
    with pytest.raises(AssertionError, match="no call of the command touches"):
        kill_sweep(writer("pass"), roots=[place.root], prepare=place.prepare, check=place.check)


def test_a_point_that_no_run_reaches_is_not_counted_as_a_kill(place: Place) -> None:
    # Only the first run, the recorded one, writes: the others find the mark and do nothing.
    mark = place.root.parent / "mark"
    once = writer(f"if not os.path.exists('{mark}'):\n os.mkdir('{mark}'); os.mkdir('{place.root}/d')")
    with pytest.raises(AssertionError, match="0 distinct points hit"):
        kill_sweep(once, roots=[place.root], prepare=place.prepare, check=place.check, sample=99)


def test_a_kind_of_call_at_which_no_run_died_counts_as_missed(place: Place) -> None:
    # The recorded run makes `a`, then `b`; every other one makes `a` twice, so nothing dies at `b`.
    mark = place.root.parent / "mark"
    name = f"'b' if not os.path.exists('{mark}') else 'a2'"
    code = writer(f"second = {name}\nos.mkdir('{place.root}/a'); os.mkdir('{place.root}/' + second)\n"
                  f"os.path.exists('{mark}') or os.mkdir('{mark}')")  # fmt: skip
    with pytest.raises(AssertionError, match=r"1 kinds missed(?s:.*)/b"):
        kill_sweep(code, roots=[place.root], prepare=place.prepare, check=place.check, sample=99)


def test_a_child_that_dies_is_told_from_the_command_itself(place: Place) -> None:
    parent = writer(
        f"pid = os.fork()\nif not pid:\n os.mkdir('{place.root}/child'); os._exit(0)\n"
        f"os.waitpid(pid, 0); os.rmdir('{place.root}/child') if os.path.isdir('{place.root}/child') else None"
    )
    report = kill_sweep(parent, roots=[place.root], prepare=place.prepare, check=place.check, sample=99)
    assert [p.call for p in report.child_hit] == ["mkdir"]
    assert [p.call for p in report.hit] == ["rmdir"]


def test_what_a_killed_command_leaves_running_is_ended(place: Place, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    parent = writer(
        "import subprocess\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        f"open('{pidfile}', 'w').write(str(p.pid))\nos.mkdir('{place.root}/d')\np.kill(); p.wait()"
    )
    ended = []

    def check(run: Run) -> None:
        wait_gone(int(pidfile.read_text()))
        ended.append(run)

    kill_sweep(parent, roots=[place.root], prepare=place.prepare, check=check, calls=("mkdir",), sample=99)
    assert len(ended) == 2


def test_an_error_sweep_injects_the_error_and_lets_the_command_live(place: Place) -> None:
    seen: list[int] = []

    def check(run: Run) -> None:
        place.check(run)
        if run.injected:
            seen.append(run.returncode)
            assert "No space left" in run.stderr

    report = error_sweep(careful(place.target), roots=[place.root], prepare=place.prepare, check=check, sample=99)
    assert [p.call for p in report.hit] == ["openat", "write", "rename"]
    assert seen == [1, 1, 1]


def test_an_error_at_a_call_that_no_full_disk_makes_fail_is_not_judged(place: Place, tmp_path: Path) -> None:
    """A thread may open one file more than in the recording; the error then meets a module, or nothing."""
    # Each run but the recorded one reads a file first, so that the number of the call that creates is another's.
    mark = tmp_path / "mark"
    code = (
        f"if os.path.exists('{mark}'):\n os.close(os.open('{mark}', os.O_RDONLY))\n"
        f"else:\n os.mkdir('{mark}')\n"
        f"os.close(os.open('{place.target}', os.O_WRONLY | os.O_CREAT))"
    )
    met: list[Run] = []

    def check(run: Run) -> None:
        met.append(run)
        assert not run.injected or str(place.target) in run.stderr, "an error where there can be none"

    sweep = {"roots": [place.root], "prepare": place.prepare, "check": check, "calls": ("openat",), "sample": 99}
    report = error_sweep(writer(code), **sweep)  # type: ignore[arg-type]
    assert [run.injected for run in met] == [False, True], "the undisturbed run, and the one try that met the call"
    assert not report.missed


def test_an_injected_error_is_known_by_its_call_where_strace_writes_it_in_two_lines() -> None:
    created = '8 openat(AT_FDCWD</root>, "a", O_WRONLY|O_CREAT, 0600 <unfinished ...>'
    read = '8 openat(AT_FDCWD</lib>, "m.so", O_RDONLY <unfinished ...>'
    other = '7 openat(AT_FDCWD</root>, "b", O_WRONLY|O_CREAT, 0600) = 4'
    failed = "8 <... openat resumed>) = -1 ENOSPC (No space left on device) (INJECTED)"
    assert meant("\n".join([created, other, failed]), ["/root"])
    assert not meant("\n".join([read, other, failed]), ["/root"])
    assert not meant("\n".join([created, other]), ["/root"])


def test_modules_that_are_not_compiled_yet_shift_no_point(place: Place, tmp_path: Path) -> None:
    """What `check` runs compiles them, as whoever else does meanwhile: later runs would open fewer files."""
    modules = tmp_path / "modules"
    modules.mkdir()
    for n in range(9):
        (modules / f"uncompiled{n}.py").write_text(f"X = {n}\n")
    code = (
        f"sys.path.insert(0, '{modules}')\nimport {', '.join(f'uncompiled{n}' for n in range(9))}\n"
        f"os.close(os.open('{place.root}/first', os.O_WRONLY | os.O_CREAT))\n"
        f"os.close(os.open('{place.root}/second', os.O_WRONLY | os.O_CREAT))"
    )
    env = {key: text for key, text in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    disturbed: list[str] = []

    def check(run: Run) -> None:
        if run.point is not None:
            disturbed.append("first" if not (place.root / "first").exists() else "second")
        subprocess.run(writer(code), check=True, env=env, timeout=60)

    sweep = {"roots": [place.root], "prepare": place.prepare, "check": check, "calls": ("openat",), "sample": 99}
    report = error_sweep(writer(code), env=env, **sweep)  # type: ignore[arg-type]
    assert report.points == 2
    assert disturbed == ["first", "second"], "each run was disturbed at its own call, and at the first try"
    assert not report.missed


def test_points_are_numbered_as_each_thread_counts_its_own_calls() -> None:
    trace = "\n".join(
        [
            '7 openat(AT_FDCWD</other>, "x", O_RDONLY) = 3',
            '8 openat(AT_FDCWD</root>, "a", O_WRONLY|O_CREAT, 0600 <unfinished ...>',
            '7 openat(AT_FDCWD</root>, "b", O_WRONLY|O_CREAT, 0600) = 4',
            "8 <... openat resumed>) = 3</root/a>",
            '7 write(4</root/b>, ""..., 3) = 3',
            '7 write(5<socket:[1]>, ""..., 3) = 3',
            '7 openat(AT_FDCWD</root>, "b", O_RDONLY) = 4',
            '7 unlink("/root/gone") = -1 ENOENT (No such file or directory)',
        ]
    )
    without = {(p.call, p.nth) for p in points_in(trace, ["/root"], network=False)}
    assert without == {("openat", 1), ("openat", 2), ("write", 1)}
    with_network = {(p.call, p.nth) for p in points_in(trace, ["/root"], network=True)}
    assert with_network == without | {("write", 2)}


def test_a_sample_is_reproducible_keeps_order_and_takes_each_kind_of_call() -> None:
    points = [Point(call=call, nth=n, line="") for n in range(1, 50) for call in ("write", "fsync", "rename")]
    drawn = draw(points, 10, seed=3)
    assert drawn == draw(points, 10, seed=3) != draw(points, 10, seed=4)
    assert drawn == sorted(drawn, key=points.index)
    assert {p.call for p in drawn} == {"write", "fsync", "rename"}
    assert draw(points, None, seed=3) == points


@pytest.mark.parametrize(
    ("variables", "costly", "cheap"),
    [
        ({}, 3, None),
        ({"SAMPLE": "6"}, 3, 6),
        ({"SAMPLE": "2"}, 2, 2),
        ({"SAMPLE": "all"}, None, None),
        ({"SAMPLE": "2", "FULL": "1"}, None, None),
    ],
)
def test_a_sample_is_never_larger_than_a_test_wants_it_unless_all_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], costly: int | None, cheap: int | None
) -> None:
    for short, name in (("SAMPLE", "DEPLOYKIT_SWEEP_SAMPLE"), ("FULL", "DEPLOYKIT_FULL_SWEEP")):
        monkeypatch.delenv(name, raising=False)
        if short in variables:
            monkeypatch.setenv(name, variables[short])
    assert (sample_size(3), sample_size()) == (costly, cheap)
