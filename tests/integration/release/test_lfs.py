"""Sites with files in Git LFS, as releases: file by file what git writes with Debian's git-lfs."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

import attrs
import pytest

from deploykit.errors import LfsMissing
from deploykit.git.repository import Repository
from deploykit.mirror.submodules import SubmoduleRules, SubmoduleSource
from deploykit.names import RepoName
from deploykit.release import DeployResult, Runner, Site
from deploykit.release.adopt import Adopter
from deploykit.settings import SiteSettings
from tests.support.disks import small_disk
from tests.support.killsweep import Run, kill_sweep, sample_size
from tests.support.lfsrepos import TRACKED, LfsWorked
from tests.support.needs import needs_root
from tests.support.parts import OURS as PART_FILES
from tests.support.parts import Assembly
from tests.support.submodules import files_of

OURS = ("TAG", ".deploykit/REVISION")
SETTINGS = SiteSettings(grace=0, keep=1)
FILES = {
    ".gitattributes": TRACKED,
    "index.php": b"<?php 1",
    "img/a.bin": b"\x89PNG 1" * 5000,
    "img/b.bin": b"the same in two places" * 99,
    "copy/b.bin": b"the same in two places" * 99,
    "tool.bin*": b"#!/bin/sh\n",
    "empty.bin": b"",
    "link.bin@": b"img/a.bin",
    "page": b"no object\n",
}


class World:
    def __init__(self, base: Path, site: Path | None = None, settings: SiteSettings = SETTINGS) -> None:
        self.base = base
        self.shop = LfsWorked(base, "shop")
        self.shop.push(FILES, tag="v1")
        self.site = Site(site or base / "site", settings)

    @property
    def current(self) -> Path:
        return self.site.path / "current"

    def deploy(self, tag: str) -> DeployResult:
        with Repository(self.shop.origin) as source:
            return Runner(self.site, node="n").deploy(source, f"refs/tags/{tag}", "")

    def export_of(self, tag: str) -> str:
        """Deploy a tag; return what its export says it did."""
        result = self.deploy(tag)
        assert result.outcome == "success", result
        return next(step.output for step in result.steps if step.name == "export")

    def same_as_git(self, tag: str) -> None:
        """Compare what is live with what git clones."""
        clone = self.base / f"clone-{tag}"
        expected = files_of(clone) if clone.exists() else self.shop.cloned(tag, clone)
        assert files_of(self.current, but=OURS) == expected
        assert not Runner(self.site, node="n").verify(self.site.live_name(), paranoid=True)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_fresh_recycled_and_rolled_back_releases_are_what_git_lfs_writes(world: World) -> None:
    assert "files written" in world.export_of("v1")
    world.same_as_git("v1")
    world.shop.push({"img/a.bin": b"\x89PNG 2" * 5000, "new.bin": b"new"}, tag="v2")
    world.export_of("v2")
    world.same_as_git("v2")
    world.shop.push({}, tag="v3")
    world.export_of("v3")
    # The release of v1 is turned into v4: the changed object, the new one, and one that goes; no other is written.
    world.shop.push({"img/b.bin": None}, tag="v4")
    assert "recycled: 2 files written, 1 removed" in world.export_of("v4")
    world.same_as_git("v4")
    assert Runner(world.site, node="n").rollback().outcome == "success"
    world.same_as_git("v3")


def test_attributes_that_change_alone_have_their_files_written_anew(world: World) -> None:
    world.site = Site(world.site.path, attrs.evolve(SETTINGS, older="allow"))
    world.export_of("v1")
    world.shop.push({"x": b"x"}, tag="between")
    pointer = world.shop.git("show", "HEAD:img/a.bin").encode() + b"\n"
    for tag, attributes in (
        ("out", b"# nothing\n"),
        ("back", TRACKED),
        ("macro", b"[attr]big filter=lfs\n*.bin big\n"),
    ):
        world.export_of("between")
        (world.shop.work / ".gitattributes").write_bytes(attributes)
        world.shop.git("add", ".gitattributes")
        world.shop.git("commit", "-q", "-m", "the attributes alone")
        world.shop.git("tag", tag)
        world.shop.git("push", "-q", "origin", f"refs/tags/{tag}")
        world.export_of(tag)
        world.same_as_git(tag)
        content = (world.current / "img/a.bin").read_bytes()
        assert content == (pointer if tag == "out" else FILES["img/a.bin"])


def test_an_edited_object_is_found_and_repaired(world: World) -> None:
    world.export_of("v1")
    world.shop.push({"page": b"2"}, tag="v2")
    world.export_of("v2")
    edited = world.current / "img/a.bin"
    before = edited.stat()
    edited.write_bytes(edited.read_bytes()[::-1])
    os.utime(edited, ns=(before.st_atime_ns, before.st_mtime_ns))
    (world.current / "tool.bin").unlink()
    found = Runner(world.site, node="n").verify()
    assert found.lines() == ["modified img/a.bin", "missing tool.bin"]
    world.shop.push({"page": b"3"}, tag="v3")
    result = world.deploy("v3")
    assert "edited by hand" in result.detail
    assert "modified img/a.bin" in result.detail
    for tag in ("v4", "v5"):
        world.shop.push({"page": tag.encode()}, tag=tag)
        text = world.export_of(tag)
    assert "recycled: 1 files written, 0 removed, 2 brought back" in text  # of the edited one
    world.same_as_git("v5")


def test_what_is_missing_is_named_and_nothing_is_touched(world: World) -> None:
    world.export_of("v1")
    many = {f"many/{number}.bin": b"%d" % number for number in range(7)}
    world.shop.push({**many, "img/a.bin": b"gone too"}, tag="v2")
    for name in (*many, "img/a.bin"):
        world.shop.object_of(name).unlink()
    before = sorted(p.name for p in (world.site.path / "releases").iterdir())
    result = world.deploy("v2")
    assert result.outcome == "refused"
    oid = world.shop.pointer("img/a.bin").oid
    assert f"objects of Git LFS are missing: img/a.bin ({oid}, 8 bytes); many/0.bin" in result.detail
    assert "; and 3 more (fetch the mirror again, or push them to the origin first" in result.detail
    assert sorted(p.name for p in (world.site.path / "releases").iterdir()) == before
    world.same_as_git("v1")


def test_what_the_recycled_release_has_already_is_not_needed(world: World) -> None:
    for tag in ("v2", "v3", "v4"):
        world.shop.push({"page": tag.encode()}, tag=tag)
        world.export_of(tag)
    world.shop.push({"new.bin": b"new", "page": b"5"}, tag="v5")
    lost = world.shop.object_of("img/a.bin")
    aside = lost.rename(world.base / "aside")
    assert "recycled: 2 files written" in world.export_of("v5")
    world.site = Site(world.site.path, attrs.evolve(SETTINGS, recycle=False))
    world.shop.push({"page": b"6"}, tag="v6")
    complete = world.shop.origin / "lfs" / "complete"
    complete.write_text("")
    result = world.deploy("v6")
    assert result.outcome == "refused"
    assert "missing: img/a.bin" in result.detail
    assert not complete.exists(), "the next fetch of a mirror takes nothing for granted"
    aside.rename(lost)
    world.export_of("v6")
    world.same_as_git("v6")


def test_a_prepared_release_goes_live_without_the_objects(world: World) -> None:
    with Repository(world.shop.origin) as source:
        runner = Runner(world.site, node="n")
        assert runner.prepare(source, "refs/tags/v1", "").outcome == "success"
        (world.shop.origin / "lfs" / "objects").rename(world.base / "objects")
        (world.shop.origin / "lfs" / "objects").mkdir()
        assert runner.preview(source, "refs/tags/v1", "").build == runner.releases()[0].name
        assert runner.deploy(source, "refs/tags/v1", "").outcome == "success"
    assert (world.current / "img/a.bin").read_bytes() == FILES["img/a.bin"]


def test_a_damaged_object_stops_the_deploy_and_is_named(world: World) -> None:
    world.export_of("v1")
    world.shop.push({"img/a.bin": b"right"}, tag="v2")
    damaged = world.shop.object_of("img/a.bin")
    damaged.chmod(0o644)
    damaged.write_bytes(b"wrong")
    result = world.deploy("v2")
    assert result.outcome == "failure"
    assert f"the Git LFS object {damaged.name} of img/a.bin is damaged" in result.detail
    world.same_as_git("v1")
    damaged.write_bytes(b"right")
    world.export_of("v2")
    world.same_as_git("v2")


def test_without_objects_a_pointer_is_refused_with_a_hint_or_stays_by_setting(world: World) -> None:
    shutil.rmtree(world.shop.origin / "lfs")
    result = world.deploy("v1")
    assert result.outcome != "success"
    assert "is kept in Git LFS, which is not fetched (set lfs = true" in result.detail
    world.site = Site(world.site.path, attrs.evolve(SETTINGS, raw_attributes=("filter",)))
    world.export_of("v1")
    assert (world.current / "img/a.bin").read_bytes().startswith(b"version https://git-lfs")


def test_objects_that_come_later_are_written_although_nothing_else_changed(world: World) -> None:
    store, aside = world.shop.origin / "lfs", world.base / "aside"
    world.site = Site(world.site.path, attrs.evolve(SETTINGS, raw_attributes=("filter",)))
    store.rename(aside)
    world.export_of("v1")
    aside.rename(store)
    world.shop.push({"page": b"2"}, tag="v2")
    world.export_of("v2")
    world.same_as_git("v2")
    world.shop.push({"page": b"3"}, tag="v3")
    assert "files written" in world.export_of("v3")  # the release with pointers is not made into another one
    world.same_as_git("v3")


def test_a_dry_run_names_changed_objects_and_refuses_missing_ones(world: World) -> None:
    world.export_of("v1")
    world.shop.push({"img/a.bin": b"2"}, tag="v2")
    with Repository(world.shop.origin) as source:
        found = Runner(world.site, node="n").preview(source, "refs/tags/v2", "")
        assert (found.added, found.changed, found.removed) == ((), ("img/a.bin",), ())
        world.shop.object_of("img/a.bin").unlink()
        with pytest.raises(LfsMissing, match=r"objects of Git LFS are missing: img/a\.bin"):
            Runner(world.site, node="n").preview(source, "refs/tags/v2", "")


def test_each_submodule_has_objects_and_attributes_of_its_own(tmp_path: Path) -> None:
    world = World(tmp_path, settings=attrs.evolve(SETTINGS, submodules="mirror"))
    theme = LfsWorked(tmp_path, "theme")
    theme.push({"big.bin": b"theme", "raw.bin": b"never tracked here"})
    theme.push({".gitattributes": b"big.bin filter=lfs -text\n", "big.bin": b"theme, tracked"})
    world.shop.add(theme, "theme")
    world.shop.push({}, tag="v2")

    def deploy() -> DeployResult:
        with ExitStack() as stack:
            rules = SubmoduleRules(
                repositories={theme.url: RepoName("theme")},
                open=lambda _: stack.enter_context(Repository(theme.origin)),
            )
            source = SubmoduleSource(stack.enter_context(Repository(world.shop.origin)), world.shop.url, rules)
            return Runner(world.site, node="n").deploy(source, "refs/tags/v2", "")

    lost = theme.object_of("big.bin")
    lost.rename(tmp_path / "lost")
    result = deploy()
    assert result.outcome == "refused"
    assert "missing: theme/big.bin" in result.detail
    assert "fetch the mirror of theme again" in result.detail
    (tmp_path / "lost").rename(lost)
    assert deploy().outcome == "success"
    world.same_as_git("v2")


def test_each_part_of_a_site_has_objects_of_its_own(tmp_path: Path) -> None:
    made = Assembly(tmp_path, {"app": "web", "data": "web-data"}, SETTINGS)
    app, data = LfsWorked(tmp_path / "lfs", "app"), LfsWorked(tmp_path / "lfs", "data")
    made.repos = {RepoName("app"): app, RepoName("data"): data}
    app.push({"a.bin": b"not tracked here", "raw": b"1"}, tag="v1")
    data.push({".gitattributes": TRACKED, "sub/big.bin": b"\x89PNG" * 900, "raw": b"1"}, tag="d1")
    lost = data.object_of("sub/big.bin")
    lost.rename(tmp_path / "lost")
    result = made.deploy(app="v1", data="d1")
    assert result.outcome == "refused"
    assert "missing: web-data/sub/big.bin" in result.detail
    assert "fetch the mirror of data again" in result.detail
    (tmp_path / "lost").rename(lost)

    def same_as_git(**tags: str) -> None:
        expected: dict[str, tuple[str, bytes]] = {}
        for repo, tag in tags.items():
            files = made.repos[RepoName(repo)].cloned(tag, tmp_path / f"{repo}-{tag}")
            expected |= {f"{made.places[RepoName(repo)]}/{path}": content for path, content in files.items()}
        assert files_of(made.path / "current", but=PART_FILES) == expected

    assert made.deploy(app="v1", data="d1").outcome == "success"
    same_as_git(app="v1", data="d1")
    for number in (2, 3, 4):
        app.push({"raw": b"%d" % number}, tag=f"v{number}")
        data.push({"sub/big.bin": b"%d" % number}, tag=f"d{number}")
        made.deploy(app=f"v{number}", data="d3" if number == 4 else f"d{number}")
    same_as_git(app="v4", data="d3")


def test_an_adopted_clone_is_compared_with_its_objects(world: World) -> None:
    place = world.base / "live"
    world.shop.cloned("v1", place)
    before = files_of(place)
    (place / "img/b.bin").write_bytes(b"edited by hand, here")
    adopter = Adopter(world.site, place)
    with Repository(place) as source:
        found = adopter.adopt(source, "refs/tags/v1")
    assert (found.files.added, found.files.modified, found.files.missing) == ((), ("img/b.bin",), ())
    row = {r.path: r.oid for r in world.site.manifest(found.adoption.release).rows()}
    assert row["img/a.bin"] == world.shop.git("hash-object", "--no-filters", str(place / "img/a.bin"))
    assert set(row["img/b.bin"]) == {"0"}
    world.shop.push({"tool.bin*": b"#!/bin/sh\n# 2\n"}, tag="v2")
    with Repository(world.shop.origin) as source:
        would = Runner(world.site, node="n").preview(source, "refs/tags/v2", "")
    assert (would.added, would.changed, would.removed) == ((), ("img/b.bin", "tool.bin"), ())
    world.export_of("v2")
    world.same_as_git("v2")
    assert files_of(place, but=OURS) == before | {"tool.bin": ("program", b"#!/bin/sh\n# 2\n")}


@needs_root("to mount a tmpfs")
def test_the_same_on_a_tmpfs(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=64m,mode=755") as disk:
        world = World(tmp_path, disk / "site")
        world.export_of("v1")
        for tag in ("v2", "v3", "v4"):
            world.shop.push({"img/a.bin": tag.encode()}, tag=tag)
            text = world.export_of(tag)
        assert "recycled: 1 files written" in text
        world.same_as_git("v4")


def test_killed_anywhere_while_objects_are_written_the_old_or_the_new_site_stands(tmp_path: Path) -> None:
    world = World(tmp_path)
    tags = ("v1", "v2", "v3", "v4")
    for tag in tags[1:]:
        world.shop.push({"img/a.bin": tag.encode() * 1000, f"{tag}.bin": b"new"}, tag=tag)
    for tag in tags[:-1]:
        world.export_of(tag)
    saved = tmp_path / "saved"
    shutil.copytree(world.site.path, saved, symlinks=True)
    clones = [world.shop.cloned(tag, tmp_path / f"clone-{tag}") for tag in ("v3", "v4")]

    def prepare() -> None:
        shutil.rmtree(world.site.path)
        shutil.copytree(saved, world.site.path, symlinks=True)

    def check(_: Run) -> None:
        assert files_of(world.current, but=OURS) in clones
        assert world.deploy("v4").outcome == "success"
        world.same_as_git("v4")

    words = ["release", "deploy", str(world.site.path), "--mirror", str(world.shop.origin), "--ref", "v4"]
    report = kill_sweep(
        [sys.executable, "-m", "deploykit", *words],
        roots=[world.site.path],
        prepare=prepare,
        check=check,
        sample=sample_size(2),
    )
    print(report)
