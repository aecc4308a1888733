"""jenkins-helper.yaml: what told the fleet of builds, from inside a build -> hooks.toml of `jenkins-notify`.

The original's file names the broker alone; its topics were in its source.
"""

from __future__ import annotations

from typing import Final

from deploykit.config.migrate.broker import CONNECTOR_ROWS, RSERVER_ROWS, put_broker
from deploykit.config.migrate.hooks import put_hook_legacy
from deploykit.config.migrate.model import HOOKS_FILE, Kind, MigrationDraft, OldFile
from deploykit.config.migrate.oldtable import OldTable

ROWS: Final = (*CONNECTOR_ROWS, *RSERVER_ROWS)
_KNOWN: Final = frozenset({"rserver", "stomp-options", "stompconnector"})


def _fits(file: OldFile) -> bool:
    keys = file.data.keys()
    return bool(keys & {"rserver", "stompconnector"}) and keys <= _KNOWN


def _convert(file: OldFile, draft: MigrationDraft) -> None:
    table = OldTable.of(file, draft, ROWS)
    put_broker(table)
    put_hook_legacy(table, "build", "build_success", "build_failure", "notices.jenkins")
    draft.comments.setdefault(
        (HOOKS_FILE, "topics"),
        "where a site requires a build (docs/build-gate.md), results are signed: set signing_key",
    )
    table.finish()
    draft.warn(
        "hooks: hooks.toml goes to the machines that build; call jenkins-notify there in place of the original's "
        "helper (contrib/jenkins). It queues, and the relay sends: deploykit relay, with [broker] of these settings"
    )


KIND: Final = Kind(
    name="jenkins-helper",
    title="reports of builds",
    file="jenkins-helper.yaml",
    fits=_fits,
    rows=ROWS,
    convert=_convert,
)
