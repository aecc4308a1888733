"""A package manager's program: what it gets, and that nothing of it is left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from deploykit.daemons.packages.program import missing_program, run_program, shown
from deploykit.errors import PackageError
from tests.support.processes import wait_gone
from tests.support.wait import wait_until


def _sh(script: str, *words: str) -> list[str]:
    return ["sh", "-c", script, "sh", *words]


def _pid(file: Path) -> int:
    return int(wait_until(lambda: file.exists() and file.read_text().strip(), "a process's number"))


def test_both_outputs_and_the_code() -> None:
    result = run_program(_sh("echo out; echo err >&2; exit 3"))
    assert (result.code, result.output, result.errors, result.whole) == (3, "out\n", "err\n", True)
    assert result.how == "ended with 3"
    assert run_program(_sh("kill -9 $$")).how == "was killed by signal 9"


def test_it_gets_no_variable_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("APT_CONFIG", "DEBIAN_FRONTEND", "http_proxy", "LD_PRELOAD", "DPKG_ADMINDIR", "HOME", "LANG"):
        monkeypatch.setenv(name, "/tmp/hostile")
    result = run_program(["env"], environment={"APT_CONFIG": "/x"})
    assert sorted(result.output.splitlines()) == [
        "APT_CONFIG=/x",
        "LC_ALL=C",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ]


def test_its_input_is_empty_and_its_directory_is_the_root() -> None:
    assert run_program(_sh("cat; pwd")).output == "/\n"


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(PackageError, match="cannot run deploykit-nothing: No such file or directory"):
        run_program(["deploykit-nothing"])
    assert missing_program(["sh", "deploykit-nothing", "x"]) == "deploykit-nothing"
    assert missing_program(["sh"]) == ""
    assert missing_program(["sh"], {"PATH": "/nowhere"}) == "sh"


def test_at_its_deadline_it_is_killed_with_all_it_started(tmp_path: Path) -> None:
    """A shell that waits for a child: both hold the pipes, and the child ignores every polite signal."""
    script = 'trap "" TERM INT HUP; sh -c "echo \\$\\$ > $1; exec sleep 600" & echo before; wait'
    result = run_program(_sh(script, str(tmp_path / "pid")), seconds=1)
    assert (result.code, result.output) == (None, "before\n")
    assert result.how == "was killed at its deadline"
    wait_gone(_pid(tmp_path / "pid"))


def test_a_child_that_keeps_the_pipe_costs_no_time_and_is_not_left(tmp_path: Path) -> None:
    script = (
        '(echo $$ > /dev/null; sh -c "echo \\$\\$ > $1; exec sleep 600") & while [ ! -s "$1" ]; do :; done; echo out'
    )
    result = run_program(_sh(script, str(tmp_path / "pid")), seconds=600)
    assert (result.code, result.output) == (0, "out\n")
    wait_gone(_pid(tmp_path / "pid"))


def test_a_child_that_left_the_group_does_not_hold_us(tmp_path: Path) -> None:
    """It may live on, as a service that a hook of apt starts; it holds our pipe all the same."""
    script = 'setsid sh -c "echo \\$\\$ > $1; exec sleep 600" & while [ ! -s "$1" ]; do :; done; echo out'
    result = run_program(_sh(script, str(tmp_path / "pid")), seconds=600)
    assert (result.code, result.output) == (0, "out\n")
    os.kill(_pid(tmp_path / "pid"), signal.SIGKILL)


def test_closing_its_outputs_is_not_the_end() -> None:
    result = run_program(_sh("exec >&- 2>&-; sleep 600"), seconds=1)
    assert result.code is None


def test_a_flood_is_cut_and_the_program_goes_on() -> None:
    result = run_program(_sh("head -c 3000000 /dev/zero | tr '\\0' x; echo end >&2; exit 7"), limit=1000)
    assert (result.code, result.output, result.errors, result.whole) == (7, "x" * 1000, "end\n", False)
    exact = run_program(_sh("head -c 1000 /dev/zero | tr '\\0' x"), limit=1000)
    assert (len(exact.output), exact.whole) == (1000, True)


@pytest.mark.parametrize("where", ["", " >&2"])
def test_more_than_enough_is_its_end(where: str) -> None:
    result = run_program(_sh(f"yes{where}"), limit=1000, enough=True)
    assert (result.code, result.whole, result.how) == (None, False, "printed too much")


def test_what_is_not_utf8_is_shown_all_the_same() -> None:
    assert run_program(_sh("printf 'a\\377b'")).output == "a\ufffdb"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("E: http://u:p@h/x", "E: http://***@h/x"),
        ("E: 'https://u:p@ss@h/x' and ftp://tok@g", "E: 'https://***@h/x' and ftp://***@g"),
        ("http://u:pa/ss@h/", "http://***@h/"),
        ("http://h/x?key=1&b=2 404", "http://h/x?*** 404"),
        ("what? no@body", "what? no@body"),
        ("a\nb\x1b[31m\tc", "a b [31m c"),
    ],
)
def test_what_is_shown(text: str, expected: str) -> None:
    assert shown(text) == expected
