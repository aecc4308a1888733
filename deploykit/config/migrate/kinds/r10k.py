"""r10k, which deploys Puppet environments: `r10k.yaml` -> repositories with checkouts of mode `puppetmaster`."""

from __future__ import annotations

from typing import Final

from deploykit.config.migrate.model import Kind, MigrationDraft, OldFile
from deploykit.config.migrate.puppet import R10K_ROWS, convert_sources, tool_of


def _convert(file: OldFile, draft: MigrationDraft) -> None:
    convert_sources(file, draft, R10K_ROWS)


KIND: Final = Kind(
    name="r10k",
    title="Puppet environments",
    file="r10k.yaml",
    fits=lambda file: tool_of(file) == "r10k",
    rows=R10K_ROWS,
    convert=_convert,
)

__all__ = ["KIND"]
