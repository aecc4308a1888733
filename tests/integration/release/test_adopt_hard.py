"""Adopting a live directory where something is in the way, cut off, or written meanwhile: refused, ended, kept."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.errors import PreflightRefused
from deploykit.release import Site
from deploykit.release.adopt import Adopter
from deploykit.release.adoption import Adoption
from deploykit.settings import SiteSettings
from tests.support.adopting import FILES, SETTINGS, Live, read_all_the_time
from tests.support.cli import run
from tests.support.disks import small_disk
from tests.support.needs import needs_root
from tests.support.strangers import NOBODY, common_directory, in_child_of


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """One whose way belongs to root alone, where root runs this."""
    with common_directory() as path:
        yield path


def test_nothing_is_shared_that_is_behind_a_symlink(tmp_path: Path) -> None:
    live = Live(tmp_path, "directory")
    (tmp_path / "others" / "up").mkdir(parents=True)
    (live.place / "web").symlink_to(tmp_path / "others")
    adopter = Adopter(Site(live.site_path, SiteSettings(shared=("web/up/",))), live.place)
    with pytest.raises(PreflightRefused, match="behind the symlink"):
        adopter.adopt()
    assert not (tmp_path / "others" / "up").is_symlink()


@needs_root("to mount a directory")
def test_what_is_mounted_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    live = Live(tmp_path, "directory")
    (live.site_path / "shared").mkdir(parents=True)
    for mounted, why in ((live.place, "is a mount point"), (live.place / "uploads", "on another file system")):
        subprocess.run(["mount", "--bind", mounted, mounted], check=True)
        try:
            with pytest.raises(PreflightRefused, match=why):
                live.adopter.adopt()
        finally:
            subprocess.run(["umount", mounted], check=True)
        assert live.site.adoption() is None
    (live.site_path / "shared").rmdir()
    shared = small_disk(live.site_path / "shared", "size=1m,mode=755")
    with shared, pytest.raises(PreflightRefused, match="shared is on another"):
        live.adopter.adopt()
    assert live.site.adoption() is None


@needs_root("to become somebody else")
def test_somebody_elses_directory_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    live = Live(tmp_path, "directory")
    for path in (live.place.parent, tmp_path):
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)

    def adopt() -> str:
        try:
            live.adopter.adopt()
        except PreflightRefused as error:
            return str(error)
        return "adopted"

    assert "may not be written to" in in_child_of("nobody", adopt)
    assert not live.site_path.exists()


@pytest.mark.parametrize("taken", ["current", "releases/00001-v1-{}"])
def test_what_has_a_name_that_the_site_needs_is_not_replaced(tmp_path: Path, taken: str) -> None:
    live = Live(tmp_path, "directory")
    path = live.site_path / taken.format(live.commit[:12])
    path.mkdir(parents=True)
    with pytest.raises(PreflightRefused, match="is there already"):
        live.adopt()
    assert path.is_dir()
    assert not live.place.is_symlink()


def test_the_sites_own_current_may_lead_elsewhere(tmp_path: Path) -> None:
    live = Live(tmp_path, "directory")
    before = live.seen()
    live.site_path.mkdir(parents=True)
    kept, live.place = live.place, live.site_path / "current"
    live.place.symlink_to(kept)
    with read_all_the_time(live):
        live.adopt()
    assert live.seen() == before
    assert live.site.current() is not None
    live.adopter.undo()
    assert live.place.readlink() == kept


def test_a_site_inside_what_a_symlink_leads_to_is_refused(tmp_path: Path) -> None:
    live = Live(tmp_path, "linked")
    live.site_path = live.place.resolve() / "site"
    with pytest.raises(PreflightRefused, match="would be inside"):
        live.adopter.adopt()
    assert not live.site_path.exists()


def test_symlinks_may_be_on_the_way_to_the_directory(tmp_path: Path) -> None:
    """`..` in a symlink leads out of where the directory really is."""
    live = Live(tmp_path, "directory")
    (tmp_path / "beside").write_text("beside")
    (live.place / "out").symlink_to("../../beside")
    (tmp_path / "far" / "off").mkdir(parents=True)
    (tmp_path / "far" / "off" / "www").symlink_to(tmp_path / "www")
    live.place = tmp_path / "far" / "off" / "www" / "shop"
    before = live.seen()
    live.adopt()
    assert live.seen() == before
    live.adopter.undo()
    assert (live.place / "out").readlink() == Path("../../beside")


def test_symlinks_may_be_on_the_way_to_the_site(tmp_path: Path) -> None:
    live = Live(tmp_path, "capistrano")
    (tmp_path / "short").symlink_to(live.site_path)
    live.site_path = tmp_path / "short"
    was = live.place.readlink()
    live.adopt()
    assert Site(live.site_path, SETTINGS).current() is not None
    live.adopter.undo()
    assert live.place.readlink() == was


class Cut(BaseException):
    """The plug is pulled."""


def test_a_site_whose_adoption_was_cut_off_is_deployed_to_when_that_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is live is not on record yet: a deploy would take it for something left over, and remove it."""
    live = Live(tmp_path, "clone")
    (live.place / "only-here").write_text("x")
    before = live.seen()

    def cut(*_: object) -> None:
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(Adopter, "_write_down", cut)
        with pytest.raises(Cut):
            live.adopt()
    live.shop.path = live.site_path
    for _ in range(2):
        refused = live.shop.deploy("v1")
        assert (refused.outcome, "was cut off" in refused.detail) == ("refused", True)
        assert live.seen() == before
    (tmp_path / "site.toml").write_text('shared = ["uploads/"]\n')
    words = ["release", "adopt", str(live.place), "--site", str(live.site_path), "--json"]
    done = run(*words, "--settings", str(tmp_path / "site.toml"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["files"]["added"] == ["only-here"], "the clone's own repository is still found"
    assert live.shop.put({**FILES, "index.html": b"new"}).outcome == "success"
    assert live.site.recorded().releases[0].commit == live.commit


def test_one_that_was_cut_off_at_its_last_step_keeps_what_was_deployed_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Live(tmp_path, "directory")
    save = Adopter._save

    def cut(self: Adopter, plan: Adoption) -> None:
        if plan.done:
            raise Cut
        save(self, plan)

    with monkeypatch.context() as patch:
        patch.setattr(Adopter, "_save", cut)
        with pytest.raises(Cut):
            live.adopt()
    live.shop.path = live.site_path
    assert live.shop.put({**FILES, "index.html": b"new"}).outcome == "success"
    record = live.site.recorded()
    live.adopt()
    assert live.site.recorded() == record
    assert (live.place / "index.html").read_bytes() == b"new"
    with pytest.raises(PreflightRefused, match="already"):
        live.adopt()


def test_what_was_written_into_the_copy_survives_the_way_back(tmp_path: Path) -> None:
    live = Live(tmp_path, "linked")
    live.adopt()
    (live.place / "uploads" / "two.jpg").write_text("precious")
    undone = live.adopter.undo()
    assert undone.kept is not None
    assert "uploads/two.jpg" in undone.written
    assert (undone.kept / "uploads" / "two.jpg").read_text() == "precious"
    live.adopt()
    assert live.adopter.undo().kept is None


def test_files_and_symlinks_that_go_meanwhile_are_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = Live(tmp_path, "farm")
    look = os.stat

    def look_and_remove(path: str, **options: object) -> os.stat_result:
        seen = look(path, **options)  # type: ignore[arg-type]
        if path == "a.php":
            (live.place / "lib" / "a.php").unlink(missing_ok=True)
            (live.place / "theme").unlink(missing_ok=True)
        return seen

    with monkeypatch.context() as patch:
        patch.setattr("deploykit.release.livefiles.os.stat", look_and_remove)
        live.adopt()
    assert not (live.place / "lib" / "a.php").exists()
    (live.place / "lib" / "deep").unlink()
    live.adopter.undo()
    assert not live.place.is_symlink()
    assert (live.place / "index.html").is_file()
