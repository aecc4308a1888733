"""sites.yaml of the original's deploy pages, `TITLE: {filter, payload, repo, tags, repo_type}` -> the console.

The console needs no list: it shows every site that a node has, under the site's own name. What a title chose by a
filter of MCollective is a selector, which people type when they deploy: each title is listed with the command to use.
"""

from __future__ import annotations

from collections.abc import Mapping
from shlex import quote
from typing import Final

from deploykit.config.migrate.filters import selector_of_filter
from deploykit.config.migrate.model import Kind, MigrationDraft, OldFile, Row
from deploykit.config.migrate.naming import site_name_of
from deploykit.config.migrate.oldtable import OldTable
from deploykit.errors import InvalidName, UsageError

_SVN: Final = (
    "nodes deploy from git: mirror the project with git-svn, or build it into a git repository, and make that the repo "
    "of a site; our SVN hook still announces its revisions, for builds"
)
ROWS: Final = (
    Row(old="TITLE", note="a site is shown under its own name, the one that nodes have it under (the repo, before)"),
    Row(old="TITLE.filter", note="with payload it is a selector (docs/selectors.md), typed or saved in a script"),
    Row(old="TITLE.payload", note="as filter"),
    Row(old="TITLE.repo", note="the site of that name: `sites.NAME.repo` on its nodes"),
    Row(old="TITLE.tags", note="every tag and branch of the mirror can be chosen, and the field completes them"),
    Row(old="TITLE.repo_type", note=f"git, or lost: {_SVN}"),
)
_LISTEN: Final = """\
in place of the original's pages: deploykit web. Choose a login (docs/console-login.md); the old pages had none, and
who could reach them could deploy."""


def _fits(file: OldFile) -> bool:
    return any(
        isinstance(value, Mapping) and ("payload" in value or {"filter", "repo"} <= value.keys())
        for value in file.data.values()
    )


def _convert(file: OldFile, draft: MigrationDraft) -> None:
    table = OldTable.of(file, draft, ROWS)
    for title, site in table.items():
        _convert_title(title, site)
    table.finish()
    draft.put(file, "", ("web", "listen"), "127.0.0.1:8470", _LISTEN)


def _convert_title(title: str, site: OldTable) -> None:
    if site.text("repo_type") == "svn":
        site.lose_whole(_SVN)
        return
    repo, kind, payload = site.text("repo"), site.text("filter"), site.text("payload")
    site.take("tags")  # replaced: whoever deploys can choose any
    site.finish()
    if repo is None:
        site.lose_whole("names no repo, so no site: deploykit deploy SITE --ref TAG")
        return
    try:
        name = site_name_of(repo)
    except InvalidName as error:
        site.lose_whole(str(error))
        return
    try:
        selector = selector_of_filter(kind or "", payload or "")
    except UsageError as error:
        way = f"; then: deploykit deploy {name} --ref TAG -S SELECTOR"
        site.lose_whole(f"its filter: {error.problem} ({error.remedy}){way}")
        return
    site.lose_whole(
        f"no titles here. Its nodes are chosen so: deploykit deploy {name} --ref TAG -S {quote(selector)}; on the "
        "console's page of the site the same selector goes into the field for nodes"
    )


KIND: Final = Kind(
    name="grubby",
    title="deploy pages",
    file="sites.yaml",
    fits=_fits,
    rows=ROWS,
    convert=_convert,
)
