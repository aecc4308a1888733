"""Releases that stay: drift, recycling, how many are kept, and what is pinned."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploykit.errors import ReleaseError
from deploykit.release import Allowances
from deploykit.settings import SiteSettings
from tests.support.gitrepo import GITLINK, SYMLINK
from tests.support.releasing import Files, Shop, script


def test_drift_is_warned_of_refused_or_ignored(shop: Shop) -> None:
    shop.put({"a": b"1", "b": b"1", "cache/x": b"1"})
    (shop.path / "current" / "a").write_text("by hand")
    (shop.path / "current" / "cache" / "y").write_text("by the application")
    warned = shop.put({"a": b"2", "cache/x": b"1"})
    assert warned.outcome == "success"
    assert "was edited by hand: modified a, added cache/y" in warned.detail
    (shop.path / "current" / "a").write_text("by hand")
    shop.settings = SiteSettings(drift="refuse", drift_ignore=("cache/*",))
    refused = shop.put({"a": b"3"})
    assert (refused.outcome, refused.exit_code) == ("refused", 3)
    assert "modified a" in refused.detail
    assert "cache" not in refused.detail
    assert shop.deploy("v3", allow=Allowances(drift=True)).outcome == "success"
    (shop.path / "current" / "a").write_text("by hand")
    shop.settings = SiteSettings(drift="ignore")
    assert shop.put({"a": b"4"}).detail == ""


def test_what_scripts_leave_in_a_release_is_not_drift_but_a_later_edit_is(shop: Shop) -> None:
    build = script("echo built > built.css", "mkdir -p node_modules/x", "echo y > node_modules/x/y", "echo more >> a")
    shop.put({"a": b"1\n", "deploy/pre-deploy": build})
    assert shop.read("a") == "1\nmore\n"
    assert not shop.runner.verify()
    (shop.path / "current" / "built.css").write_text("edited")
    assert shop.runner.verify().lines() == ["modified built.css"]


def test_a_recycled_release_has_nothing_of_its_former_life(shop: Shop) -> None:
    build = script("echo $DEPLOYKIT_TAG >> generated", "echo more >> a")
    shop.settings = SiteSettings(keep=1, grace=0, drift="ignore")
    for n in range(1, 6):
        result = shop.put({"a": b"%d\n" % n, f"only-in-{n}": b"x", "deploy/pre-deploy": build})
        (shop.path / "current" / "trash").write_text("x")
    assert "recycled" in next(s.output for s in result.steps if s.name == "export")
    (shop.path / "current" / "trash").unlink()
    assert shop.read("generated") == "v5\n"
    assert shop.read("a") == "5\nmore\n"
    assert {p.name for p in (shop.path / "current").iterdir()} == {
        *("a", "only-in-5", "deploy", "generated", "TAG", ".deploykit"),
    }


def _looks(root: Path) -> dict[str, tuple[int, int, int]]:
    every = [root, *root.rglob("*")]
    return {str(p.relative_to(root)): (p.lstat().st_mode, p.lstat().st_uid, p.lstat().st_gid) for p in every}


def test_a_recycled_release_has_the_modes_owners_and_directories_of_a_fresh_one(shop: Shop, tmp_path: Path) -> None:
    """Whatever scripts or people did to the one it is made from."""
    shop.settings = SiteSettings(keep=1, grace=0, drift="ignore", submodules="skip", umask=0o022)
    for n in range(1, 6):
        files: Files = {"a": b"%d" % n, "d/e/same": b"same", "d/link": (SYMLINK, b"e"), "sub/mod": (GITLINK, b"1" * 40)}
        result = shop.put(files)
        live = (shop.path / "current").resolve()
        if n < 5:
            for name, mode in ((".", 0o700), ("d", 0o777), ("d/e", 0o2755), (".deploykit", 0o700)):
                (live / name).chmod(mode)
            (live / "sub/mod").rmdir()
            (live / "elsewhere").hardlink_to(live / "d/e/same")
            (live / "elsewhere").rename(tmp_path / f"elsewhere-{n}")
            if os.geteuid() == 0:
                for name in ("a", "d", "d/e/same", "d/link"):
                    os.chown(live / name, 12345, 12346, follow_symlinks=False)
    assert "recycled" in next(s.output for s in result.steps if s.name == "export")
    fresh = Shop(tmp_path / "other", shop.settings)
    fresh.repo = shop.repo
    fresh.deploy("v5").check()
    assert _looks(live) == _looks((fresh.path / "current").resolve())
    assert (live / "d/e/same").stat().st_nlink == 1
    shop.whole()


def test_a_recycled_release_keeps_no_directory_for_state_files_that_are_no_longer_wanted(shop: Shop) -> None:
    shop.settings = SiteSettings(keep=1, grace=0)
    for n in range(3):
        shop.put({"a": b"%d" % n})
    shop.settings = SiteSettings(keep=1, grace=0, state_files=False)
    for n in range(3):
        shop.put({"a": b"more %d" % n})
        assert [p.name for p in (shop.path / "current").iterdir()] == ["a"]


def test_keep_pinned_and_last_good(shop: Shop) -> None:
    shop.settings = SiteSettings(keep=2, grace=0)
    for n in range(1, 4):
        shop.put({"a": b"%d" % n})
    shop.runner.pin("v1")
    for n in range(4, 8):
        shop.put({"a": b"%d" % n})
    assert {r.tag for r in shop.runner.releases() if r.present} == {"v1", "v5", "v6", "v7"}
    assert next(r.tag for r in shop.runner.releases() if r.spare) == "v5"
    assert len(shop.names()) == 4
    shop.runner.pin("v1", pinned=False)
    shop.settings = SiteSettings(keep=2, recycle=False, grace=0)
    shop.put({"a": b"8"})
    assert {r.tag for r in shop.runner.releases() if r.present} == {"v7", "v8"}
    assert len(shop.names()) == 2
    assert {p.stem for p in (shop.path / ".deploykit" / "manifests").iterdir()} == shop.names()
    with pytest.raises(ReleaseError):
        shop.runner.pin("v1")


def test_failed_releases_never_push_good_ones_out(shop: Shop) -> None:
    shop.settings = SiteSettings(keep=2, grace=0)
    for n in range(1, 4):
        shop.put({"a": b"%d" % n})
    for n in range(8):
        shop.put({"a": b"bad %d" % n, "deploy/pre-deploy": script("exit 1")})
    good = {r.tag for r in shop.runner.releases() if r.present and r.status == "good"}
    assert good >= {"v2", "v3"}
    assert shop.read("a") == "3"
    assert len(shop.names()) <= 4
    assert shop.runner.rollback().outcome == "success"
