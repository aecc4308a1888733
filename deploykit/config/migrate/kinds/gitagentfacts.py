"""Facts that the original's deploy agent read, `sitedir_REPO`, `repo_REPO`, `controldir_REPO` -> `[sites]`.

Which nodes a site is on was chosen by `sitetype_REPO`: that stays a fact. Other facts stand in the same file.
"""

from __future__ import annotations

from typing import Final

from deploykit.config.migrate.model import Kind, MigrationDraft, OldFile, Row
from deploykit.config.migrate.naming import absolute_path
from deploykit.config.migrate.oldtable import OldTable, kind_of
from deploykit.config.migrate.repositories import put_origin_of_clone, put_placeholder, repository_place
from deploykit.config.migrate.sites import NO_ORIGIN, put_scripts, put_site
from deploykit.settings.facts import MAX_FACTS, path_problem, value_problem

_OTHER: Final = (
    "a fact like any other: name this file in facts.files, and the fact in facts.allow where selectors need it (who "
    "may read descriptions reads it then)"
)
_PREFIXES: Final = ("sitedir_", "repo_", "controldir_", "sitetype_")
ROWS: Final = (
    Row(
        old="sitedir_REPO",
        new="sites.REPO.path",
        note="of releases now; the web server serves `current` in it",
    ),
    Row(old="repo_REPO", new="repositories.REPO.url", note="the origin of that clone; also `sites.REPO.repo`"),
    Row(
        old="controldir_REPO",
        new="sites.REPO.release.scripts",
        note="relative where it was in the tree; with `required`, as both scripts had to be there",
    ),
    Row(old="sitetype_REPO", new="facts.own.sitetype_REPO", note="for selectors: `-F sitetype_REPO=live`"),
    Row(old="NAME", note=_OTHER),
)


def _fits(file: OldFile) -> bool:
    return any(key.startswith(("sitedir_", "controldir_", "repo_")) for key in file.data) and not (
        file.data.keys() & {"repo-list", "stompconnector", "rserver", "securityprovider", "connector"}
    )


def _convert(file: OldFile, draft: MigrationDraft) -> None:
    table = OldTable.of(file, draft, ROWS)
    names = dict.fromkeys(
        key.removeprefix(prefix) for key in file.data for prefix in _PREFIXES[:3] if key.startswith(prefix)
    )
    for name in names:
        _convert_site(name, table)
    _put_types(table)
    for key in table.rest():
        table.lose(key, _OTHER)
    if names:
        draft.warn(
            "sites: deploys are signed commands now: set signing_key, trust.allowed_signers and [[trust.grants]] with "
            "deploy.requested (docs/deploying.md)"
        )


def _convert_site(name: str, table: OldTable) -> None:
    """Convert the facts of one repository; what has no repository or no directory is lost."""
    keys = {prefix: f"{prefix}{name}" for prefix in _PREFIXES[:3]}
    clone, path, control = (absolute_path(table, keys[prefix]) for prefix in ("repo_", "sitedir_", "controldir_"))
    present = [prefix for prefix, value in (("repo_", clone), ("sitedir_", path), ("controldir_", control)) if value]
    if not present:
        return  # each was lost by itself
    repository = repository_place(table, keys[present[0]], name)
    if repository is None:
        for prefix in present[1:]:
            table.lose(keys[prefix], f"as {keys[present[0]]}")
        return
    if path is None:
        if control is not None:
            table.lose(keys["controldir_"], f"there is no {keys['sitedir_']}, so no site")
        if clone is not None:
            put_origin_of_clone(table, keys["repo_"], repository, clone)
        return
    if clone is not None:
        put_origin_of_clone(table, keys["repo_"], repository, clone)
    else:
        put_placeholder(table, repository)
        table.draft.warn(NO_ORIGIN)
    site = put_site(table, keys["sitedir_"], name, path, str(repository[1]))
    if site is None:
        if control is not None:
            table.lose(keys["controldir_"], f"as {keys['sitedir_']}")
    elif control is not None:
        put_scripts(table, keys["controldir_"], site, control, tuple(filter(None, (clone, path))))
        table.put(keys["controldir_"], (*site, "release", "required"), ["pre-deploy", "post-deploy"])


def _put_types(table: OldTable) -> None:
    """Keep the facts that chose nodes, as far as a node can send them."""
    count = sum(place[:2] == ("facts", "own") for place in table.draft.values)
    for key in table.rest():
        if not key.startswith("sitetype_"):
            continue
        value = table.take(key)
        if not isinstance(value, str | int | float):
            table.lose(key, f"expected a text, not {kind_of(value)}")
        elif problem := path_problem((key,)) or value_problem(value):
            table.lose(key, problem)
        elif count >= MAX_FACTS:
            table.lose(key, f"a node sends at most {MAX_FACTS} facts of its own")
        else:
            count += 1
            table.put(key, ("facts", "own", key), value)


KIND: Final = Kind(
    name="gitagent-facts",
    title="facts of the deploy agent",
    file="/etc/facts.d/facts.yaml",
    fits=_fits,
    rows=ROWS,
    convert=_convert,
)
