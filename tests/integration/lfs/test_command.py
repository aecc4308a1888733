"""`deploykit mirror` with objects of Git LFS: what it prints, how it ends, what it finds and mends."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.mirror import Mirror
from deploykit.settings import MirrorSettings
from tests.support.cli import run_here
from tests.support.lfsorigins import in_store, pointer_to, seeded
from tests.support.lfsstub import CONTENT, LfsStub, commit_pointers, lfs_stub
from tests.support.origins import GitRepo

ONE, TWO = seeded(1_500_000, 1), seeded(700_000, 2)


def run(*args: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = run_here("mirror", *map(str, args))
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


class World:
    """An origin with two objects, their server, and the words that sync a mirror of it."""

    def __init__(self, home: Path, stub: LfsStub) -> None:
        self.repo = GitRepo.make(home / "origin.git")
        self.stub = stub
        self.path = home / "m.git"
        stub.hold(ONE, TWO)
        commit_pointers(self.repo, {"one.bin": ONE, "a/two.bin": TWO})
        self.options = ("--allow-http", "--lfs-url", stub.url)
        self.sync = ("sync", self.repo.path, self.path, *self.options)

    def object_of(self, content: bytes) -> Path:
        oid = pointer_to(content).oid
        return self.path / "lfs" / "objects" / oid[:2] / oid[2:4] / oid


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with lfs_stub() as stub:
        yield World(tmp_path, stub)


def test_sync_counts_the_objects_and_fails_while_one_is_missing(world: World) -> None:
    del world.stub.objects[pointer_to(ONE).oid]
    done = run(*world.sync, code=1)
    assert "LFS: 1 objects, 0.7 MB" in done.stdout
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("missing")]
    assert line.startswith(
        "missing refs/heads/main: Git LFS: an object is missing: one.bin: the server does not have it"
    )
    told = json.loads(run(*world.sync, "--json", code=1).stdout)
    assert [each["path"] for each in told["lfs"]["missing"]] == ["one.bin"]
    assert [each["ref"] for each in told["lfs"]["gaps"]] == ["refs/heads/main"]
    world.stub.hold(ONE)
    assert "LFS: 1 objects, 1.5 MB" in run(*world.sync).stdout
    assert "LFS" not in run("sync", world.repo.path, world.path.with_name("plain.git")).stdout


def test_sync_has_again_what_somebody_removed(world: World) -> None:
    run(*world.sync)
    world.object_of(TWO).unlink()
    assert "LFS: 1 objects" in run(*world.sync).stdout
    assert world.object_of(TWO).read_bytes() == TWO


def test_the_objects_of_a_commit_that_no_ref_holds_come_when_they_are_asked_for(world: World) -> None:
    between = seeded(5000, 3)
    world.stub.hold(between)
    commit = commit_pointers(world.repo, {"one.bin": between})
    commit_pointers(world.repo, {"one.bin": ONE})
    run(*world.sync)
    assert set(in_store(world.path)) == {pointer_to(ONE).oid}
    assert "LFS: 1 objects" in run(*world.sync, "--lfs-commit", commit).stdout
    assert set(in_store(world.path)) == {pointer_to(ONE).oid, pointer_to(between).oid}
    world.object_of(between).unlink()
    world.stub.objects.clear()
    assert "missing one.bin: " in run(*world.sync, "--lfs-commit", commit, code=1).stderr
    assert "no object" in run(*world.sync, "--lfs-commit", "ab" * 20, code=1).stderr
    run(*world.sync, "--lfs-commit", "main", code=2)
    run("sync", world.repo.path, world.path, "--lfs-commit", commit, code=2)


@pytest.mark.parametrize("harm", ["damaged", "missing"])
def test_check_names_it_and_repair_mends_it_and_keeps_what_is_sound(world: World, harm: str) -> None:
    run(*world.sync)
    assert "2 LFS objects" in run("check", world.path).stdout
    file, oid = world.object_of(TWO), pointer_to(TWO).oid
    if harm == "damaged":
        file.chmod(0o644)
        file.write_bytes(b"x" * len(TWO))
        assert f"the Git LFS object {oid} is damaged" in run("check", world.path, code=1).stderr
    else:
        file.unlink()
        assert "a/two.bin: the mirror does not hold it" in run("check", world.path, code=1).stderr
    assert "add --lfs" in run("check", world.path, "--repair", world.repo.path, code=2).stderr
    world.stub.seen.clear()
    done = run("check", world.path, "--repair", world.repo.path, *world.options)
    assert "cloned anew" in done.stdout
    assert [path for path in world.stub.paths() if CONTENT in path] == [f"{CONTENT}{oid}"], "the other one is linked"
    assert set(in_store(world.path)) == {pointer_to(ONE).oid, oid}
    assert "sound" in run("check", world.path).stdout


def test_a_repair_that_the_server_does_not_help_says_so(world: World) -> None:
    run(*world.sync)
    world.object_of(TWO).unlink()
    del world.stub.objects[pointer_to(TWO).oid]
    done = run("check", world.path, "--repair", world.repo.path, *world.options, code=1)
    assert "still missing: refs/heads/main: Git LFS: an object is missing: a/two.bin" in done.stderr


def test_check_looks_for_objects_where_there_is_none_when_it_is_asked(world: World) -> None:
    run("sync", world.repo.path, world.path)
    run("check", world.path)
    assert "2 objects are missing" in run("check", world.path, *world.options, code=1).stderr


@pytest.mark.parametrize(
    "words",
    [
        ("git@h.example:site.git", "--lfs"),
        ("https://h.example/site.git", "--lfs-url", "http://h.example/x"),
        ("https://h.example/site.git", "--lfs-url", "https://user:canary@h.example/x"),
        ("https://h.example/site.git", "--lfs-url", "ftp://h.example/x"),
        ("https://h.example/site.git", "--lfs", "--lfs-deadline", "nan"),
    ],
)
def test_an_address_that_cannot_be_is_refused_before_anything_is_made(tmp_path: Path, words: tuple[str, ...]) -> None:
    url, *options = words
    done = run("sync", url, tmp_path / "m.git", *options, code=2)
    assert "canary" not in done.stderr
    assert not (tmp_path / "m.git").exists()


def test_a_mirror_that_reclones_itself_keeps_its_objects(world: World) -> None:
    settings = MirrorSettings(lfs=True, lfs_url=world.stub.url, allow_http=True)
    with Mirror.open(world.path, str(world.repo.path), settings) as mirror:
        mirror.fetch()
        world.stub.seen.clear()
        aside = mirror.reclone()
        assert aside is not None
        assert world.stub.seen == []
        assert in_store(mirror.path) == in_store(aside) != {}
        assert mirror.check().sound
