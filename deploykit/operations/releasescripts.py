"""Scripts that nodes would run for a commit, read from this machine's mirror. No origin is asked.

Rules:

* A script is shown as it is stored, cut; whoever prints it escapes it. Nothing is run.
* Which directory holds them is a setting of each node. Where this machine knows the site, its own setting counts.
* A script that nodes would refuse (a link, not executable, two of a name) is shown with the reason.
"""

from __future__ import annotations

import os
from typing import Final

import attrs

from deploykit.daemons.agent.mirrors import mirror_path
from deploykit.errors import DeploykitError
from deploykit.git.objectformat import BLOB
from deploykit.git.objectreader import ObjectReader
from deploykit.git.repository import Repository
from deploykit.mirror import layout
from deploykit.names import ObjectId, RepoName, SiteName
from deploykit.settings.node import Settings
from deploykit.settings.site import SCRIPTS, SiteSettings
from deploykit.trees import TreeRules, list_directory

#: Bytes of a script that are shown.
SHOWN: Final = 4000
_MAX_SCRIPT: Final = 8 * 1024 * 1024
_MODES: Final = {0o100755: "", 0o100644: "it is not executable", 0o120000: "it is a symlink"}


@attrs.frozen(kw_only=True, slots=True)
class ReleaseScript:
    """A script of a release. `problem`: why nodes would not run it; empty where they would."""

    step: str
    path: str
    text: str = ""
    problem: str = ""


def scripts_of_commit(
    settings: Settings, site: SiteName, repo: RepoName, commit: ObjectId
) -> tuple[ReleaseScript, ...]:
    """Return the scripts of a release in the order in which they run; none where there is no mirror here.

    Raises:
        DeploykitError: the mirror does not have the commit, or is damaged.
    """
    known = settings.sites.get(site)
    release = known.release if known is not None else SiteSettings()
    where = release.scripts.strip("/")
    path = mirror_path(settings, repo)
    if not where or release.scripts.startswith("/") or not layout.is_repository(path):
        return ()
    with Repository(path) as repository, ObjectReader(repository.store, max_bytes=_MAX_SCRIPT) as reader:
        tree = repository.resolve(commit).tree
        entries = list_directory(repository.store, tree, where, TreeRules())
        found = []
        for step in SCRIPTS:
            for entry in entries:
                name = os.fsdecode(entry.path.rpartition(b"/")[2])
                if (name == step or name.startswith(f"{step}.")) and entry.mode in _MODES:
                    text, problem = "", _MODES[entry.mode]
                    try:
                        text = reader.read(entry.oid, BLOB)[:SHOWN].decode("utf-8", "replace")
                    except DeploykitError as error:
                        problem = error.problem
                    found.append(ReleaseScript(step=step, path=f"{where}/{name}", text=text, problem=problem))
    return tuple(found)


__all__ = ["SHOWN", "ReleaseScript", "scripts_of_commit"]
