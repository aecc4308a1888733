"""Mirrors for tests of an agent's commands: the repository itself, open."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from deploykit.daemons.agent.mirrors import MirrorHandler
from deploykit.git.repository import Repository
from deploykit.mirror import Mirror
from deploykit.names import RepoName


class FakeMirrors(MirrorHandler):
    """Opens the repository itself in place of a mirror."""

    def __init__(self, repo: Path) -> None:
        self._repo = repo

    def mirror(self, repo: RepoName) -> Mirror:
        return cast(Mirror, Repository(self._repo))

    def sync(self, repo: RepoName, **_: Any) -> bool:
        return True

    def reclone(self, repo: RepoName) -> None:
        pass
