"""Killed or failed at any state-changing system call, a fetch leaves the old or the new mirror; the next converges.

The kill points are enumerated from a recorded strace and printed; each run must have died of SIGKILL.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.errors import MirrorError
from deploykit.mirror import Mirror
from deploykit.settings import MirrorSettings
from tests.support.disks import small_disk
from tests.support.killsweep import NEEDS_DISK, NEEDS_SPACE, Run, error_sweep, kill_sweep
from tests.support.origins import GitRepo, git_daemon, run_git


class Scene:
    """An origin, a mirror of an earlier state, and what the refs were and will be."""

    def __init__(self, home: Path, url: str, *, existing: bool) -> None:
        self.repo = GitRepo.make(home / "served" / "origin.git")
        self.url = url
        text = b"".join(b"line %d\n" % n for n in range(300))
        first = self.repo.commit({"a": text, "dir/b": b"b", "big": os.urandom(2000)})
        for name in ("foo", "gone", "one", "two", "three"):
            self.repo.git("branch", name, first)
        self.path = home / "mirrors" / "m.git"
        self.template = home / "template"
        self.old: dict[str, str] = {}
        if existing:
            with Mirror.open(self.path, self.url) as mirror:
                mirror.fetch()
            self.old = self.repo.refs()
            shutil.copytree(self.path.parent, self.template)
        else:
            self.template.mkdir()
        second = self.repo.commit({"a": text + b"more\n", "dir/b": b"c", "big": os.urandom(2000)})
        self.repo.git("branch", "-D", "foo", "gone")
        self.repo.git("branch", "foo/bar", second)
        self.repo.git("tag", "-a", "-m", "t", "v1", second)
        self.repo.git("symbolic-ref", "HEAD", "refs/heads/foo/bar")
        self.new = self.repo.refs()
        self.argv = [sys.executable, "-m", "deploykit", "mirror", "sync", self.url, str(self.path)]

    def prepare(self) -> None:
        shutil.rmtree(self.path.parent, ignore_errors=True)
        shutil.copytree(self.template, self.path.parent)

    def check(self, run: Run) -> None:
        """It is the old or the new state, whole; the next fetch makes it the new one and leaves nothing lying about."""
        if (self.path / "HEAD").exists():
            held = dict(Mirror.open(self.path, self.url).refs)
            assert held in (self.old, self.new), f"neither old nor new: {held}"
            assert run_git(self.path, "fsck", "--strict", "--no-dangling") == ""
        if run.point is None:
            assert run.returncode == 0, run.stderr
        again = subprocess.run(self.argv, capture_output=True, text=True, timeout=60)
        assert again.returncode == 0, again.stderr
        with Mirror.open(self.path, self.url) as mirror:
            assert mirror.refs == self.new
            assert mirror.head == "refs/heads/foo/bar"
            assert mirror.check().problems == ()
        assert run_git(self.path, "fsck", "--strict", "--no-dangling") == ""
        assert list((self.path / "quarantine").iterdir()) == []
        assert not list(self.path.rglob("*.new"))


@pytest.fixture
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """A scene whose origin is served by a daemon: only the fetch itself is swept."""
    (tmp_path / "served").mkdir()
    with git_daemon(tmp_path / "served") as server:
        yield Scene(tmp_path, server.url("origin.git"), existing=request.param)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("scene", [True, False], ids=["next", "first"], indirect=True)
def test_a_fetch_killed_at_any_call_leaves_old_or_new_and_converges(scene: Scene) -> None:
    report = kill_sweep(scene.argv, roots=[scene.path.parent], prepare=scene.prepare, check=scene.check, network=True)
    print(report)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("scene", [True], ids=["next"], indirect=True)
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_a_fetch_that_the_disk_fails_says_so_and_keeps_the_old_state(error: str, scene: Scene) -> None:
    def check(run: Run) -> None:
        assert "Traceback" not in run.stderr
        if run.point is not None and run.returncode != 0:
            assert run.returncode == 1
            assert run.stderr.startswith("deploykit: ")
            assert run.stderr.count("\n") == 1
            if error == "ENOSPC":
                assert "space" in run.stderr
        scene.check(run)

    calls = NEEDS_SPACE if error == "ENOSPC" else NEEDS_DISK
    roots = [scene.path.parent]
    report = error_sweep(scene.argv, roots=roots, prepare=scene.prepare, check=check, error=error, calls=calls)
    print(report)


@pytest.mark.parametrize(
    ("options", "bytes_free", "inodes_free", "match"),
    [
        ("size=600k", 0, 0, "no space left"),
        ("size=16m,nr_inodes=24", 0, 0, "no space left"),
        ("size=16m", 64 << 20, 0, "MB are free"),
        ("size=16m,nr_inodes=60", 0, 200, "inodes are free"),
    ],
    ids=["bytes", "inodes", "preflight-bytes", "preflight-inodes"],
)
def test_a_full_disk_is_named_and_the_mirror_goes_on_when_there_is_room(
    options: str, bytes_free: int, inodes_free: int, match: str, tmp_path: Path
) -> None:
    repo = GitRepo.make(tmp_path / "origin.git")
    first = repo.commit({"a": b"1"})
    settings = MirrorSettings(min_free_bytes=bytes_free, min_free_inodes=inodes_free)
    generous = MirrorSettings(min_free_bytes=0, min_free_inodes=0)
    with small_disk(tmp_path / "disk", options) as disk:
        mirror = Mirror.open(disk / "m.git", str(repo.path), generous)
        mirror.fetch()
        ballast = disk / "ballast"
        if "nr_inodes" in options and not inodes_free:
            ballast.mkdir()
            n = 0
            while os.statvfs(disk).f_favail:
                (ballast / str(n)).touch()
                n += 1
        second = repo.commit({"a": os.urandom(700_000)})
        tight = Mirror.open(disk / "m.git", str(repo.path), settings)
        with pytest.raises(MirrorError, match=match):
            tight.fetch()
        assert tight.refs == {"refs/heads/main": first}
        assert run_git(tight.path, "fsck", "--strict") == ""
        assert list((tight.path / "quarantine").iterdir()) == []
        if ballast.exists():
            shutil.rmtree(ballast)
        if "k" in options:
            subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
        mirror.fetch()
        assert mirror.refs == {"refs/heads/main": second}
