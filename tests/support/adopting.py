"""Directories that are live in all the ways there are, for adopting; and readers that may never find nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploykit.git.repository import Repository
from deploykit.release import Site
from deploykit.release.adopt import Adopter
from deploykit.settings import SiteSettings
from tests.support.releasing import Files, Shop

FILES: Files = {
    "index.html": b"old",
    "lib/a.php": b"<?php",
    "uploads/one.jpg": b"1" * 9000,
    "bin/run": ("100755", b"#!/bin/sh\n"),
}
SETTINGS = SiteSettings(shared=("uploads/",), grace=0)


class Live:
    """A directory that readers use, made in one of several ways; the site that is to adopt it."""

    def __init__(self, base: Path, how: str, where: Path | None = None) -> None:
        self.base, self.how = base, how
        self.shop = Shop(base, SETTINGS)
        self.commit = self.shop.commit(FILES)
        self.where = where if where is not None else base
        self.place, self.site_path = self.where / "www" / "shop", self.where / "sites" / "shop"
        self.place.parent.mkdir()
        getattr(self, f"_{how}")()
        self.site = Site(self.site_path, SETTINGS)

    def _directory(self) -> None:
        self.shop.repo.checkout(self.commit, self.place)

    def _clone(self) -> None:
        subprocess.run(["git", "clone", "-q", str(self.shop.repo.path), str(self.place)], check=True)

    def _current(self) -> None:
        self.site_path = self.place
        self.place = self.site_path / "current"
        self.site_path.mkdir()
        self.shop.repo.checkout(self.commit, self.place)

    def _farm(self) -> None:
        """Symlinks to other repositories' checkouts, by relative paths."""
        theme = self.where / "checkouts" / "theme"
        theme.mkdir(parents=True)
        (theme / "style.css").write_text("red")
        self.shop.repo.checkout(self.commit, self.place)
        (self.place / "theme").symlink_to("../../checkouts/theme")
        (self.place / "lib" / "deep").symlink_to("../../../checkouts/theme/style.css")
        (self.place / "lib" / "near").symlink_to("../index.html")

    def _linked(self) -> None:
        """The original's way: a symlink to a checkout that somebody else keeps."""
        kept = self.base / "checkouts" / "v1"
        kept.parent.mkdir()
        self.shop.repo.checkout(self.commit, kept)
        (kept / "theme").symlink_to("../v1/lib")
        self.place.symlink_to(kept)

    def _capistrano(self) -> None:
        self.site_path = self.place
        self.place = self.site_path / "current"
        releases, shared = self.site_path / "releases", self.site_path / "shared"
        (shared / "uploads").mkdir(parents=True)
        (shared / "uploads" / "one.jpg").write_bytes(b"1" * 9000)
        releases.mkdir()
        self.shop.repo.checkout(self.commit, releases / "20260101120000")
        shutil.rmtree(releases / "20260101120000" / "uploads")
        (releases / "20260101120000" / "uploads").symlink_to(shared / "uploads")
        self.place.symlink_to(releases / "20260101120000")

    @property
    def adopter(self) -> Adopter:
        return Adopter(Site(self.site_path, SETTINGS), self.place)

    def seen(self) -> dict[str, bytes]:
        """Everything a reader reads, symlinks followed."""
        return {
            str(Path(where, name).relative_to(self.place)): Path(where, name).read_bytes()
            for where, _, names in os.walk(self.place, followlinks=True)
            for name in names
            if ".git" not in where
        }

    def adopt(self) -> None:
        with Repository(self.shop.repo.path) as source:
            self.adopter.adopt(source, "refs/tags/v1", requested_by="tester")


READER = """
import os, sys
place, stop = sys.argv[1:]
looks = 0
print("reading", flush=True)
while not os.path.exists(stop):
    for name in ("index.html", "uploads/one.jpg", "lib/a.php"):
        with open(os.path.join(place, name), "rb") as file:
            assert file.read(), name
    looks += 1
print(looks)
"""


@contextmanager
def read_all_the_time(base: Path, place: Path) -> Iterator[None]:
    """Read by name in other processes, from one that is in the directory too; no look may fail."""
    stop = base / "stop"
    here = [(str(place), base), (".", place)]
    readers = [
        subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", READER, place, str(stop)], cwd=cwd, stdout=subprocess.PIPE, text=True
        )
        for place, cwd in here
    ]
    try:
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "reading\n"
        yield
    finally:
        stop.touch()
        done = [(reader.communicate(timeout=60)[0], reader.returncode) for reader in readers]
        stop.unlink()
    for printed, code in done:
        assert code == 0, "a reader found nothing"
        assert int(printed) > 0
