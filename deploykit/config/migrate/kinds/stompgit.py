"""stomp-git, the mirror updater: `/etc/stomp-git/stomp-git.yaml` -> `[repositories]` of an agent.

Its first versions had the repositories at the top, `NAME: /clone`, and a switch `-p` for Puppet's environments.
"""

from __future__ import annotations

from typing import Final

from deploykit.config.migrate.broker import CONNECTOR_ROWS, RSERVER_ROWS, put_broker
from deploykit.config.migrate.model import Kind, MigrationDraft, OldFile, Place, Row
from deploykit.config.migrate.oldtable import OldTable
from deploykit.config.migrate.repositories import MODES, put_checkout, put_origin_of_clone, repository_place
from deploykit.config.migrate.topics import put_topic

_NO_NORMAL: Final = "mode normal has no directory: fetched alone"

ROWS: Final = (
    *CONNECTOR_ROWS,
    *RSERVER_ROWS,
    Row(old="listen-topic", new="topics.source"),
    Row(old="report-topic", new="topics.notices.mirror", note="with `legacy = true`; reports go to `topics.mirror`"),
    Row(old="log-file", note="a daemon logs to standard error, for the journal; how is in [log]"),
    Row(old="fluent-name", note="fluentd can read the journal, with [log] format = json"),
    Row(old="repo-list.NAME.repo", new="repositories.NAME.url", note="the origin of that clone"),
    Row(old="repo-list.NAME.mode", new="repositories.NAME.checkouts[].mode"),
    Row(
        old="repo-list.NAME.target",
        new="repositories.NAME.checkouts[].target",
        note="is a symlink now; in modes `tags` and `atomic` with `nested = true`",
    ),
    Row(old="repo-list.NAME.branch", new="repositories.NAME.checkouts[].branch"),
    Row(
        old="repo-list.NAME.user",
        new="repositories.NAME.checkouts[].owner",
        note="of the files; needs root. The agent fetches as its own user",
    ),
    Row(old="puppetenv", new="repositories.NAME.checkouts[].target", note="of mode `puppetmaster`"),
    Row(old="puppet-environments", new="repositories.puppet-environments.url", note="the origin of that clone"),
    Row(old="NAME", new="repositories.NAME.url", note="the origin of that clone"),
)
_TOP: Final = frozenset(row.old.partition(".")[0] for row in ROWS) - {"NAME", "puppet-environments"}


def _fits(file: OldFile) -> bool:
    data = file.data
    if "jenkins-projects" in data or "jenkins-url" in data or "sites" in data or "site-root" in data:
        return False
    if "repo-list" in data:
        return bool(data.keys() & {"listen-topic", "stompconnector", "rserver"}) or len(data) == 1
    clones = [value for key, value in data.items() if key not in _TOP]
    return "listen-topic" in data and bool(clones) and all(_is_path(value) for value in clones)


def _is_path(value: object) -> bool:
    return isinstance(value, str) and value.startswith("/")


def _convert(file: OldFile, draft: MigrationDraft) -> None:
    table = OldTable.of(file, draft, ROWS)
    put_broker(table)
    put_topic(table, "listen-topic", "source")
    put_topic(table, "report-topic", "notices", "mirror")
    for name, repo in table.tables("repo-list"):
        _repository(name, repo)
    if "repo-list" not in file.data:
        _first_version(table)
    table.finish()


def _repository(name: str, table: OldTable) -> None:
    """Convert one entry of `repo-list`."""
    place = repository_place(table, "repo", name)
    if place is None:
        table.lose_whole("not a name for a repository: letters, digits, _ . + - and / between parts")
        return
    clone, user, target = table.text("repo"), table.text("user"), table.text("target")
    put_origin_of_clone(table, "repo", place, clone or "")
    mode, branch = table.text("mode") or "normal", table.text("branch")
    if mode not in MODES:
        table.lose("mode", f"expected one of {', '.join(MODES)}")
        mode = "normal"
    if mode == "normal":
        for key, value in (("target", target), ("branch", branch)):
            if value:
                table.lose(key, _NO_NORMAL)
        if user:
            table.lose("user", "the agent fetches as its own user, with mirror.ssh_key where one is set")
        table.finish()
        return
    _checkout(table, place, mode, {"target": target, "branch": branch, "owner": user}, clone)
    table.finish()


def _checkout(table: OldTable, place: Place, mode: str, old: dict[str, str | None], clone: str | None) -> None:
    keys = {new: "user" if new == "owner" else new for new, value in old.items() if value}
    checkout: dict[str, object] = {"mode": mode, **{new: value for new, value in old.items() if value}}
    keys["mode"] = "mode"
    if mode == "dangerous" and clone:
        checkout.setdefault("target", clone)
    if mode in ("trusting", "dangerous"):
        if "branch" in checkout:
            table.lose("branch", f"mode {mode} checked out master, whatever was named here")
            del keys["branch"]
        checkout["branch"] = "master"
    elif mode != "branch" and "branch" in checkout:
        table.lose("branch", f"mode {mode} takes all branches or tags")
        del keys["branch"], checkout["branch"]
    if mode in ("tags", "atomic"):
        checkout["nested"] = True
    if mode == "puppetmaster":
        table.draft.warn(
            "mode puppetmaster: names become what Puppet takes, lower case and `_` for other characters: branch "
            "topic/z is in topic_z, and was in topic/z"
        )
    put_checkout(table, place, keys, checkout)


def _first_version(table: OldTable) -> None:
    """Convert repositories at the top of the file."""
    environments = table.text("puppetenv")
    for name in table.rest():
        if name in _TOP or not _is_path(table.data[name]):
            continue
        place, clone = repository_place(table, name, name), table.text(name)
        if place is None or clone is None:
            continue
        put_origin_of_clone(table, name, place, clone)
        if environments:
            checkout = {"mode": "puppetmaster", "target": environments}
            put_checkout(table, place, {"target": "puppetenv"}, checkout)
            table.draft.warn(f"{table.file.path}: puppetenv counted only where stomp-git ran with -p")
            environments = None
    if environments:
        table.lose("puppetenv", "no repository is here that could be checked out there")


KIND: Final = Kind(
    name="stomp-git",
    title="mirror updater",
    file="stomp-git.yaml",
    fits=_fits,
    rows=ROWS,
    convert=_convert,
)

__all__ = ["KIND"]
