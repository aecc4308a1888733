"""A live directory becomes the first release of a site, and is put back: no reader ever finds nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.errors import PreflightRefused
from deploykit.git.repository import Repository
from tests.support.adopting import FILES, Live, read_all_the_time
from tests.support.cli import command, run_here
from tests.support.disks import small_disk
from tests.support.killsweep import Run, kill_sweep, sample_size
from tests.support.needs import needs_root
from tests.support.power import Disk
from tests.support.strangers import common_directory
from tests.support.submodules import files_of


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """One whose way belongs to root alone, where root runs this."""
    with common_directory() as path:
        yield path


KINDS = ("directory", "clone", "current", "farm", "linked", "capistrano")


@pytest.mark.parametrize("how", KINDS)
def test_a_live_directory_is_the_first_release_and_is_put_back(tmp_path: Path, how: str) -> None:
    live = Live(tmp_path, how)
    before, was = live.seen(), files_of(live.place)
    for readers in (read_all_the_time(live.base, live.place), contextlib.nullcontext()):
        with readers:
            live.adopt()
        assert live.seen() == before
        assert live.site.current() is not None
        live.adopter.undo()  # whoever is just following the symlink may find that it leads to itself
        assert live.seen() == before
    assert files_of(live.place) == was
    assert live.place.is_symlink() == (how in ("linked", "capistrano"))
    assert (live.place / ".git").exists() == (how == "clone")
    assert not live.site.exists()


@pytest.mark.parametrize("how", KINDS)
def test_the_next_deploy_goes_on_from_there_and_back(tmp_path: Path, how: str) -> None:
    live = Live(tmp_path, how)
    before = live.seen()
    live.adopt()
    release = live.site.current()
    assert release is not None
    assert (release.commit, release.tag, release.status) == (live.commit, "v1", "good")
    live.shop.path = live.site_path
    assert live.shop.put({**FILES, "index.html": b"new"}).outcome == "success"
    assert (live.place / "index.html").read_bytes() == b"new"
    assert (live.place / "uploads" / "one.jpg").read_bytes() == b"1" * 9000
    assert live.shop.runner.rollback().outcome == "success"
    assert live.seen() == before
    with pytest.raises(PreflightRefused, match="there were deploys since"):
        live.adopter.undo()


def test_what_differs_from_the_commit_is_named_and_stays(tmp_path: Path) -> None:
    live = Live(tmp_path, "directory")
    (live.place / "index.html").write_text("edited by hand")
    (live.place / "lib" / "a.php").unlink()
    (live.place / "cache").mkdir()
    (live.place / "cache" / "x").write_text("x")
    (live.place / "bin" / "run").chmod(0o644)
    with Repository(live.shop.repo.path) as source:
        found = live.adopter.preview(source, "refs/tags/v1")
        assert live.place.is_dir()
        assert not live.site_path.exists()
        done = live.adopter.adopt(source, "refs/tags/v1")
    assert found.files == done.files
    assert (found.files.modified, found.files.missing) == (("bin/run", "index.html"), ("lib/a.php",))
    assert "cache/x" in found.files.added
    assert (live.place / "index.html").read_text() == "edited by hand"
    assert not live.shop.site.settings.shared or (live.site_path / "shared" / "uploads").is_dir()


def test_a_commit_is_not_needed(tmp_path: Path) -> None:
    live = Live(tmp_path, "directory")
    live.adopter.adopt()
    release = live.site.current()
    assert release is not None
    assert (release.name, release.tag, release.commit) == ("00001-adopted", "adopted", "")
    live.shop.path = live.site_path
    result = live.shop.deploy("v1")
    assert result.outcome == "success", result
    assert live.shop.runner.rollback().outcome == "success"


def test_a_site_inside_the_directory_is_refused(tmp_path: Path) -> None:
    live = Live(tmp_path, "directory")
    live.site_path = live.place / "site"
    with pytest.raises(PreflightRefused, match="would be inside"):
        live.adopter.adopt()


def test_a_shared_path_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    live = Live(tmp_path, "directory")
    (live.site_path / "shared" / "uploads").mkdir(parents=True)
    with pytest.raises(PreflightRefused, match="are both there"):
        live.adopter.adopt()
    assert (live.place / "uploads").is_dir()


def test_a_site_that_is_one_already_is_refused(tmp_path: Path) -> None:
    live = Live(tmp_path, "directory")
    live.shop.path = live.site_path
    assert live.shop.deploy("v1").outcome == "success"
    with pytest.raises(PreflightRefused, match="already"):
        live.adopter.adopt()


@needs_root("to mount a disk")
def test_another_file_system_is_refused(tmp_path: Path) -> None:
    live = Live(tmp_path, "directory")
    with small_disk(tmp_path / "disk", "size=1m,mode=755") as disk:
        live.site_path = disk / "site"
        with pytest.raises(PreflightRefused, match="another file system"):
            live.adopter.adopt()
    assert live.seen()["index.html"] == b"old"


@needs_root("to give files away")
def test_root_moves_nothing_in_a_directory_of_others(tmp_path: Path) -> None:
    live = Live(tmp_path, "directory")
    os.chown(live.place.parent, 65534, 65534)
    with pytest.raises(PreflightRefused, match=f"others can change {live.place.parent}"):
        live.adopter.adopt()


def test_the_command(tmp_path: Path) -> None:
    live = Live(tmp_path, "clone")
    words = ["release", "adopt", str(live.place), "--site", str(live.site_path)]
    (tmp_path / "site.toml").write_text('shared = ["uploads/"]\n')
    (live.place / "extra").write_text("x")
    shown = run_here(*words, "--settings", str(tmp_path / "site.toml"), "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "would adopt" in shown.stdout
    assert "+ extra" in shown.stdout
    assert "> uploads: in shared/" in shown.stdout
    assert live.place.is_dir()
    done = run_here(*words, "--settings", str(tmp_path / "site.toml"))
    assert done.returncode == 0, done.stderr
    assert live.place.is_symlink()
    listed = run_here("release", "list", str(live.site_path))
    assert "main" in listed.stdout
    back = run_here(*words, "--undo")
    assert back.returncode == 0, back.stderr
    assert (live.place / ".git").is_dir()
    assert run_here("release", "adopt", str(live.place)).returncode == 2


class Sweep:
    """An adoption of a farm with shared files, and the way back, killed anywhere."""

    def __init__(self, base: Path, where: Path | None = None) -> None:
        self.live = Live(base, "farm", where)
        self.before = self.live.seen()
        self.kept = base / "kept"
        shutil.copytree(self.live.place, self.kept, symlinks=True)
        settings = base / "site.toml"
        settings.write_text('shared = ["uploads/"]\n')
        self.words = ["release", "adopt", str(self.live.place), "--site", str(self.live.site_path)]
        self.words += ["--settings", str(settings), "--mirror", str(self.live.shop.repo.path), "--ref", "v1"]

    def prepare(self) -> None:
        for path in (self.live.place, self.live.site_path):
            if path.is_symlink():
                path.unlink()
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self.kept, self.live.place, symlinks=True)

    def check(self, run_: Run) -> None:
        """Readers find all of it; a second try ends it, and the way back leads back."""
        assert "Traceback" not in run_.stderr, run_.stderr
        assert self.live.seen() == self.before
        with contextlib.suppress(PreflightRefused):  # it is done
            self.live.adopt()
        assert self.live.seen() == self.before
        assert self.live.site.current() is not None
        self.live.adopter.undo()
        assert files_of(self.live.place) == files_of(self.kept)

    def check_back(self, run_: Run) -> None:
        """The same of the way back: it can be gone to its end, or to the other one."""
        assert "Traceback" not in run_.stderr, run_.stderr
        assert self.live.seen() == self.before
        if self.live.site.adoption() is not None:
            self.live.adopter.undo()
        assert files_of(self.live.place) == files_of(self.kept)
        self.live.adopt()
        assert self.live.seen() == self.before


#: How it ends, and on which way. A sample takes two of them: each has runs of its own to make before the first cut.
CUTS = (("kill", "there"), ("power cut", "back"), ("kill", "back"), ("power cut", "there"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("how", "way"), CUTS if sample_size(1) is None else CUTS[:2])
def test_cut_off_at_any_call_readers_find_all_and_it_can_be_ended_or_undone(tmp_path: Path, how: str, way: str) -> None:
    disk = Disk(tmp_path) if how == "power cut" else None
    where = disk.where if disk is not None else tmp_path
    try:
        sweep = Sweep(tmp_path, where)

        def prepare() -> None:
            sweep.prepare()
            if way == "back":
                sweep.live.adopt()

        if disk is not None:
            prepare()
            disk.save()

        def check(run_: Run) -> None:
            if disk is not None:
                disk.cut()
            (sweep.check if way == "there" else sweep.check_back)(run_)

        words = sweep.words if way == "there" else [*sweep.words, "--undo"]
        roots, again = [where / "www", where / "sites"], prepare if disk is None else disk.restore
        print(kill_sweep(command(*words), roots=roots, prepare=again, check=check, sample=sample_size(1)))
    finally:
        if disk is not None:
            disk.unmount()
