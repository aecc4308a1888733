"""gitlab-stomp.yaml: the receiver of GitLab's webhooks -> `[webhook]`."""

from __future__ import annotations

from typing import Final

from deploykit.config.migrate.broker import CONNECTOR_ROWS, put_broker
from deploykit.config.migrate.forges import put_source
from deploykit.config.migrate.model import Kind, MigrationDraft, OldFile, Row
from deploykit.config.migrate.oldtable import OldTable

ROWS: Final = (
    *CONNECTOR_ROWS,
    Row(old="trigger-topic", new="topics.source"),
    Row(old="report-topic", new="topics.notices.webhook"),
)


def _fits(file: OldFile) -> bool:
    return {"trigger-topic", "stompconnector"} <= file.data.keys() and "incoming-dir" not in file.data


def _convert(file: OldFile, draft: MigrationDraft) -> None:
    table = OldTable.of(file, draft, ROWS)
    put_broker(table)
    put_source(table, "gitlab")
    table.finish()


KIND: Final = Kind(
    name="gitlab-stomp",
    title="webhooks of GitLab",
    file="gitlab-stomp.yaml",
    fits=_fits,
    rows=ROWS,
    convert=_convert,
)
