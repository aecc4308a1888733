"""The parts of versions that are made of several repositories."""

from __future__ import annotations

from alembic import op

from deploykit.web.projection.tables import METADATA, VERSIONS

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table, where the first version has not made it already: it makes all that there are."""
    METADATA.create_all(op.get_bind(), tables=[VERSIONS])
