"""A repository and a site to deploy it to, for tests of releases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deploykit.git.repository import Repository
from deploykit.release import DeployResult, Release, Runner, Site
from deploykit.settings import SiteSettings
from tests.support.aftercut import assert_whole
from tests.support.gitrepo import EXECUTABLE, GitRepo

Files = Mapping[str, bytes | tuple[str, bytes]]


def script(*lines: str) -> tuple[str, bytes]:
    """An executable shell script for a commit."""
    return EXECUTABLE, ("#!/bin/sh\n" + "\n".join(lines) + "\n").encode()


class Shop:
    """One repository, one site, and what happened on the way."""

    def __init__(self, base: Path, settings: SiteSettings | None = None) -> None:
        self.base = base
        self.repo = GitRepo(base / "repo")
        self.settings = settings or SiteSettings()
        self.path = base / "site"
        self.heard: list[tuple[str, str, str]] = []
        self._count = 0

    @property
    def site(self) -> Site:
        """The site, read anew."""
        return Site(self.path, self.settings)

    @property
    def runner(self) -> Runner:
        """A runner with nothing remembered."""
        return Runner(self.site, node="node1", on_output=lambda *said: self.heard.append(said))

    def commit(self, files: Files, tag: str = "") -> str:
        """Commit exactly these files and tag them `v1`, `v2`, ... or as given."""
        self._count += 1
        return self.repo.commit(dict(files.items()), tag=tag or f"v{self._count}")

    def deploy(self, tag: str, commit: str = "", **more: object) -> DeployResult:
        """Deploy a tag."""
        with Repository(self.repo.path) as source:
            return self.runner.deploy(source, f"refs/tags/{tag}", commit, **more)  # type: ignore[arg-type]

    def put(self, files: Files, **more: object) -> DeployResult:
        """Commit and deploy."""
        commit = self.commit(files)
        return self.deploy(f"v{self._count}", commit, **more)

    def live(self) -> Release:
        """The live release; there must be one."""
        found = self.runner.current()
        assert found is not None
        return found

    def read(self, path: str) -> str:
        """A file of the live release."""
        return (self.path / "current" / path).read_text()

    def names(self) -> set[str]:
        """The directories below `releases/`."""
        directory = self.path / "releases"
        return {p.name for p in directory.iterdir()} if directory.exists() else set()

    def whole(self) -> None:
        """Assert what must be true of a site at every instant: current points at a release that verifies."""
        assert_whole(self.site)
