"""stomp-repo: what ran `apt-get update` when a package of interest was new -> `[packages]`.

Its source was never published: only a sentence of the original's README is known. So these keys are guesses, by the
names that the other daemons used.
"""

from __future__ import annotations

import re
from typing import Final

from deploykit.config.migrate.broker import CONNECTOR_ROWS, RSERVER_ROWS, put_broker
from deploykit.config.migrate.model import Kind, MigrationDraft, OldFile, Row
from deploykit.config.migrate.oldtable import OldTable
from deploykit.config.migrate.topics import put_topic

_GUESS: Final = "a guess: the source of this daemon was never published"
#: What a list of packages may be called.
_LISTS: Final = ("packages", "package-list", "packages-of-interest")
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,127}").fullmatch
ROWS: Final = (
    *CONNECTOR_ROWS,
    *RSERVER_ROWS,
    Row(old="listen-topic", new="topics.package", note=_GUESS),
    Row(old="report-topic", new="topics.notices.packages", note=_GUESS),
    *(Row(old=name, new="packages.listed", note=_GUESS) for name in _LISTS),
)
_SOURCES: Final = """\
which sources are read anew, by files of this machine (docs/packages.md):
[packages.sources.own]
file = "/etc/apt/sources.list.d/own.sources"
distributions = ["bookworm"]"""


def _fits(file: OldFile) -> bool:
    keys = file.data.keys()
    return bool(keys & {*_LISTS}) and bool(keys & {"listen-topic", "stompconnector", "rserver"}) and "sites" not in keys


def _convert(file: OldFile, draft: MigrationDraft) -> None:
    table = OldTable.of(file, draft, ROWS)
    put_broker(table)
    put_topic(table, "listen-topic", "package")
    put_topic(table, "report-topic", "notices", "packages")
    listed: list[str] = []
    for key in _LISTS:
        listed += [name for name in _packages(table, key) if name not in listed]
    if listed:
        draft.put(file, next(key for key in _LISTS if key in file.data), ("packages", "listed"), listed)
        draft.comments.setdefault(("packages",), _SOURCES)
    table.finish()
    draft.warn(
        "packages: the keys of stomp-repo are guessed, as its source was never published: compare them. Name the apt "
        "sources that are read anew in [packages.sources.NAME]: without one nothing is"
    )


def _packages(table: OldTable, key: str) -> list[str]:
    """Return the names of packages in a list, or in the keys of a map; what is none is lost."""
    value = table.take(key)
    if value is None:
        return []
    if isinstance(value, dict):
        for name, item in value.items():
            if item is not None:
                table.lose(f"{key}.{name}", "says more than a name: only the name is taken")
    items = [*value] if isinstance(value, list | dict) else [value]
    found = []
    for at, item in enumerate(items):
        if isinstance(item, str) and _PACKAGE(item):
            found.append(item)
        else:
            table.lose(f"{key}[{at}]", "not the name of a package")
    return found


KIND: Final = Kind(
    name="stomp-repo",
    title="reader of package messages",
    file="stomp-repo.yaml",
    fits=_fits,
    rows=ROWS,
    convert=_convert,
)
