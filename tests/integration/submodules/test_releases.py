"""Sites with submodules, as releases: file by file what `git clone --recurse-submodules` writes."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import attrs
import pytest

from deploykit.git.repository import Repository
from deploykit.mirror.submodules import SubmoduleRules, SubmoduleSource
from deploykit.names import RepoName
from deploykit.release import DeployResult, Runner, Site
from deploykit.settings import SiteSettings
from tests.support.cli import run
from tests.support.disks import small_disk
from tests.support.needs import needs_root
from tests.support.submodules import Worked, files_of

OURS = ("TAG", ".deploykit/REVISION")
SETTINGS = SiteSettings(submodules="mirror", grace=0)


class World:
    """A shop with a theme and a library in it, which has a library in turn."""

    def __init__(self, base: Path, site: Path | None = None) -> None:
        self.base = base
        self.deep, self.lib, self.theme, self.shop = (Worked(base, name) for name in ("deep", "lib", "theme", "shop"))
        self.deep.push({"deep.txt": b"deep 1"})
        self.lib.add(self.deep, "vendor/deep", url="../deep.git")
        self.lib.push({"lib.py*": b"lib 1", "link@": b"vendor/deep/deep.txt"})
        self.theme.push({"style.css": b"red", "img/a.png": b"\x89PNG" * 300, ".gitattributes": b"*.css text eol=lf\n"})
        self.shop.add(self.theme, "public/theme")
        self.shop.add(self.lib, "lib", url="../lib.git")
        self.shop.push({"index.php": b"<?php 1", "public/up@": b"theme/style.css"}, tag="v1")
        self.site = Site(site or base / "site", SETTINGS)
        self.table = {other.url: RepoName(other.name) for other in (self.theme, self.lib, self.deep)}

    def source(self, stack: ExitStack, *, depth: int = 4) -> SubmoduleSource:
        opened = {
            name: stack.enter_context(Repository(self.base / "srv" / f"{name}.git")) for name in self.table.values()
        }
        base = stack.enter_context(Repository(self.shop.origin))
        rules = SubmoduleRules(repositories=self.table, open=opened.__getitem__, depth=depth)
        return SubmoduleSource(base, self.shop.url, rules)

    def deploy(self, tag: str, **more: object) -> DeployResult:
        with ExitStack() as stack:
            return Runner(self.site, node="n").deploy(self.source(stack), f"refs/tags/{tag}", "", **more)  # type: ignore[arg-type]

    def same_as_git(self, tag: str) -> None:
        """Compare what is live with what git clones."""
        expected = self.shop.cloned(tag, self.base / f"clone-{tag}")
        assert files_of(self.site.path / "current", but=OURS) == expected
        assert len(expected) >= 7


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_release_is_what_git_clones_and_the_next_one_writes_what_changed(world: World) -> None:
    first = world.deploy("v1")
    assert first.outcome == "success", first
    world.same_as_git("v1")
    assert (world.site.path / "current" / ".deploykit/REVISION").read_text().strip() == world.shop.git(
        "rev-parse", "v1"
    )

    world.shop.follow("public/theme", world.theme.push({"style.css": b"blue"}))
    world.shop.push({}, tag="v2")
    assert world.deploy("v2").outcome == "success"
    world.same_as_git("v2")

    # A submodule's own submodule moves, and one comes to another path.
    world.lib.follow("vendor/deep", world.deep.push({"deep.txt": b"deep 2", "new": b"n"}))
    world.shop.follow("lib", world.lib.push({"lib.py*": b"lib 2"}))
    world.shop.git("mv", "public/theme", "theme")
    world.shop.push({"public/up@": b"../theme/style.css"}, tag="v3")
    assert world.deploy("v3").outcome == "success"
    world.same_as_git("v3")

    runner = Runner(world.site, node="n")
    assert runner.rollback().outcome == "success"
    assert files_of(world.site.path / "current", but=OURS) == files_of(world.base / "clone-v2")


def test_a_recycled_release_writes_only_what_changed_in_submodules(world: World) -> None:
    settings = attrs.evolve(SETTINGS, keep=1)
    world.site = Site(world.site.path, settings)
    for number in range(1, 5):
        world.shop.follow("public/theme", world.theme.push({"style.css": b"%d" % number}))
        world.shop.push({}, tag=f"n{number}")
        result = world.deploy(f"n{number}")
        assert result.outcome == "success", result
    export = next(step for step in result.steps if step.name == "export")
    assert "recycled: 1 files written, 0 removed" in export.output, export
    world.same_as_git("n4")
    assert not Runner(world.site, node="n").verify(world.site.live_name(), paranoid=True)


def test_a_dry_run_lists_what_changes_inside_submodules(world: World) -> None:
    assert world.deploy("v1").outcome == "success"
    world.shop.follow("public/theme", world.theme.push({"style.css": b"blue", "new.css": b""}))
    world.shop.push({}, tag="v2")
    with ExitStack() as stack:
        found = Runner(world.site, node="n").preview(world.source(stack), "refs/tags/v2", "")
    assert (found.added, found.changed, found.removed) == (("public/theme/new.css",), ("public/theme/style.css",), ())


@needs_root("to mount a tmpfs")
def test_the_same_on_a_tmpfs(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=64m,mode=755") as disk:
        world = World(tmp_path, disk / "site")
        assert world.deploy("v1").outcome == "success"
        world.same_as_git("v1")


def test_all_that_is_missing_is_named_and_nothing_is_touched(world: World) -> None:
    del world.table[world.theme.url]
    lost = world.deep.push({"deep.txt": b"never on a branch"}, branch="wip")
    world.lib.follow("vendor/deep", lost)
    world.shop.follow("lib", world.lib.push({}))
    world.shop.push({}, tag="v2")
    subprocess.run(["git", "-C", str(world.deep.origin), "update-ref", "-d", "refs/heads/wip"], check=True)
    result = world.deploy("v2")
    assert result.outcome == "refused"
    theme, deep = f"public/theme ({world.theme.url})", f"lib/vendor/deep ({world.deep.url})"
    assert f"{theme}: no repository in the settings stands for that address" in result.detail
    assert f"{deep}: no branch or tag in the mirror of deep has commit {lost[:12]}" in result.detail
    assert "name their repositories in [submodules]" in result.detail
    assert not (world.site.path / "releases").exists() or not list((world.site.path / "releases").iterdir())


def test_submodules_deeper_than_allowed_are_named_and_circles_end(world: World) -> None:
    world.deep.add(world.lib, "again")  # deep is in lib already
    world.lib.follow("vendor/deep", world.deep.push({}))
    world.shop.follow("lib", world.lib.push({}))
    world.shop.push({}, tag="v2")
    with ExitStack() as stack:
        result = Runner(world.site, node="n").deploy(world.source(stack, depth=2), "refs/tags/v2", "")
    assert result.outcome == "refused"
    assert "lib/vendor/deep/again" in result.detail
    assert "3 submodules deep; 2 are allowed" in result.detail


def test_without_mirrors_the_way_out_is_named(world: World) -> None:
    with Repository(world.shop.origin) as plain:
        result = Runner(world.site, node="n").deploy(plain, "refs/tags/v1", "")
    assert result.outcome in ("refused", "failure")
    assert "lib is a submodule without an entry in .gitmodules, or its mirrors are not given" in result.detail


def test_a_lost_release_is_made_again_from_the_mirrors(world: World) -> None:
    assert world.deploy("v1").outcome == "success"
    world.shop.push({"index.php": b"<?php 2"}, tag="v2")
    assert world.deploy("v2").outcome == "success"
    first = next(release for release in world.site.releases() if release.tag == "v1")
    shutil.rmtree(world.site.release_path(first.name))
    with ExitStack() as stack:
        assert Runner(world.site, node="n").rollback(source=world.source(stack)).outcome == "success"
    world.same_as_git("v1")


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(world: World, tmp_path: Path) -> list[str]:
    """The words of `release deploy`, with a clone of people's: its origin makes relative addresses whole."""
    settings = tmp_path / "site.toml"
    settings.write_text('submodules = "mirror"\n')
    words = ["release", "deploy", str(world.site.path), "--mirror", str(world.shop.work), "--settings", str(settings)]
    for other in (world.theme, world.lib, world.deep):
        words += ["--submodule", f"{other.url.removesuffix('.git')}={other.origin}"]
    return [*words, "--ref", "v1"]


def test_the_command_takes_a_mirror_for_each_address(world: World, command: list[str]) -> None:
    done = run(*command)
    assert done.returncode == 0, done.stderr
    world.same_as_git("v1")


def test_a_mirror_that_is_not_given_is_named(world: World, command: list[str]) -> None:
    at = command.index("--submodule")
    done = run(*command[:at], *command[at + 2 :])
    assert done.returncode == 1, done.stderr
    assert "public/theme" in done.stderr
    assert run(*command, "--submodule", "theme.git").returncode == 2
