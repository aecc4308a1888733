"""Hiera data of the original's Puppet module, `gitconfigure: {ANY: {site, repo, origin, base_tag, target}}`.

The module cloned the repositories, wrote the updater's settings and put the sites below `/data/site`.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

from deploykit.config.migrate.model import Kind, MigrationDraft, OldFile, Row
from deploykit.config.migrate.oldtable import OldTable
from deploykit.config.migrate.repositories import put_origin, put_placeholder, repository_place
from deploykit.config.migrate.sites import NO_ORIGIN, PART, put_site

_ROOT: Final = "/data/site"
_CONTROL: Final = "future-control"
ROWS: Final = (
    Row(old="gitconfigure.ANY.repo", new="repositories.REPO", note="also `sites.SITE.repo`"),
    Row(old="gitconfigure.ANY.origin", new="repositories.REPO.url"),
    Row(old="gitconfigure.ANY.site", new="sites.SITE", note=f"in {_ROOT}, where the module put it"),
    Row(old="gitconfigure.ANY.target", new="sites.SITE.path", note=f"below it: {PART}"),
    Row(old="gitconfigure.ANY.base_tag", note="what is live is no setting: deploykit deploy SITE --ref TAG"),
)


def _fits(file: OldFile) -> bool:
    return "gitconfigure" in file.data


def _convert(file: OldFile, draft: MigrationDraft) -> None:
    table = OldTable.of(file, draft, ROWS)
    for _, entry in table.tables("gitconfigure"):
        _convert_entry(entry)
        entry.finish()
    for key in table.rest():
        table.lose(key, "not of the module that cloned the repositories: what it sets stays where it is")


def _convert_entry(entry: OldTable) -> None:
    repo, origin = entry.text("repo"), entry.text("origin")
    site, target = entry.text("site"), entry.text("target")
    if repo is None:
        entry.lose_whole("names no repo")
        return
    repository = repository_place(entry, "repo", repo)
    if repository is None:
        entry.lose_whole("its repo is no name for a repository")
        return
    if origin is None or not put_origin(entry, "origin", repository, origin):
        put_placeholder(entry, repository)
        entry.draft.warn(NO_ORIGIN)
    path, key = PurePosixPath(target or site or ""), "target" if target else "site"
    if not path.parts or path.is_absolute() or ".." in path.parts:
        entry.lose(key, f"expected a path below {_ROOT}: set sites.SITE.path and repo by hand")
    elif len(path.parts) > 1:
        entry.lose(key, f"{PART}; site {path.parts[0]}")
    else:
        place = put_site(entry, key, str(path), f"{_ROOT}/{path}", str(repository[1]))
        if place is not None:
            # The module has this directory in its source.
            entry.draft.values.setdefault((*place, "release", "scripts"), _CONTROL)


KIND: Final = Kind(
    name="puppet-module",
    title="the original's Puppet module",
    file="hiera data",
    fits=_fits,
    rows=ROWS,
    convert=_convert,
)
