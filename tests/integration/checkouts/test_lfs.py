"""Directories with files in Git LFS: what git checks out with git-lfs, from the objects of a mirror."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import attrs
import pytest

from deploykit.checkouts import CheckoutResult, Checkouts
from deploykit.mirror import Mirror
from deploykit.mirror.submodules import SubmoduleRules, SubmoduleSource
from deploykit.names import RefName, RepoName
from deploykit.settings.mirror import CheckoutSettings, MirrorSettings
from tests.support.lfsrepos import TRACKED, LfsServer, LfsWorked
from tests.support.submodules import Worked, files_of

MAIN = RefName("refs/heads/main")
FILES = {".gitattributes": TRACKED, "page": b"1", "img/a.bin": b"\x89PNG" * 900, "tool.bin*": b"#!/bin/sh\n"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LfsServer]:
    with LfsServer(tmp_path) as running:
        yield running


@pytest.fixture
def shop(tmp_path: Path) -> LfsWorked:
    made = LfsWorked(tmp_path, "shop")
    made.push(FILES, tag="v1")
    return made


class Scene:
    """A directory of the default branch."""

    def __init__(self, base: Path, **settings: object) -> None:
        (base / "root").mkdir()
        self.base = base
        self.settings = CheckoutSettings(
            mode="trusting",
            target=base / "root" / "shown",
            grace=0,
            durable=False,
            **settings,  # type: ignore[arg-type]
        )

    def update(self, repo: Worked, settings: MirrorSettings) -> CheckoutResult:
        """Fetch, and update the directory."""
        with Mirror.open(self.base / f"{repo.name}.mirror", repo.url, settings) as mirror:
            mirror.fetch()
            return Checkouts(self.settings).update(mirror)

    def expect(self, repo: Worked, tag: str) -> None:
        """Compare the directory with what git clones."""
        assert files_of(self.base / "root" / "shown") == repo.cloned(tag, self.base / f"clone-{tag}")


def test_a_directory_is_what_git_lfs_checks_out(tmp_path: Path, shop: LfsWorked, server: LfsServer) -> None:
    scene = Scene(tmp_path)
    written = [scene.update(shop, server.settings_for(shop)).changed[0].written]
    scene.expect(shop, "v1")
    for tag in ("v2", "v3"):
        shop.push({"img/a.bin": tag.encode(), "page": tag.encode()}, tag=tag)
        written += [change.written for change in scene.update(shop, server.settings_for(shop)).changed]
        scene.expect(shop, tag)
    assert written == [4, 4, 2], "the third is made from the first"
    assert scene.update(shop, server.settings_for(shop)) == CheckoutResult()


def test_what_is_missing_is_named_and_the_directory_follows_when_it_comes(
    tmp_path: Path, shop: LfsWorked, server: LfsServer
) -> None:
    scene = Scene(tmp_path)
    scene.update(shop, server.settings_for(shop))
    shop.push({"img/a.bin": b"late"}, tag="v2")
    late = shop.object_of("img/a.bin")
    late.rename(tmp_path / "late")
    for _ in range(2):
        result = scene.update(shop, server.settings_for(shop))
        assert (result.changed, result.damage, result.lacking) == ((), (), frozenset())
        assert "objects of Git LFS are missing: img/a.bin" in result.failed[MAIN]
        assert (tmp_path / "root" / "shown" / "img" / "a.bin").read_bytes() == FILES["img/a.bin"]
    (tmp_path / "late").rename(late)
    assert len(scene.update(shop, server.settings_for(shop)).changed) == 1
    scene.expect(shop, "v2")
    # What somebody removed from the mirror is found missing by whoever needs it, and comes with the fetch after that.
    shop.push({"page": b"3"}, tag="v3")
    with Mirror.open(tmp_path / "shop.mirror", shop.url, server.settings_for(shop)) as mirror:
        mirror.fetch()
        assert mirror.lfs is not None
        held = mirror.lfs.path(shop.pointer("tool.bin"))
        assert held is not None
        held.unlink()
    (tmp_path / "root" / ".deploykit").rename(tmp_path / "gone")
    assert "missing: tool.bin" in scene.update(shop, server.settings_for(shop)).failed[MAIN]
    scene.update(shop, server.settings_for(shop))
    scene.expect(shop, "v3")


def test_objects_that_are_switched_on_replace_pointers_although_no_ref_moves(
    tmp_path: Path, shop: LfsWorked, server: LfsServer
) -> None:
    scene = Scene(tmp_path)
    assert (
        "is kept in Git LFS, which is not fetched (set lfs = true" in scene.update(shop, MirrorSettings()).refused[MAIN]
    )
    scene.settings = attrs.evolve(scene.settings, raw_attributes=("filter",))
    scene.update(shop, MirrorSettings())
    shown = tmp_path / "root" / "shown" / "img" / "a.bin"
    assert shown.read_bytes().startswith(b"version https://git-lfs")
    scene.update(shop, server.settings_for(shop))
    scene.expect(shop, "v1")
    scene.update(shop, MirrorSettings())
    assert shown.read_bytes().startswith(b"version https://git-lfs")


def test_the_same_for_the_repository_of_a_submodule(tmp_path: Path, server: LfsServer) -> None:
    theme, shop = LfsWorked(tmp_path, "theme"), LfsWorked(tmp_path, "shop")
    theme.push(FILES)
    shop.add(theme, "theme")
    shop.push({"page": b"1"}, tag="v1")
    scene = Scene(tmp_path, submodules="mirror", raw_attributes=("filter",))

    def update(settings: MirrorSettings) -> CheckoutResult:
        with ExitStack() as stack:
            mirror, other = (
                stack.enter_context(Mirror.open(tmp_path / f"{repo.name}.mirror", repo.url, chosen))
                for repo, chosen in ((shop, MirrorSettings()), (theme, settings))
            )
            mirror.fetch()
            other.fetch()
            rules = SubmoduleRules(repositories={theme.url: RepoName("theme")}, open=lambda _: other)
            lfs = [RepoName("theme")] if settings.lfs else []
            return Checkouts(scene.settings, lfs).update(SubmoduleSource(mirror, shop.url, rules))

    update(MirrorSettings())
    assert (tmp_path / "root/shown/theme/img/a.bin").read_bytes().startswith(b"version https://git-lfs")
    update(server.settings_for(theme))
    scene.expect(shop, "v1")
    assert update(server.settings_for(theme)) == CheckoutResult()


def test_a_damaged_object_is_named_and_a_new_mirror_keeps_the_others(
    tmp_path: Path, shop: LfsWorked, server: LfsServer
) -> None:
    settings, scene = server.settings_for(shop), Scene(tmp_path)
    with Mirror.open(tmp_path / "shop.mirror", shop.url, settings) as mirror:
        mirror.fetch()
        assert mirror.lfs is not None
        held = mirror.lfs.path(shop.pointer("tool.bin"))
        assert held is not None
        held.write_bytes(b"#!/bin/hs\n")
        result = scene.update(shop, settings)
        assert result.damage
        assert f"the Git LFS object {held.name} of tool.bin is damaged" in result.failed[MAIN]
        asked = server.downloads
        mirror.reclone()
        assert server.downloads == asked + 1
    scene.update(shop, settings)
    scene.expect(shop, "v1")
