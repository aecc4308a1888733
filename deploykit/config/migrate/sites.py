"""Sites of the original's deploy agents -> `[sites.NAME]`: the directory, the repository, the scripts."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

from deploykit.config.migrate.model import MigrationDraft, Place
from deploykit.config.migrate.naming import site_name_of
from deploykit.config.migrate.oldtable import OldTable
from deploykit.errors import InvalidName

#: Who owned what the original wrote; it stood in its source.
OWNER: Final = "www-data"
_OWNER_NOTE: Final = "as the original's agent wrote it; needs root"
_RUN_AS_NOTE: Final = "the original ran them as root, from a tree that the web server could change"
NO_ORIGIN: Final = (
    "repositories: some URLs of origins are in no file: write them in place of write-the-url-here.invalid"
)
_DIRECTORIES: Final = (
    "sites: each `path` becomes a directory of releases. Before the first deploy move away what is in it and make it "
    "root's; after it the web server's root is `current` in it"
)
#: A site is made from one repository.
PART: Final = (
    "a site is made from one repository here, and this one was a part of another's tree: join them, as a submodule's "
    "content or by a build that commits the whole; the repository itself is mirrored"
)


def put_site(table: OldTable, key: str, name: str, path: str, repo: str) -> Place | None:
    """Set up a site. Return where it is; None, and the key lost, where it cannot be.

    Args:
        table: the old settings.
        key: the one that says where the site is.
        name: the site's.
        path: its directory.
        repo: name of the repository that feeds it.
    """
    try:
        place: Place = ("sites", str(site_name_of(name)))
    except InvalidName as error:
        table.lose_error(key, error)
        return None
    draft = table.draft
    other = draft.taken.setdefault(("sites", path), str(place[1]))
    if other != place[1]:
        table.lose(key, f"{path} is the directory of site {other} already")
        return None
    table.put(key, (*place, "path"), path)
    table.put(key, (*place, "repo"), repo)
    for new, value, note in (("owner", OWNER, _OWNER_NOTE), ("run_as", "owner", _RUN_AS_NOTE)):
        draft.values.setdefault((*place, "release", new), value)
        draft.comments.setdefault((*place, "release", new), note)
    draft.warn(_DIRECTORIES)
    return place


def put_scripts(table: OldTable, key: str, site: Place, control: str, trees: tuple[str, ...]) -> None:
    """Set where a site's scripts are: inside its tree where the old directory was in a copy of it.

    Args:
        table: the old settings.
        key: the one that names the directory.
        site: its place.
        control: the old directory.
        trees: directories that held the site's tree.
    """
    draft: MigrationDraft = table.draft
    inside = [PurePosixPath(control).relative_to(tree) for tree in trees if PurePosixPath(control).is_relative_to(tree)]
    if any(not path.parts for path in inside):
        table.lose(key, "scripts cannot be in the root of the tree: move them to deploy/ in it")
        return
    table.put(key, (*site, "release", "scripts"), str(inside[0]) if inside else control)
    if not inside:  # a directory outside the tree, which only root should be able to change
        draft.values.pop((*site, "release", "run_as"), None)
        draft.comments.pop((*site, "release", "run_as"), None)
    draft.warn("sites: scripts run in the directory of the new release now, as the user of run_as, with -t TAG")


__all__ = ["NO_ORIGIN", "OWNER", "PART", "put_scripts", "put_site"]
