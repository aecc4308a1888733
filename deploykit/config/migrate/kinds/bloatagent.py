"""The older deploy agent, which built a site as a tree of symlinks into several repositories: `/etc/facts.d/SITE.yaml`.

The repository at the root of the site becomes the site's; those below it are mirrored and have to be joined with it.
Directories of user data become `shared`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final

from deploykit.config.migrate.model import Kind, MigrationDraft, OldFile, Place, Row
from deploykit.config.migrate.naming import absolute_path
from deploykit.config.migrate.oldtable import OldTable
from deploykit.config.migrate.repositories import put_origin_of_clone, repository_place
from deploykit.config.migrate.sites import PART, put_scripts, put_site

_TAG: Final = "what is live is no setting: deploykit deploy SITE --ref TAG"
_NOTES: Final = {
    "repo-root": "mirrors are in deploykit's own directory; their URLs are the origins of the clones in it",
    "deploy-root": "releases are in `releases` of the site's directory",
    "user-root": "move each `source` in it to `shared` in the site's directory",
}
ROWS: Final = (
    Row(old="site-root", new="sites.NAME.path", note="with the repository's `target`"),
    *(Row(old=key, note=note) for key, note in _NOTES.items()),
    Row(old="repo-list[].name", new="sites.NAME.repo", note=f"at the root of the site. Below it: {PART}"),
    Row(old="repo-list[].target", new="sites.NAME", note="its first part is the site's name"),
    Row(old="repo-list[].base_tag", note=_TAG),
    Row(old="controldir", new="sites.NAME.release.scripts"),
    Row(old="directorymap[].target", new="sites.NAME.release.shared"),
    Row(old="directorymap[].source", note="move it to `shared` in the site's directory, by the name of `target`"),
)


def _fits(file: OldFile) -> bool:
    return bool({"site-root", "deploy-root"} & file.data.keys())


def _convert(file: OldFile, draft: MigrationDraft) -> None:
    table = OldTable.of(file, draft, ROWS)
    site_root = absolute_path(table, "site-root")
    repo_root = absolute_path(table, "repo-root")
    deploy_root = absolute_path(table, "deploy-root")
    user_root = absolute_path(table, "user-root")
    sites: list[tuple[Place, tuple[str, ...]]] = []
    for key in ("repo-list", "directorymap"):
        if isinstance(table.data.get(key), Mapping):
            table.lose(key, "expected a list: one entry with a dash before it is one, too")
    for part in table.listed("repo-list") if "repo-list" in table.rest() else ():
        place = _convert_part(part, site_root or "/data/site", repo_root or "/data/repo")
        name, tag = part.text("name"), part.text("base_tag")
        if tag is not None:
            part.lose("base_tag", _TAG)
        if place is not None:
            copies = (f"{deploy_root}/{name}_{tag}",) if deploy_root and tag else ()
            sites.append((place, (str(draft.values[(*place, "path")]), *copies, f"{repo_root or '/data/repo'}/{name}")))
        part.finish()
    control = absolute_path(table, "controldir")
    if control is not None:
        if len(sites) == 1:
            put_scripts(table, "controldir", sites[0][0], control, sites[0][1])
        else:
            table.lose("controldir", "belongs to one site, and this file has none, or several: set its release.scripts")
    _put_shared(table, [place for place, _ in sites], user_root)
    for key, root in (("repo-root", repo_root), ("deploy-root", deploy_root), ("user-root", user_root)):
        if root is not None:
            table.lose(key, _NOTES[key])
    if site_root is not None and not sites:
        table.lose("site-root", "no repository in this file is at the root of a site")
    table.finish()


def _convert_part(part: OldTable, site_root: str, repo_root: str) -> Place | None:
    """Convert a repository; return the site whose root it is, if it is one's."""
    name, target = part.text("name"), part.text("target")
    if name is None:
        part.lose_whole("has no name")
        return None
    repository = repository_place(part, "name", name)
    if repository is None:
        part.lose_whole("its name is none for a repository")
        return None
    put_origin_of_clone(part, "name", repository, f"{repo_root}/{name}")
    path = PurePosixPath(target or "")
    if not path.parts or path.is_absolute() or ".." in path.parts:
        part.lose("target", "expected a path below site-root: set sites.NAME.path and repo by hand")
        return None
    if len(path.parts) > 1:
        part.lose("target", f"{PART}; site {path.parts[0]}")
        return None
    return put_site(part, "target", str(path), f"{site_root.rstrip('/')}/{path}", str(repository[1]))


def _put_shared(table: OldTable, sites: list[Place], user_root: str | None) -> None:
    """Turn the directories of user data into what outlives releases."""
    shared: list[str] = []
    for entry in table.listed("directorymap") if "directorymap" in table.rest() else ():
        target, source = entry.text("target"), entry.text("source")
        path = PurePosixPath(target or "")
        inside = bool(path.parts) and not path.is_absolute() and not {"..", ".git", ".deploykit"} & {*path.parts}
        if len(sites) != 1:
            entry.lose_whole("belongs to one site, and this file has none, or several: set its release.shared")
        elif not inside or source is None:
            entry.lose_whole("expected source, and target as a path inside the site: set release.shared by hand")
        elif any(_overlap(path, PurePosixPath(other)) for other in shared):
            entry.lose_whole("is inside another one, or holds it: share the outer one alone")
        else:
            shared.append(f"{path}/")
            old = f"{user_root}/{source}" if user_root else source
            entry.lose("source", f"move {old} to shared/{path} in the directory of the site")
        entry.finish()
    if shared:
        table.put("directorymap", (*sites[0], "release", "shared"), shared)


def _overlap(one: PurePosixPath, other: PurePosixPath) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


KIND: Final = Kind(
    name="bloatagent",
    title="sites of several repositories",
    file="/etc/facts.d/SITE.yaml",
    fits=_fits,
    rows=ROWS,
    convert=_convert,
)
