"""Killed at any system call, a fetch of objects leaves only whole ones; the next has the rest, and sweeps."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.mirror import Mirror
from deploykit.mirror.lfs.store import is_sound
from deploykit.settings import MirrorSettings
from tests.support.killsweep import Run, kill_sweep, sample_size
from tests.support.lfsorigins import in_store, pointer_to, seeded
from tests.support.lfsstub import LfsStub, commit_pointers, lfs_stub
from tests.support.origins import GitRepo, Server, git_daemon

FIRST, SECOND, THIRD = (seeded(20_000, at) for at in range(3))


@pytest.fixture
def stub() -> Iterator[LfsStub]:
    with lfs_stub() as made:
        made.hold(FIRST, SECOND, THIRD)
        yield made


@pytest.fixture
def origins(tmp_path: Path) -> Iterator[Server]:
    """A daemon serves the origin: only the fetch itself is swept."""
    (tmp_path / "served").mkdir()
    with git_daemon(tmp_path / "served") as server:
        yield server


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_fetch_killed_at_any_call_leaves_whole_objects_and_converges(
    tmp_path: Path, stub: LfsStub, origins: Server
) -> None:
    repo, url = GitRepo.make(tmp_path / "served" / "origin.git"), origins.url("origin.git")
    path, template = tmp_path / "mirrors" / "m.git", tmp_path / "template"
    words = ("mirror", "sync", url, str(path), "--allow-http", "--lfs-url", stub.url)
    argv = [sys.executable, "-m", "deploykit", *words]
    commit_pointers(repo, {"one.bin": FIRST})
    settings = MirrorSettings(lfs=True, lfs_url=stub.url, allow_http=True)
    mirror = Mirror.open(path, url, settings)
    mirror.fetch()
    shutil.copytree(path.parent, template)
    commit_pointers(repo, {"one.bin": FIRST, "two.bin": SECOND, "three.bin": THIRD})
    all_of_them = {pointer_to(each).oid: 20_000 for each in (FIRST, SECOND, THIRD)}

    def prepare() -> None:
        shutil.rmtree(path.parent)
        shutil.copytree(template, path.parent)

    def check(run: Run) -> None:
        held = in_store(path)
        assert held.items() <= all_of_them.items()
        assert all(is_sound(file) for file in (path / "lfs" / "objects").glob("*/*/*"))
        if run.point is None:
            assert (run.returncode, held) == (0, all_of_them), run.stderr
        assert mirror.fetch().lfs.gaps == ()
        assert in_store(path) == all_of_them
        if held != all_of_them:
            assert list((path / "lfs" / "incoming").iterdir()) == []

    print(kill_sweep(argv, roots=[path / "lfs"], prepare=prepare, check=check, sample=sample_size(1)))
