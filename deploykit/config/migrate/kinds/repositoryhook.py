"""stomp-postrec.yaml and svn-stomp.yaml: the hooks of git and SVN servers -> hooks.toml, and the relay's `[broker]`.

Both files have the same keys. Which of the two a file is shows in its topic for people or in its name; where neither
shows it, the topic is set for both.
"""

from __future__ import annotations

from typing import Final

from deploykit.config.migrate.broker import RSERVER_ROWS, put_broker
from deploykit.config.migrate.hooks import LEGACY_COMMENT, put_hook_legacy, put_hook_topic
from deploykit.config.migrate.model import Kind, MigrationDraft, OldFile, Row
from deploykit.config.migrate.oldtable import OldTable

ROWS: Final = (
    *RSERVER_ROWS,
    Row(old="trigger-topic", new="hooks.toml: topics.source", note=LEGACY_COMMENT),
    Row(old="report-topic", new="hooks.toml: topics.notices.git", note="of an SVN server: `topics.notices.svn`"),
)


def _fits(file: OldFile) -> bool:
    return {"trigger-topic", "rserver", "stomp-options"} <= file.data.keys()


def _convert(file: OldFile, draft: MigrationDraft) -> None:
    table = OldTable.of(file, draft, ROWS)
    put_broker(table)
    put_hook_topic(table, "trigger-topic", "source")
    for server in _servers(file):
        put_hook_topic(table, "report-topic", "notices", server)
    put_hook_legacy(table)
    table.finish()
    draft.warn(
        "hooks: hooks.toml goes to the machine with the repositories; install the hooks there (deploykit hooks "
        "install). They queue, and the relay sends: deploykit relay, with [broker] of these settings"
    )


def _servers(file: OldFile) -> tuple[str, ...]:
    """Return whether it is the hook of a git or of an SVN server; both where that does not show."""
    topic = file.data.get("report-topic")
    words = f"{file.path.name} {topic if isinstance(topic, str) else ''}".lower()
    if "svn" in words:
        return ("svn",)
    return ("git",) if "git" in words or "postrec" in words else ("git", "svn")


KIND: Final = Kind(
    name="repository-hook",
    title="hooks of git and SVN servers",
    file="stomp-postrec.yaml, svn-stomp.yaml",
    fits=_fits,
    rows=ROWS,
    convert=_convert,
)
