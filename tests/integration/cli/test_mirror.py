"""`deploykit mirror` as people and scripts use it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.origins import GitRepo


def run(*args: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "deploykit", "mirror", *map(str, args)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    repo = GitRepo.make(tmp_path / "origin.git")
    repo.commit({"a": os.urandom(200)})
    repo.git("tag", "v1", "main")
    return repo


def test_sync_tells_what_moved_in_words_and_in_json(repo: GitRepo, tmp_path: Path) -> None:
    path = tmp_path / "m.git"
    assert "created" in run("sync", repo.path, path).stdout
    old, new = repo.tip("main"), repo.commit()
    told = json.loads(run("sync", repo.path, path, "--json").stdout)
    assert told["changes"] == [{"ref": "refs/heads/main", "old": old, "new": new, "kind": "moved"}]
    assert told["refused"] == []
    assert "0 refs changed" in run("sync", repo.path, path).stdout


def test_sync_takes_only_the_refs_it_is_told(repo: GitRepo, tmp_path: Path) -> None:
    run("sync", repo.path, tmp_path / "m.git", "--ref", "refs/tags/*")
    told = json.loads(run("show", tmp_path / "m.git", "--json").stdout)
    assert list(told["refs"]) == ["refs/tags/v1"]


def test_a_refused_change_has_an_exit_code_of_its_own(repo: GitRepo, tmp_path: Path) -> None:
    for n in range(5):
        repo.git("branch", f"b{n}", "main")
    run("sync", repo.path, tmp_path / "m.git")
    for n in range(5):
        repo.git("branch", "-D", f"b{n}")
    assert "refused" in run("sync", repo.path, tmp_path / "m.git", code=3).stderr
    run("sync", repo.path, tmp_path / "m.git", "--allow-mass-deletion")


def test_list_and_show(repo: GitRepo, tmp_path: Path) -> None:
    run("sync", repo.path, tmp_path / "mirrors" / "one.git")
    assert "2 refs, 1 packs" in run("list", tmp_path / "mirrors").stdout
    (told,) = json.loads(run("list", tmp_path / "mirrors", "--json").stdout)
    assert told["head"] == "refs/heads/main"
    assert repo.tip("main") in run("show", tmp_path / "mirrors" / "one.git").stdout
    assert "no mirrors" in run("list", tmp_path / "origin.git" / "refs").stdout


def test_check_finds_damage_and_repairs_it(repo: GitRepo, tmp_path: Path) -> None:
    path = tmp_path / "m.git"
    run("sync", repo.path, path)
    assert "sound" in run("check", path).stdout
    (pack,) = (path / "objects/pack").glob("*.pack")
    pack.chmod(0o644)
    data = bytearray(pack.read_bytes())
    data[20] ^= 0xFF
    pack.write_bytes(data)
    assert pack.name in run("check", path, code=1).stderr
    assert json.loads(run("check", path, "--json", code=1).stdout)["sound"] is False
    assert "cloned anew" in run("check", path, "--repair", repo.path).stdout
    assert "sound" in run("check", path).stdout
    assert (tmp_path / "m.git.damaged").is_dir()


@pytest.mark.parametrize("damage", ["index", "ref", "missing"])
def test_check_sees_every_kind_of_damage(repo: GitRepo, damage: str, tmp_path: Path) -> None:
    path = tmp_path / "m.git"
    run("sync", repo.path, path)
    if damage == "index":
        (index,) = (path / "objects/pack").glob("*.idx")
        index.chmod(0o644)
        data = bytearray(index.read_bytes())
        data[-45] ^= 1
        index.write_bytes(data)
        expected = "does not match its pack"
    elif damage == "ref":
        (path / "packed-refs").write_text(f"{'c' * 40} refs/heads/main\n")
        expected = "points to cccc"
    else:
        for file in (path / "objects/pack").iterdir():
            file.unlink()
        expected = "which is missing"
    assert expected in run("check", path, code=1).stderr


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("sync", "ftp://x/y", "p"), 2),
        (("sync", "/nowhere/at/all", "p"), 1),
        (("sync", "git://127.0.0.1:1/x", "p"), 1),
        (("check", "/tmp"), 2),
        (("show", "/nowhere"), 2),
        (("sync", "/nowhere", "p", "--deadline", "nan"), 2),
        (("sync", "/nowhere", "p", "--deadline", "-1"), 2),
        (("sync", "/nowhere", ""), 2),
        (("sync", "/nowhere", "p", "--ref", "main"), 2),
        (("sync", "/nowhere", "p", "--ref", "tags/v*"), 2),
        (("sync", "/nowhere", "p", "--ref", ""), 2),
    ],
)
def test_wrong_input_is_one_clear_line(args: tuple[str, ...], code: int, tmp_path: Path) -> None:
    words = [str(tmp_path / "p") if word == "p" else word for word in args]
    error = run(*words, code=code).stderr
    assert error.count("\n") <= 4
    assert error
    assert "Traceback" not in error
    if code == 2:
        assert not (tmp_path / "p").exists()


def test_a_pattern_may_begin_with_a_star_and_a_path_cannot_speak_to_the_terminal(repo: GitRepo, tmp_path: Path) -> None:
    path = tmp_path / "m\x1b[2J.git"
    run("sync", repo.path, path, "--ref", "*/main", "--ref", "refs/tags/v*")
    for told in (run("list", tmp_path), run("show", path), run("check", path)):
        assert "m\\x1b[2J.git" in told.stdout
        assert "\x1b" not in told.stdout


def test_a_terminal_gets_a_bar_and_the_same_result(repo: GitRepo, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "deploykit", "mirror", "sync", str(repo.path), str(tmp_path / "m.git")]
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=theirs, env=env, timeout=60, text=True)
    os.close(theirs)
    assert done.returncode == 0
    assert "2 refs changed" in done.stdout
    drawn = b""
    with contextlib.suppress(OSError):  # how a terminal ends
        while piece := os.read(ours, 65536):
            drawn += piece
    os.close(ours)
    assert b"objects" in drawn
