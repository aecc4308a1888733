"""cillit-access.yaml: the form that granted access to protected sites -> `label` of the sites it offered."""

from __future__ import annotations

from typing import Final

from deploykit.config.migrate.broker import CONNECTOR_ROWS, put_broker
from deploykit.config.migrate.model import Kind, MigrationDraft, OldFile, Row
from deploykit.config.migrate.naming import site_name_of
from deploykit.config.migrate.oldtable import OldTable
from deploykit.config.migrate.topics import put_topic
from deploykit.errors import InvalidName

_FORM: Final = "the form is replaced by `deploykit access grant USER SITE`, and by the console's page Access"
ROWS: Final = (
    *CONNECTOR_ROWS,
    Row(old="user-topic", new="topics.access"),
    Row(old="report-topic", new="topics.notices.access"),
    Row(
        old="sites.LABEL",
        new="access.sites.NAME.label",
        note="where the file of the site's daemon, stomp-access.yaml, is converted with it",
    ),
    Row(old="session-secret", note=f"{_FORM}; it needs none, and the old one was published with the original"),
)


def _fits(file: OldFile) -> bool:
    return "user-topic" in file.data and "sites" in file.data


def _convert(file: OldFile, draft: MigrationDraft) -> None:
    table = OldTable.of(file, draft, ROWS)
    put_broker(table)
    put_topic(table, "user-topic", "access")
    put_topic(table, "report-topic", "notices", "access")
    sites = table.table("sites")
    if sites is not None:
        for label in sites.rest():
            _convert_label(label, sites)
        sites.finish()
    table.finish()
    draft.warn(f"access: {_FORM}")


def _convert_label(label: str, sites: OldTable) -> None:
    old = sites.text(label)
    if old is None:
        sites.lose(label, "names no site")
        return
    try:
        name = site_name_of(old)
    except InvalidName as error:
        sites.lose_error(label, error)
        return
    place = ("access", "sites", name)
    if (*place, "file") not in sites.draft.values:
        sites.lose(
            label,
            f"access.sites.{name} is in none of the files: where its daemon runs, set its label to this",
        )
    elif label == name:
        sites.take(label)
    elif not label.isprintable():
        sites.lose(label, "holds a control character")
    else:
        sites.put(label, (*place, "label"), label)


KIND: Final = Kind(
    name="cillit-access",
    title="form that grants access",
    file="cillit-access.yaml",
    fits=_fits,
    rows=ROWS,
    convert=_convert,
    late=True,
)
