"""`shared/` on another file system, as a mounted directory or a symlink to one: nothing is lost on the way there."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.settings import SiteSettings
from tests.support.cli import command
from tests.support.disks import full, small_disk
from tests.support.gitrepo import SYMLINK
from tests.support.killsweep import NEEDS_SPACE, Run, error_sweep, kill_sweep, sample_size
from tests.support.needs import needs_root
from tests.support.releasing import Files, Shop, script
from tests.support.strangers import common_directory

pytestmark = needs_root("to mount a disk")

SHARING = SiteSettings(grace=0, shared=("uploads/", "config.php", "var/log/"))
FILES: Files = {
    "index.php": b"<?php",
    "config.php": b"secret of the first release",
    "uploads/a.jpg": b"a" * 5000,
    "uploads/run.sh": script("true"),
    "uploads/deep/er/b": b"b",
    "uploads/latest": (SYMLINK, b"deep/er/b"),
    "var/log/first": b"log",
}


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """One whose way belongs to root alone."""
    with common_directory() as path:
        yield path


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Another file system."""
    with small_disk(tmp_path / "disk", "size=4m,mode=755") as mounted:
        yield mounted


def symlinked(base: Path, disk: Path, settings: SiteSettings = SHARING) -> Shop:
    """A site whose `shared` is a symlink to a directory on another file system."""
    shop = Shop(base, settings)
    shop.path.mkdir()
    (disk / "data").mkdir()
    (shop.path / "shared").symlink_to(disk / "data")
    return shop


def tree_of(root: Path) -> dict[str, tuple[str, bytes | str]]:
    """Every file and symlink below a directory: mode and content."""
    found: dict[str, tuple[str, bytes | str]] = {}
    for path in sorted(root.rglob("*")):
        seen = path.lstat()
        if stat.S_ISLNK(seen.st_mode):
            found[str(path.relative_to(root))] = ("link", str(path.readlink()))
        elif stat.S_ISREG(seen.st_mode):
            found[str(path.relative_to(root))] = (stat.filemode(seen.st_mode), path.read_bytes())
    return found


def shared_of(base: Path, settings: SiteSettings = SHARING) -> dict[str, tuple[str, bytes | str]]:
    """What the first release leaves in `shared/` where that is an ordinary directory."""
    plain = Shop(base, settings)
    assert plain.put(FILES).outcome == "success"
    return tree_of(plain.path / "shared")


@pytest.mark.parametrize("durable", [True, False])
def test_a_symlink_to_a_mounted_directory_gets_what_a_directory_gets(tmp_path: Path, disk: Path, durable: bool) -> None:
    settings = attrs.evolve(SHARING, durable=durable)
    (tmp_path / "plain").mkdir()
    shop = symlinked(tmp_path, disk, settings)
    result = shop.put(FILES)
    assert result.outcome == "success", result
    assert tree_of(disk / "data") == shared_of(tmp_path / "plain", settings)
    assert shop.read("uploads/a.jpg") == "a" * 5000
    assert os.access(shop.path / "current" / "uploads" / "run.sh", os.X_OK)
    assert (shop.path / "current" / "uploads").readlink() == Path("../../shared/uploads")
    shop.whole()

    (disk / "data" / "uploads" / "of a user").write_text("kept")
    assert shop.put({**FILES, "uploads/a.jpg": b"new", "config.php": b"of the second"}).outcome == "success"
    assert shop.read("uploads/a.jpg") == "a" * 5000
    assert shop.read("uploads/of a user") == "kept"
    assert shop.read("config.php") == "secret of the first release"
    assert shop.runner.rollback().outcome == "success"
    shop.whole()


def test_a_mounted_directory_gets_modes_times_and_attributes(tmp_path: Path) -> None:
    shop = Shop(tmp_path, SHARING)
    shop.path.mkdir()
    prepares = script(
        "chmod 2770 uploads; chown 65534:65534 uploads/a.jpg; touch -d '2001-02-03 04:05:06' uploads/a.jpg",
        "chmod 4755 uploads/run.sh",
    )
    with small_disk(shop.path / "shared", "size=4m") as disk:
        result = shop.put({**FILES, "deploy/pre-deploy": prepares})
        assert result.outcome == "success", result
        assert stat.S_IMODE((disk / "uploads").stat().st_mode) == 0o2770
        seen = (disk / "uploads" / "a.jpg").stat()
        assert (seen.st_uid, seen.st_gid, seen.st_mtime) == (65534, 65534, 981173106.0)
        assert stat.S_IMODE((disk / "uploads" / "run.sh").stat().st_mode) == 0o4755
        assert not list(disk.rglob(".deploykit-*"))


def test_what_cannot_be_copied_is_named_and_the_live_release_stays(tmp_path: Path, disk: Path) -> None:
    shop = symlinked(tmp_path, disk)
    assert shop.put({**FILES, "uploads/a.jpg": b"1"}).outcome == "success"
    shutil.rmtree(disk / "data" / "uploads")
    result = shop.put({**FILES, "deploy/pre-deploy": script("mkfifo uploads/queue")})
    assert result.outcome == "failure"
    assert "uploads/queue is neither file, directory nor symlink" in result.detail
    assert shop.live().tag == "v1"
    assert not (disk / "data" / "uploads").exists()
    assert not list((disk / "data").glob(".deploykit-*"))


def test_a_full_disk_behind_the_symlink_leaves_no_half_copy(tmp_path: Path, disk: Path) -> None:
    shop = symlinked(tmp_path, disk)
    with full(disk, "bytes"):
        result = shop.put(FILES)
        assert result.outcome == "failure"
        assert "No space left on device" in result.detail
        assert not any(path.name.startswith(".deploykit-") for path in (disk / "data").iterdir())
    assert shop.put(FILES).outcome == "success"
    assert shop.read("uploads/a.jpg") == "a" * 5000


def test_a_symlink_that_leads_nowhere_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    shop = Shop(tmp_path, SHARING)
    shop.path.mkdir()
    (shop.path / "shared").symlink_to(tmp_path / "not mounted")
    commit = shop.commit({**FILES, "deploy/pre-deploy": script(f"touch {tmp_path}/ran")})
    result = shop.deploy("v1", commit)
    assert result.outcome == "refused"
    assert "not mounted: No such file or directory" in result.detail
    assert "mount what belongs there" in result.detail
    assert not (tmp_path / "ran").exists()
    assert shop.names() == set()


@pytest.mark.parametrize("swapped", ["its way", "a link on its way", "its directory's own directory"])
def test_root_does_not_write_where_others_can_make_the_symlink_lead(tmp_path: Path, disk: Path, swapped: str) -> None:
    shop = Shop(tmp_path, SHARING)
    shop.path.mkdir()
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    if swapped == "its directory's own directory":
        home.chmod(0o1777)
    elif swapped == "a link on its way":
        (home / "data").rmdir()
        (home / "data").symlink_to(disk)
        os.chown(home / "data", 65534, 65534, follow_symlinks=False)
    else:
        os.chown(home, 65534, 65534)
    (shop.path / "shared").symlink_to(home / "data")
    result = shop.put(FILES)
    assert result.outcome == "refused"
    assert f"others can change {home}" in result.detail
    assert list(disk.iterdir()) == []


def test_the_directory_behind_the_symlink_may_be_a_users(tmp_path: Path, disk: Path) -> None:
    shop = symlinked(tmp_path, disk)
    os.chown(disk / "data", 65534, 65534)
    assert shop.put(FILES).outcome == "success"
    assert shop.read("uploads/a.jpg") == "a" * 5000


def test_a_path_behind_a_symlink_inside_shared_is_refused_by_name(tmp_path: Path, disk: Path) -> None:
    shop = Shop(tmp_path, SHARING)
    (shop.path / "shared").mkdir(parents=True)
    (shop.path / "shared" / "var").symlink_to(disk)
    result = shop.put({**FILES, "deploy/pre-deploy": script(f"touch {tmp_path}/ran")})
    assert result.outcome == "refused"
    assert "'var/log/'" in result.detail
    assert not (tmp_path / "ran").exists()


class Sweep:
    """A first deploy to a site whose `shared` is on another disk, made anew before each run."""

    def __init__(self, base: Path, disk: Path) -> None:
        self.disk, self.shop = disk, Shop(base, attrs.evolve(SHARING, shared=("uploads/", "config.php")))
        self.shop.commit(FILES)
        self.settings = base / "site.toml"
        self.settings.write_text('grace = 0\nshared = ["uploads/", "config.php"]\n')
        words = ("--mirror", str(self.shop.repo.path), "--ref", "v1", "--settings", str(self.settings))
        self.argv = command("release", "deploy", str(self.shop.path), *words)

    def prepare(self) -> None:
        shutil.rmtree(self.shop.path, ignore_errors=True)
        shutil.rmtree(self.disk / "data", ignore_errors=True)
        self.shop.path.mkdir()
        (self.disk / "data").mkdir()
        (self.shop.path / "shared").symlink_to(self.disk / "data")

    def check(self, run: Run) -> None:
        """Whatever has its name behind the symlink is whole, and the next deploy comes to the same as one alone."""
        assert "Traceback" not in run.stderr, run.stderr
        uploads, config = self.disk / "data" / "uploads", self.disk / "data" / "config.php"
        if uploads.exists():
            assert (uploads / "a.jpg").read_bytes() == b"a" * 5000
            assert (uploads / "deep" / "er" / "b").read_bytes() == b"b"
            assert (uploads / "latest").readlink() == Path("deep/er/b")
        assert not config.exists() or config.read_bytes() == FILES["config.php"]
        self.shop.whole()
        result = self.shop.deploy("v1")
        assert result.outcome == "success", result
        assert self.shop.read("uploads/a.jpg") == "a" * 5000
        assert self.shop.read("config.php") == "secret of the first release"
        assert [path.name for path in (self.disk / "data").iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_any_call_behind_the_symlink_nothing_of_shared_is_lost(tmp_path: Path, disk: Path) -> None:
    sweep = Sweep(tmp_path, disk)
    print(kill_sweep(sweep.argv, roots=[disk], prepare=sweep.prepare, check=sweep.check, sample=sample_size(4)))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_an_error_at_any_call_behind_the_symlink_is_said_and_loses_nothing(tmp_path: Path, disk: Path) -> None:
    sweep = Sweep(tmp_path, disk)
    options: dict[str, Any] = {"prepare": sweep.prepare, "check": sweep.check, "sample": sample_size(4)}
    print(error_sweep(sweep.argv, roots=[disk], calls=NEEDS_SPACE, **options))
