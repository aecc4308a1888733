"""stomp-git, the original's mirror updater: clones of configured repositories, and refs of them as directories."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.originals.oldstomp import OldFrame
from tests.support.originals.publishers import ZEROS, OldBus
from tests.support.originals.readers import OldDaemon, keyed


@dataclass(frozen=True)
class OldRepository:
    """What `repo-list` says of a repository: its clone (which Puppet made), the mode, where, and which branch."""

    clone: Path
    mode: str
    target: Path | None = None
    branch: str = ""


class OldUpdater(OldDaemon):
    """The updater. It takes branch and commit from the subject, and wants a `JSON:` line in the body.

    A keepalive ends it, and so does the message of the original's own git hook, which has no such line. [seen]
    """

    program = "stompgit"

    def __init__(self, bus: OldBus, repositories: Mapping[str, OldRepository]) -> None:
        self._repositories = repositories
        super().__init__(bus, ["git.commits"], newer=True)

    def handle(self, frame: OldFrame) -> None:
        repo, ref, commit = frame.headers["subject"].split(" ")[:3]
        fields = keyed(frame.text)
        found = self._repositories.get(fields["repo"])
        if found is None:
            return
        json.loads(fields["JSON"])
        _git(found.clone, "fetch", "--quiet", "--force", "--prune", "origin", "+refs/heads/*:refs/remotes/origin/*")
        _git(found.clone, "fetch", "--quiet", "--force", "--prune", "origin", "+refs/tags/*:refs/tags/*")
        self._show(found, ref, commit)
        self.say(f"{repo} {ref} {commit} updated")

    def _show(self, found: OldRepository, ref: str, commit: str) -> None:
        kind, _, name = ref.removeprefix("refs/").partition("/")
        target = found.target or found.clone
        match found.mode:
            case "trusting":
                self._check_out(found, "origin/master", target)
            case "dangerous":
                _git(found.clone, "reset", "--quiet", "--hard", "origin/master")
            case "branch" if (kind, name) == ("heads", found.branch):
                self._check_out(found, f"origin/{name}", target)
            case "puppetmaster" if kind == "heads":
                self._one_of_many(found, f"origin/{name}", target / name, commit)
            case "atomic" if kind == "heads":
                self._one_of_many(found, f"origin/{name}", Path(f"{target}_{name}"), commit)
            case "tags" if kind == "tags":
                self._one_of_many(found, name, target / name, commit)

    def _one_of_many(self, found: OldRepository, what: str, where: Path, commit: str) -> None:
        if commit == ZEROS:
            shutil.rmtree(where, ignore_errors=True)
        else:
            self._check_out(found, what, where)

    def _check_out(self, found: OldRepository, what: str, where: Path) -> None:
        """Write a ref's files; what is gone from it stays, as all directories share one index."""
        where.mkdir(parents=True, exist_ok=True)
        _git(found.clone, f"--work-tree={where}", "checkout", "--quiet", "--force", what, "--", ".")


def clone(origin: Path, where: Path) -> Path:
    """Make the clone that Puppet made for the updater."""
    _git(where.parent, "clone", "--quiet", str(origin), str(where))
    return where


def _git(where: Path, *words: str) -> None:
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}
    subprocess.run(["git", "-C", str(where), *words], env=environment, check=True, capture_output=True, timeout=60)


__all__ = ["OldRepository", "OldUpdater", "clone"]
