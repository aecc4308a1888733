"""Adopting a live directory where something is in the way, cut off, or written meanwhile: refused, ended, kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.errors import PreflightRefused
from deploykit.git.repository import Repository
from deploykit.names import RepoName
from deploykit.release import Site
from deploykit.release.adopt import Adopter
from deploykit.release.adoption import Adoption
from deploykit.settings import SiteSettings
from deploykit.system.durable import write_all
from deploykit.system.exchange import exchange
from deploykit.trees import compare
from tests.support.adopting import FILES, SETTINGS, Live, read_all_the_time
from tests.support.cli import run, run_here
from tests.support.disks import small_disk
from tests.support.needs import needs_root
from tests.support.origins import GitRepo
from tests.support.parts import Assembly
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
    with read_all_the_time(live.base, live.place):
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


def test_a_way_back_that_was_cut_off_right_after_the_exchange_is_gone_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Live(tmp_path, "clone")
    before = live.seen()
    live.adopt()

    def exchange_and_cut(*names: Path) -> None:
        exchange(*names)
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr("deploykit.release.adopt.exchange", exchange_and_cut)
        with pytest.raises(Cut):
            live.adopter.undo()
    assert live.seen() == before
    live.adopter.undo()
    assert live.seen() == before
    assert (live.place / ".git").is_dir()
    assert live.site.adoption() is None


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
        patch.setattr("deploykit.trees.livefiles.os.stat", look_and_remove)
        live.adopt()
    assert not (live.place / "lib" / "a.php").exists()
    (live.place / "lib" / "deep").unlink()
    live.adopter.undo()
    assert not live.place.is_symlink()
    assert (live.place / "index.html").is_file()


def test_what_changes_in_a_directory_elsewhere_while_it_is_copied_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Live(tmp_path, "linked")
    original = live.place.resolve()
    write = write_all

    def write_and_change(fd: int, data: bytes) -> None:
        write(fd, data)
        if data == b"old":
            (original / "index.html").write_bytes(b"new")  # of the same size, and after it was read
        (original / "uploads" / "two.jpg").write_text("came")
        (original / "bin" / "run").unlink(missing_ok=True)

    with monkeypatch.context() as patch:
        patch.setattr("deploykit.trees.copying.write_all", write_and_change)
        done = live.adopter.adopt()
    assert "index.html" in done.late
    assert set(done.late) <= {"index.html", "uploads/two.jpg", "bin/run"}, "the others may be in the copy as they are"
    assert (live.place / "index.html").read_bytes() == b"old"


def test_a_clone_knows_the_tag_or_the_commit_that_it_is_at(tmp_path: Path) -> None:
    live = Live(tmp_path, "clone")
    git = ["git", "-C", str(live.place)]
    subprocess.run([*git, "checkout", "-q", "--detach", "v1"], check=True)
    with Repository(live.place) as clone:
        assert clone.checked_out() == "refs/tags/v1"
    words = ["release", "adopt", str(live.place), "--site", str(live.site_path)]
    assert run_here(*words).returncode == 0
    assert [(one.tag, one.commit) for one in live.site.releases()] == [("v1", live.commit)]
    assert run_here(*words, "--undo").returncode == 0
    subprocess.run([*git, "tag", "second", "v1"], check=True)
    assert run_here(*words).returncode == 0
    assert [(one.name, one.ref) for one in live.site.releases()] == [
        (f"00001-{live.commit[:12]}-{live.commit[:12]}", "")
    ]


def test_a_work_tree_of_another_clone_is_adopted_and_knows_its_commit(tmp_path: Path) -> None:
    """Its `.git` is a file."""
    live = Live(tmp_path, "directory")
    shutil.rmtree(live.place)
    git = ["git", "-C", str(live.shop.repo.path), "worktree", "add", "-q", "--detach"]
    subprocess.run([*git, str(live.place), "v1"], check=True)
    words = ["release", "adopt", str(live.place), "--site", str(live.site_path)]
    done = run_here(*words, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["files"]["added"] == []
    assert [one.tag for one in live.site.releases()] == ["v1"]
    assert run_here(*words, "--undo").returncode == 0
    assert subprocess.run(["git", "-C", str(live.place), "status", "--porcelain"], capture_output=True).stdout == b""


def test_an_empty_directory_is_named_for_no_commit_has_one(tmp_path: Path) -> None:
    live = Live(tmp_path, "directory")
    (live.place / "cache").mkdir()
    with Repository(live.shop.repo.path) as source:
        found = live.adopter.adopt(source, "refs/tags/v1")
    assert found.files.added == ("cache/",)


def test_a_repository_with_longer_ids(tmp_path: Path) -> None:
    repo = GitRepo.make(tmp_path / "long.git", object_format="sha256")
    repo.commit({"index.html": b"old", "lib/a": b"a"})
    place, site = tmp_path / "www", Site(tmp_path / "site", SiteSettings(grace=0))
    subprocess.run(["git", "clone", "-q", str(repo.path), str(place)], check=True)
    with Repository(repo.path) as source:
        found = Adopter(site, place).adopt(source, "refs/heads/main")
    assert (found.files.added, found.files.modified) == ((), ())
    (release,) = site.releases()
    assert not compare(site.manifest(release.name), site.release_path(release.name), paranoid=True)


def test_a_site_of_several_repositories(tmp_path: Path) -> None:
    farm = Assembly(tmp_path, {"app": "app", "theme": "web/theme"})
    app, theme = farm.repos[RepoName("app")], farm.repos[RepoName("theme")]
    app.push({"index.php": b"1"}, tag="v1")
    theme.push({"style.css": b"red"}, tag="t1")
    place = tmp_path / "www" / "farm"
    for repo, tag, where in ((app, "v1", place / "app"), (theme, "t1", place / "web" / "theme")):
        where.parent.mkdir(parents=True)
        subprocess.run(["git", "clone", "-q", "--branch", tag, str(repo.origin), str(where)], check=True)
        shutil.rmtree(where / ".git")
    words = ["release", "adopt", str(place), "--site", str(farm.path)]
    words += ["--part", f"app=app={app.origin}", "--part", f"theme=web/theme={theme.origin}"]
    assert "say of which: --ref app=v1" in run_here(*words, "--ref", "v1").stderr
    assert "nothing of theme is live" in run_here(*words, "--ref", "app=v1").stderr
    done = run_here(*words, "--ref", "app=v1", "--ref", "theme=t1")
    assert done.returncode == 0, done.stderr
    assert "beside v1+t1: 0 added, 0 changed, 0 missing" in done.stdout
    assert [part.ref for part in farm.live().parts] == ["refs/tags/v1", "refs/tags/t1"]
    theme.push({"style.css": b"blue"}, tag="t2")
    assert farm.deploy(theme="t2").outcome == "success"
    assert (place / "web" / "theme" / "style.css").read_bytes() == b"blue"
    assert (place / "app" / "index.php").read_bytes() == b"1"
    assert farm.rollback().outcome == "success"
    assert (place / "web" / "theme" / "style.css").read_bytes() == b"red"
