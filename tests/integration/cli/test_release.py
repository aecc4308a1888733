"""`deploykit release`, as a user runs it: a process of its own."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from deploykit.cli.release_output import DeployDisplay
from deploykit.release import StepRecord
from tests.support.cli import command, run, run_here
from tests.support.gitrepo import contents
from tests.support.releasing import Shop, script


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path)
    say = script("echo hello from $DEPLOYKIT_STEP", "printf 'evil \\033[2J\\n' >&2")
    for n in (1, 2, 3):
        shop.commit({"a": b"%d" % n, "deploy/pre-deploy": say})
    return shop


def _deploy(shop: Shop, tag: str, *words: str) -> subprocess.CompletedProcess[str]:
    return run("release", "deploy", str(shop.path), "--mirror", str(shop.repo.path), "--ref", tag, *words)


def test_deploy_list_show_rollback_verify_pin(shop: Shop) -> None:
    done = _deploy(shop, "v1")
    assert done.returncode == 0, done.stderr
    assert "    hello from pre-deploy" in done.stdout.splitlines()
    assert "    evil \\x1b[2J" in done.stdout.splitlines(), "a script cannot speak to the terminal"
    assert done.stdout.splitlines()[-1] == f"success {shop.live().name}"
    assert _deploy(shop, "v2").returncode == 0
    listed = run_here("release", "list", str(shop.path)).stdout.splitlines()
    assert listed[0].split() == ["release", "tag", "commit", "when", "by", "status"]
    assert [line.split()[0] for line in listed[1:]] == ["1", "*"]
    found = json.loads(run_here("release", "list", str(shop.path), "--json").stdout)
    assert [(r["tag"], r["current"], r["status"]) for r in found] == [("v1", False, "good"), ("v2", True, "good")]
    shown = run_here("release", "show", str(shop.path), "v1").stdout
    assert "      hello from pre-deploy" in shown.splitlines()
    assert "\x1b" not in shown
    assert json.loads(run_here("release", "show", str(shop.path), "--json").stdout)["tag"] == "v2"
    assert run_here("release", "verify", str(shop.path)).stdout == "as deployed\n"
    (shop.path / "current" / "a").write_text("edited")
    edited = run_here("release", "verify", str(shop.path))
    assert (edited.returncode, edited.stdout) == (1, "modified a\n1 difference\n")
    assert json.loads(run_here("release", "verify", str(shop.path), "--json").stdout)["modified"] == ["a"]
    assert run("release", "rollback", str(shop.path), "--dry-run").stdout.startswith("instant: ")
    assert run("release", "rollback", str(shop.path)).returncode == 0
    assert shop.read("a") == "1"
    again = run("release", "rollback", str(shop.path))
    assert again.returncode == 1
    assert "no earlier good release" in again.stderr
    assert run_here("release", "pin", str(shop.path), "v1").stdout.endswith("is pinned\n")
    assert "good, pinned" in run_here("release", "list", str(shop.path)).stdout


def test_a_dry_run_touches_nothing(shop: Shop) -> None:
    done = _deploy(shop, "v1", "--dry-run")
    assert done.returncode == 0
    assert "  + a" in done.stdout.splitlines()
    assert done.stdout.splitlines()[-1] == "2 added, 0 changed, 0 removed"
    assert not shop.path.exists()
    _deploy(shop, "v1")
    before = contents(shop.path)
    assert json.loads(_deploy(shop, "v2", "--dry-run", "--json").stdout)["changed"] == ["a"]
    assert _deploy(shop, "v1", "--dry-run").stdout == "v1 is live already: nothing to do\n"
    assert contents(shop.path) == before


def test_json_is_one_document_and_nothing_else(shop: Shop) -> None:
    said = json.loads(_deploy(shop, "v1", "--json").stdout)
    assert (said["outcome"], said["release"]) == ("success", shop.live().name)
    assert [s["name"] for s in said["steps"]][:3] == ["preflight", "export", "pre-deploy"]


def test_json_is_json_whatever_a_file_is_called(shop: Shop) -> None:
    shop.repo.commit({"a": b"1", b"caf\xe9": b"latin 1"}, tag="odd")
    for encoding in ("utf-8:strict", "utf-8:surrogateescape"):
        words = ("--mirror", str(shop.repo.path), "--ref", "odd", "--dry-run", "--json")
        done = run("release", "deploy", str(shop.path), *words, env={"PYTHONIOENCODING": encoding})
        assert json.loads(done.stdout)["added"] == ["a", "caf\udce9"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--ref", "v9"), 1, "there is no ref 'v9'"),
        (("--ref", "v1", "--commit", "1" * 40), 3, "points at"),
        (("--ref", "v1", "--commit", "xyz"), 1, "not an object id"),
        (("--ref", "v1", "--settings", "/nonexistent"), 2, "cannot read settings"),
        (("--ref", "caf\udce9"), 1, "is not UTF-8"),
        (("--ref", "1" * 40), 1, "there is no commit 1111"),
        (("--ref", "1" * 64), 1, "there is no commit 1111"),
    ],
)
def test_wrong_input_is_one_clear_line(shop: Shop, words: tuple[str, ...], code: int, says: str) -> None:
    done = run("release", "deploy", str(shop.path), "--mirror", str(shop.repo.path), *words)
    assert done.returncode == code
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_an_empty_site_directory_is_never_the_working_directory(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    words = ("release", "deploy", "", "--mirror", str(shop.repo.path), "--ref", "v1")
    done = run(*words, cwd=tmp_path / "cwd")
    assert done.returncode == 2
    assert "the path is empty; write . for the working directory" in done.stderr
    assert list((tmp_path / "cwd").iterdir()) == []
    assert run(*words[:2], ".", *words[3:], cwd=tmp_path / "cwd").returncode == 0
    assert (tmp_path / "cwd" / "current").is_symlink()


@pytest.mark.parametrize(
    "words",
    [
        ("list",),
        ("show",),
        ("verify",),
        ("pin", "v1"),
        ("activate",),
        ("rollback",),
        ("rollback", "--dry-run"),
    ],
)
def test_a_site_that_is_not_there_is_said_so_and_not_made(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = run_here("release", words[0], str(tmp_path / "typo"), *words[1:])
    assert done.returncode == 1
    assert f"there is no site at {tmp_path}/typo" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize(
    "words", [("--ref", "v9"), ("--ref", "v1", "--commit", "1" * 40), ("--ref", "v1", "--commit", "xyz")]
)
def test_a_first_deploy_that_is_refused_makes_no_directory(shop: Shop, tmp_path: Path, words: tuple[str, ...]) -> None:
    done = run("release", "deploy", str(tmp_path / "new" / "site"), "--mirror", str(shop.repo.path), *words)
    assert done.returncode in (1, 3)
    assert not (tmp_path / "new").exists()


def test_something_that_is_no_repository_is_a_usage_error(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run("release", "deploy", str(shop.path), "--mirror", str(tmp_path / "empty"), "--ref", "v1")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_settings_come_from_a_file_of_their_own_or_from_the_nodes(shop: Shop, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('required = ["post-deploy"]\n')
    refused = _deploy(shop, "v1", "--settings", str(own))
    assert refused.returncode == 1
    assert "the required script post-deploy is not in deploy" in refused.stderr
    own.write_text('keep = 0\nsymlink = "any"\n')
    wrong = _deploy(shop, "v1", "--settings", str(own))
    assert wrong.returncode == 2
    assert "did you mean symlinks?" in wrong.stderr
    node = tmp_path / "deploykit.toml"
    node.write_text(
        f'node = "n"\n[repositories.shop]\nurl = "file://{shop.repo.path}"\n'
        f'[sites.shop]\npath = "{shop.path}"\nrepo = "shop"\nrelease = {{ state_files = false }}\n'
    )
    assert _deploy(shop, "v1", "--settings", str(node)).returncode == 0
    assert not (shop.path / "current" / "TAG").exists()
    other = run(
        *("release", "deploy", str(tmp_path / "other"), "--settings", str(node)),
        *("--mirror", str(shop.repo.path), "--ref", "v1"),
    )
    assert other.returncode == 2
    assert "has no site at" in other.stderr


def test_a_script_that_there_is_none_of_is_a_mistake_in_the_settings(shop: Shop, tmp_path: Path) -> None:
    own = tmp_path / "site.toml"
    own.write_text("at_crash = { post_deploy = 'stop' }\n")
    done = _deploy(shop, "v1", "--settings", str(own))
    assert (done.returncode, "at_crash: expected some of pre-deploy" in done.stderr) == (2, True)
    assert not shop.path.exists()


def test_prepare_then_activate(shop: Shop) -> None:
    assert _deploy(shop, "v1").returncode == 0
    assert _deploy(shop, "v2", "--prepare").returncode == 0
    assert shop.read("a") == "1"
    assert run("release", "activate", str(shop.path)).returncode == 0
    assert shop.read("a") == "2"


def test_a_failing_script_ends_with_1_and_the_old_release(shop: Shop) -> None:
    _deploy(shop, "v1")
    shop.commit({"a": b"4", "deploy/post-deploy": script("exit 9")}, tag="bad")
    done = _deploy(shop, "bad")
    assert done.returncode == 1
    assert "rolled-back" in done.stderr
    assert "exit code 9" in done.stderr
    assert shop.read("a") == "1"


def test_output_is_shown_by_lines_of_each_stream_and_never_piled_up() -> None:
    shown = io.StringIO()
    live = DeployDisplay(Console(file=shown, width=100_000))
    live.output("pre-deploy", "stdout", "one ")
    live.output("pre-deploy", "stderr", "a warning\n")
    live.output("pre-deploy", "stdout", "line\n\x1b[2Jlast")
    for _ in range(100):
        live.output("pre-deploy", "stderr", "x" * 1000)
    assert shown.getvalue().count("x") > 90_000, "a line that does not end is not kept until it does"
    live.step("pre-deploy", StepRecord(name="pre-deploy", outcome="done", exit_code=0))
    lines = [line.strip() for line in shown.getvalue().splitlines()]
    assert lines[:2] == ["a warning", "one line"]
    assert "\\x1b[2Jlast" in lines
    assert "\x1b" not in shown.getvalue()
    assert shown.getvalue().count("x") >= 100_000


def test_on_a_terminal_it_is_drawn_live(shop: Shop) -> None:
    reading, writing = pty.openpty()
    words = command("release", "deploy", str(shop.path), "--mirror", str(shop.repo.path), "--ref", "v1")
    with subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=writing,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "TERM": "xterm", "LANG": "C.UTF-8"},
    ) as process:
        os.close(writing)
        said = b""
        while True:
            try:
                piece = os.read(reading, 65536)
            except OSError:
                break
            if not piece:
                break
            said += piece
        assert process.wait(30) == 0
    os.close(reading)
    assert b"\x1b[" in said
    assert b"hello from pre-deploy" in said
    assert b"\x1b[2J" not in said


def test_help_has_an_example_each() -> None:
    for verb in ("deploy", "rollback", "list", "show", "verify", "pin", "activate"):
        done = run("release", verb, "--help")
        assert done.returncode == 0
        assert "Example:" in done.stdout, verb
