"""git-agent.yaml: where the original's deploy agent sent its lines for people -> `[broker]` and one topic."""

from __future__ import annotations

from typing import Final

from deploykit.config.migrate.broker import CONNECTOR_ROWS, RSERVER_ROWS, put_broker
from deploykit.config.migrate.model import Kind, MigrationDraft, OldFile, Row
from deploykit.config.migrate.oldtable import OldTable
from deploykit.config.migrate.topics import put_topic

ROWS: Final = (
    *CONNECTOR_ROWS,
    *RSERVER_ROWS,
    Row(old="report-topic", new="topics.notices.agent", note="reports themselves go to `topics.report`"),
)
_KNOWN: Final = frozenset({"rserver", "stomp-options", "stompconnector", "report-topic"})


def _fits(file: OldFile) -> bool:
    keys = file.data.keys()
    return "report-topic" in keys and bool(keys & {"rserver", "stompconnector"}) and keys <= _KNOWN


def _convert(file: OldFile, draft: MigrationDraft) -> None:
    table = OldTable.of(file, draft, ROWS)
    put_broker(table)
    put_topic(table, "report-topic", "notices", "agent")
    table.finish()


KIND: Final = Kind(
    name="git-agent",
    title="lines of the deploy agent",
    file="git-agent.yaml",
    fits=_fits,
    rows=ROWS,
    convert=_convert,
)
