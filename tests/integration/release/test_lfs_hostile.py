"""Pointers of Git LFS that lie, or are nearly some, and objects that are large: what becomes of them in a release."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from deploykit.git.repository import Repository
from deploykit.release import DeployResult, Runner, Site
from deploykit.settings import SiteSettings
from tests.support.lfsrepos import TRACKED, VERSION, LfsWorked, pointer_to
from tests.support.submodules import files_of

OURS = ("TAG", ".deploykit/REVISION")
SETTINGS = SiteSettings(grace=0)
CONTENT = b"\x89PNG" * 500


class World:
    def __init__(self, base: Path) -> None:
        self.shop = LfsWorked(base, "shop")
        self.shop.push({".gitattributes": TRACKED, "a.bin": CONTENT}, tag="v1")
        self.base = base
        self.settings = SETTINGS

    @property
    def site(self) -> Site:
        return Site(self.base / "site", self.settings)

    def deploy(self, tag: str) -> DeployResult:
        with Repository(self.shop.origin) as source:
            return Runner(self.site, node="n").deploy(source, f"refs/tags/{tag}", "")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_pointer_that_lies_about_the_size_is_refused_by_name(world: World) -> None:
    size = len(CONTENT)
    for tag, lie, problem in (
        ("shorter", size - 1, "objects of Git LFS are missing: a.bin"),
        ("longer", size + 1, "objects of Git LFS are missing: a.bin"),
        ("huge", 10**17, "a.bin has 100000000000000000 bytes in Git LFS, more than are allowed"),
    ):
        world.shop.store({"a.bin": pointer_to(CONTENT, size=lie)}, tag=tag)
        result = world.deploy(tag)
        assert result.outcome == "refused", tag
        assert problem in result.detail
    assert not world.site.exists(), "nothing was touched"


def test_all_objects_of_a_tree_have_a_limit_together(world: World) -> None:
    world.shop.push({"b.bin": CONTENT[::-1]}, tag="v2")
    world.settings = attrs.evolve(SETTINGS, max_bytes=len(CONTENT) + 500)
    assert world.deploy("v1").outcome == "success"
    result = world.deploy("v2")
    assert result.outcome == "refused"
    assert "b.bin has 2000 bytes in Git LFS, more than are allowed" in result.detail


def test_what_only_looks_like_a_pointer_is_written_as_git_writes_it(world: World) -> None:
    world.shop.store(
        {
            "link.bin@": pointer_to(CONTENT),
            "plain.txt": pointer_to(CONTENT),
            "kib.bin": VERSION + b"x" * (1024 - len(VERSION)),
            "more.bin": VERSION + b"x" * (1025 - len(VERSION)),
            "other.bin": b"version 1 of something else\n",
        },
        tag="v2",
    )
    result = world.deploy("v2")
    assert result.outcome == "success", result.detail
    expected = world.shop.cloned("v2", world.base / "clone")
    assert (expected["link.bin"][0], expected["plain.txt"]) == ("link", ("file", pointer_to(CONTENT)))
    assert expected["a.bin"] == ("file", CONTENT)
    assert files_of(world.site.path / "current", but=OURS) == expected
    text = os.readlink(world.site.path / "current" / "link.bin")  # noqa: PTH115 -- a Path would lose a slash
    assert text.encode() == pointer_to(CONTENT)


def test_what_is_nearly_a_pointer_is_refused_by_name(world: World) -> None:
    world.deploy("v1")
    extended = pointer_to(CONTENT).replace(b"\noid", b"\next-0-packed sha256:%s\noid" % (b"0" * 64))
    for tag, content in (("crlf", pointer_to(CONTENT).replace(b"\n", b"\r\n")), ("extended", extended)):
        world.shop.store({"a.bin": content}, tag=tag)
        result = world.deploy(tag)
        assert result.outcome == "refused", tag
        assert "a.bin looks like a pointer of Git LFS, and is none that can be followed" in result.detail
    assert (world.site.path / "current" / "a.bin").read_bytes() == CONTENT


def test_memory_stays_flat_however_large_an_object_is(world: World) -> None:
    size = 64 << 20
    oid = hashlib.sha256()
    for _ in range(64):
        oid.update(bytes(1 << 20))
    place = world.shop.origin / "lfs" / "objects" / oid.hexdigest()[:2] / oid.hexdigest()[2:4] / oid.hexdigest()
    place.parent.mkdir(parents=True)
    place.touch()
    os.truncate(place, size)
    pointer = b"%s\noid sha256:%s\nsize %d\n" % (VERSION, oid.hexdigest().encode(), size)
    world.shop.store({"a.bin": pointer}, tag="v2")
    site, mirror = str(world.base / "site"), str(world.shop.origin)
    small = _peak("release", "deploy", site, "--mirror", mirror, "--ref", "v1")
    large = _peak("release", "deploy", site, "--mirror", mirror, "--ref", "v2")
    assert (world.base / "site" / "current" / "a.bin").stat().st_size == size
    read = _peak("release", "verify", site, "--paranoid")
    assert max(large, read) < small + (24 << 20), (small, large, read)


def _peak(*words: str) -> int:
    """Run a command, which must succeed; return the most memory that it had, in bytes."""
    child = subprocess.Popen([sys.executable, "-m", "deploykit", *words])
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, words
    return used.ru_maxrss * 1024
