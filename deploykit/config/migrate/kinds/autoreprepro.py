"""auto-reprepro.yaml: what took new packages into a Debian repository -> hooks.toml of `reprepro-incoming`."""

from __future__ import annotations

from typing import Final

from deploykit.config.migrate.broker import CONNECTOR_ROWS, RSERVER_ROWS, put_broker
from deploykit.config.migrate.hooks import LEGACY_COMMENT, put_hook_legacy, put_hook_topic
from deploykit.config.migrate.model import HOOKS_FILE, Kind, MigrationDraft, OldFile, Row
from deploykit.config.migrate.naming import absolute_path
from deploykit.config.migrate.oldtable import OldTable

_DISTRIBUTIONS: Final = (
    "each directory in `incoming` is a distribution: let nothing else be there (the original took these alone)"
)
ROWS: Final = (
    *CONNECTOR_ROWS,
    *RSERVER_ROWS,
    Row(old="package-topic", new="hooks.toml: topics.package", note=LEGACY_COMMENT),
    Row(old="report-topic", new="hooks.toml: topics.notices.packages"),
    Row(old="incoming-dir", new="hooks.toml: incoming"),
    Row(old="archive-dir", new="hooks.toml: archive", note="the original had it in its source; ours needs it"),
    Row(old="reprepro-dir", new="hooks.toml: reprepro", note="the original had it in its source; ours needs it"),
    Row(old="distro-list", note=_DISTRIBUTIONS),
)


def _fits(file: OldFile) -> bool:
    return "incoming-dir" in file.data


def _convert(file: OldFile, draft: MigrationDraft) -> None:
    table = OldTable.of(file, draft, ROWS)
    put_broker(table)
    put_hook_topic(table, "package-topic", "package")
    put_hook_topic(table, "report-topic", "notices", "packages")
    put_hook_legacy(table)
    for key, name in (("incoming-dir", "incoming"), ("archive-dir", "archive"), ("reprepro-dir", "reprepro")):
        path = absolute_path(table, key)
        if path is not None:
            table.put(key, (HOOKS_FILE, name), path)
    missing = [name for name in ("archive", "reprepro") if (HOOKS_FILE, name) not in draft.values]
    if missing:
        draft.warn(
            f"hooks: set {' and '.join(missing)} in hooks.toml, which the original had in its source: archive is where "
            "packages go that were taken in (outside of incoming), reprepro the repository's base directory"
        )
    table.finish()
    draft.warn(
        "hooks: hooks.toml goes to the machine with the Debian repository; install reprepro-incoming there (deploykit "
        "hooks install). It queues, and the relay sends: deploykit relay, with [broker] of these settings"
    )


KIND: Final = Kind(
    name="auto-reprepro",
    title="intake of a Debian repository",
    file="auto-reprepro.yaml",
    fits=_fits,
    rows=ROWS,
    convert=_convert,
)
