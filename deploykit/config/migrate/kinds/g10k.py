"""g10k, which deploys Puppet environments: `g10k.yaml` -> repositories with checkouts of mode `puppetmaster`."""

from __future__ import annotations

from typing import Final

from deploykit.config.migrate.model import Kind, MigrationDraft, OldFile
from deploykit.config.migrate.puppet import G10K_ROWS, convert_sources, tool_of


def _convert(file: OldFile, draft: MigrationDraft) -> None:
    convert_sources(file, draft, G10K_ROWS)


KIND: Final = Kind(
    name="g10k",
    title="Puppet environments",
    file="g10k.yaml",
    fits=lambda file: tool_of(file) == "g10k",
    rows=G10K_ROWS,
    convert=_convert,
)

__all__ = ["KIND"]
