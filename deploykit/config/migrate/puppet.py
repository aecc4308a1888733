"""What r10k and g10k have in common: sources of Puppet environments -> repositories with checkouts `puppetmaster`.

What ours do not do is lost with the way round: modules of a Puppetfile, purging, a command after a run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final

from deploykit.config.migrate.branches import refs_without
from deploykit.config.migrate.model import MigrationDraft, OldFile, Place, Row
from deploykit.config.migrate.oldtable import OldTable
from deploykit.config.migrate.repositories import put_checkout, put_origin, put_placeholder, repository_place

_CHECKOUT: Final = "repositories.SOURCE.checkouts[]."
_NO_MODULES: Final = (
    "modules of a Puppetfile are not installed: keep them in the repository, or install them in it by "
    "a build (`r10k puppetfile install`) whose result is pushed"
)
_NO_PURGE: Final = "nothing to purge: a directory is exactly what its branch holds, and goes with it"
_NO_PROXY: Final = "mirrors are fetched without a proxy: use a URL that the node reaches (ssh, or a mirror inside)"
_NO_TYPES: Final = "no program runs after a checkout: run `puppet generate types` where the build is made"
_CHOOSE: Final = "branches are chosen by patterns: write those that are to be deployed into checkouts[].refs"
_NAMES: Final = "names become what Puppet takes: lower case, `_` for other characters; two of one name are refused"
_REMOTE: Final = "a password in it goes to `mirror.credentials_file`"

#: What both read.
SHARED_ROWS: Final = (
    Row(old="sources.SOURCE.remote", new="repositories.SOURCE.url", note=_REMOTE),
    Row(old="sources.SOURCE.basedir", new=f"{_CHECKOUT}target", note="with `mode = puppetmaster`"),
    Row(old="sources.SOURCE.prefix", new=f"{_CHECKOUT}prefix", note="with `_` after it; `true` is the source's name"),
    Row(old="sources.SOURCE.invalid_branches", note=_NAMES),
    Row(old="sources.SOURCE.filter_command", note=_CHOOSE),
    Row(old="sources.SOURCE.strip_component", note="a directory has the branch's whole name: rename the branches"),
    Row(old="cachedir", note="mirrors are below `state`"),
    Row(
        old="postrun",
        note="no program runs after a checkout: a service of your own can follow the messages MirrorUpdated",
    ),
    Row(old="deploy.purge_levels", note=_NO_PURGE),
    Row(old="deploy.purge_allowlist", note=_NO_PURGE),
    Row(old="deploy.purge_whitelist", note=_NO_PURGE),
    Row(old="deploy.write_lock", note="stop the agent instead, or take the checkouts out"),
    Row(old="deploy.generate_types", note=_NO_TYPES),
    Row(old="deploy.puppet_path", note=_NO_TYPES),
    Row(old="deploy.puppet_conf", note=_NO_TYPES),
    Row(old="forge.baseurl", note=_NO_MODULES),
    Row(old="forge.proxy", note=_NO_MODULES),
    Row(old="forge.authorization_token", note=_NO_MODULES),
    Row(old="git.private_key", new="repositories.SOURCE.mirror.ssh_key"),
    Row(old="proxy", note=_NO_PROXY),
)
R10K_ROWS: Final = (
    *SHARED_ROWS,
    Row(
        old="sources.SOURCE.ignore_branch_prefixes",
        new=f"{_CHECKOUT}refs",
        note="the other way round: patterns of the branches that are deployed",
    ),
    Row(old="sources.SOURCE.type", note="only `git`: other kinds of sources are not checked out"),
    Row(old="sources.SOURCE.config", note="environments are branches: each in a list of its own is not read"),
    Row(old="sources.SOURCE.command", note="environments are branches: none comes from a program"),
    Row(old="sources.SOURCE.puppetfile_name", note=_NO_MODULES),
    Row(old="sources.SOURCE.module_conflicts", note=_NO_MODULES),
    Row(old="git.provider", note="git objects are read by deploykit itself"),
    Row(old="git.username", note="write the user into the URL: ssh://USER@HOST/PATH"),
    Row(old="git.oauth_token", note="use mirror.credentials_file: https://USER:TOKEN@HOST"),
    Row(old="git.github_app_id", note="use mirror.credential_helper, or a deploy key"),
    Row(old="git.github_app_key", note="use mirror.credential_helper, or a deploy key"),
    Row(old="git.github_app_ttl", note="use mirror.credential_helper, or a deploy key"),
    Row(old="git.proxy", note=_NO_PROXY),
    Row(old="git.default_ref", note=_NO_MODULES),
    Row(old="git.repositories[].remote", new="repositories.SOURCE.url", note="of the source with that remote"),
    Row(old="git.repositories[].private_key", new="repositories.SOURCE.mirror.ssh_key"),
    Row(old="git.repositories[].ignore_branch_prefixes", new=f"{_CHECKOUT}refs"),
    Row(old="git.repositories[].oauth_token", note="use mirror.credentials_file: https://USER:TOKEN@HOST"),
    Row(old="git.repositories[].github_app_id", note="use mirror.credential_helper, or a deploy key"),
    Row(old="git.repositories[].github_app_key", note="use mirror.credential_helper, or a deploy key"),
    Row(old="git.repositories[].github_app_ttl", note="use mirror.credential_helper, or a deploy key"),
    Row(old="git.repositories[].proxy", note=_NO_PROXY),
    Row(old="deploy.exclude_spec", note=_NO_MODULES),
    Row(old="forge.allow_puppetfile_override", note=_NO_MODULES),
    Row(old="pool_size", note=_NO_MODULES),
    Row(old="purgedirs", note=_NO_PURGE),
    Row(old="tar", note=_NO_MODULES),
    Row(old="logging", note="what is logged is in [log]"),
)
G10K_ROWS: Final = (
    *SHARED_ROWS,
    Row(old="sources.SOURCE.private_key", new="repositories.SOURCE.mirror.ssh_key"),
    Row(old="sources.SOURCE.force_forge_versions", note=_NO_MODULES),
    Row(old="sources.SOURCE.warn_if_branch_is_missing", note="environments are the branches there are"),
    Row(old="sources.SOURCE.error_if_branch_is_missing", note="environments are the branches there are"),
    Row(old="sources.SOURCE.exit_if_unreachable", note="an origin that is away is tried again, and reported"),
    Row(old="sources.SOURCE.filter_regex", note=_CHOOSE),
    Row(old="deploy.purge_skiplist", note=_NO_PURGE),
    Row(old="deploy.purge_blacklist", note=_NO_PURGE),
    Row(old="deploy.deployment_purge_allowlist", note=_NO_PURGE),
    Row(old="deploy.deployment_purge_whitelist", note=_NO_PURGE),
    *(
        Row(old=key, note=_NO_PURGE)
        for key in (
            "purge_levels", "purge_allowlist", "purge_whitelist", "purge_skiplist", "purge_blacklist",
            "deployment_purge_allowlist", "deployment_purge_whitelist",
        )
    ),
    Row(old="write_lock", note="stop the agent instead, or take the checkouts out"),
    Row(old="generate_types", note=_NO_TYPES),
    Row(old="puppet_path", note=_NO_TYPES),
    Row(old="timeout", new="repositories.SOURCE.mirror.stall_timeout", note="seconds"),
    Row(old="ignore_unreachable_modules", note=_NO_MODULES),
    Row(old="clone_git_modules", note=_NO_MODULES),
    Row(old="maxworker", note="how many fetches run at a time is set by itself"),
    Row(old="maxextractworker", note="how many fetches run at a time is set by itself"),
    Row(old="use_cache_fallback", note="always so: a mirror that cannot be fetched stays as it was"),
    Row(old="retry_git_commands", note="always so: a damaged mirror is cloned anew"),
    Row(old="git_object_syntax_not_supported", note="no git program is needed"),
)  # fmt: skip
#: Keys that only one of the two has, by which their files are told apart.
_TOP: Final = {name: {row.old for row in rows if "." not in row.old} for name, rows in
               (("r10k", R10K_ROWS), ("g10k", G10K_ROWS))}  # fmt: skip
_IN_SOURCE: Final = {
    name: {row.old.split(".")[2] for row in rows if row.old.startswith("sources.SOURCE.")}
    for name, rows in (("r10k", R10K_ROWS), ("g10k", G10K_ROWS))
}
_PREFIX = re.compile(r"[A-Za-z0-9_]{1,63}").fullmatch


def tool_of(file: OldFile) -> str:
    """Return whether a file is of `r10k` or `g10k`; empty where it is of neither."""
    sources = file.data.get("sources")
    if not isinstance(sources, Mapping) or file.data.keys() & {"listen-topic", "repo-list"}:
        return ""
    keys = {str(key) for source in sources.values() if isinstance(source, Mapping) for key in source}
    if not keys & {"remote", "basedir", "type"}:
        return ""
    marks = {
        name: len(file.data.keys() & (_TOP[name] - _TOP[other])) + len(keys & (_IN_SOURCE[name] - _IN_SOURCE[other]))
        for name, other in (("r10k", "g10k"), ("g10k", "r10k"))
    }
    if marks["r10k"] == marks["g10k"]:
        return "g10k" if file.path.name.startswith("g10k") else "r10k"
    return max(marks, key=lambda name: marks[name])


def convert_sources(file: OldFile, draft: MigrationDraft, rows: tuple[Row, ...]) -> None:
    """Fill the draft from the settings of r10k or g10k."""
    table = OldTable.of(file, draft, rows)
    git = table.table("git")
    shared_key = git.text("private_key") if git else None
    timeout = table.number("timeout")
    special = _special(git)
    used = False
    for name, source in table.tables("sources"):
        place = _source(source, name, special)
        if place is None:
            continue
        ssh_key = source.text("private_key") if any(row.old == "sources.SOURCE.private_key" for row in rows) else None
        if ssh_key:
            source.put("private_key", (*place, "mirror", "ssh_key"), ssh_key)
        elif git and shared_key and (*place, "mirror", "ssh_key") not in draft.values:
            git.put("private_key", (*place, "mirror", "ssh_key"), shared_key)
        if timeout and 0 < timeout < 1e6:
            table.put("timeout", (*place, "mirror", "stall_timeout"), float(timeout))
        used = True
        source.finish()
    if not used and git and shared_key:
        git.lose("private_key", "there is no source that it is for")
    if timeout is not None and not (used and 0 < timeout < 1e6):
        table.lose("timeout", "there is no source that it is for, or it is no time")
    for remote, item in special.items():
        if remote not in draft.values.values():
            item.lose_whole("no source has this remote; modules are not installed")
        item.finish()
    if git:
        git.finish()
    table.finish()
    draft.warn(f"{file.path}: {_NO_MODULES}")


def _special(git: OldTable | None) -> dict[str, OldTable]:
    """Return the settings for single repositories, by their remote."""
    found: dict[str, OldTable] = {}
    for item in git.listed("repositories") if git else ():
        remote = item.text("remote")
        if remote is None or remote in found:
            item.lose_whole("there is no remote that it is for, or it is there twice")
        else:
            found[remote] = item
    return found


def _source(table: OldTable, name: str, special: Mapping[str, OldTable]) -> Place | None:
    """Convert one source; return the place of its repository, None where there is none."""
    kind = table.text("type") if "type" in table.data else None
    if kind not in (None, "git"):
        table.lose_whole(
            f"only sources of type git are checked out, and this one is of type {kind[:40]!a}" if kind else ""
        )
        return None
    if repository_place(table, "remote", name) is None:
        table.lose_whole("its name cannot be that of a repository: letters, digits, _ . + - only")
        return None
    place: Place = ("repositories", name)
    remote, basedir = table.text("remote"), table.text("basedir")
    if remote is None or not put_origin(table, "remote", place, remote):
        put_placeholder(table, place)
    item = special.get(remote or "")
    if item is not None and (key := item.text("private_key")):
        item.put("private_key", (*place, "mirror", "ssh_key"), key)
    keys, checkout = {"target": "basedir"}, dict[str, object]()
    checkout["mode"] = "puppetmaster"
    if basedir is not None:
        checkout["target"] = str(PurePosixPath(basedir))
    if prefix := _prefix(table, name):
        keys["prefix"], checkout["prefix"] = "prefix", prefix
    refs = _refs(table, item)
    if refs:
        checkout["refs"] = refs
        keys["refs"] = "ignore_branch_prefixes"
    if basedir is None:
        for key in [*keys.values()]:
            table.lose(key, "there is no basedir, so that nothing is checked out")
    else:
        put_checkout(table, place, keys, checkout)
    return place


def _prefix(table: OldTable, name: str) -> str:
    """Return what stands before the names of a source's environments."""
    value = table.take("prefix")
    if value is None or value is False or value == "":
        return ""
    text = name if value is True or value == "true" else "" if value == "false" else str(value)
    if text and not _PREFIX(text):
        table.lose("prefix", "expected letters, digits and _: set checkouts[].prefix, or directories may meet")
        return ""
    return f"{text}_" if text else ""


def _refs(table: OldTable, item: OldTable | None) -> list[str]:
    """Return patterns of the branches that are deployed; empty for all of them."""
    known = any(row.old == "sources.SOURCE.ignore_branch_prefixes" for row in table.rows)
    prefixes = (table.texts("ignore_branch_prefixes") if known else None) or []
    if item is not None and "ignore_branch_prefixes" in item.data:
        prefixes += item.texts("ignore_branch_prefixes") or []
    if not prefixes:
        return []
    refs = refs_without(prefixes)
    if refs is None:
        table.lose("ignore_branch_prefixes", _CHOOSE)
        return []
    return refs


__all__ = ["G10K_ROWS", "R10K_ROWS", "convert_sources", "tool_of"]
