"""The tables of accesses to protected sites."""

from __future__ import annotations

from alembic import op

from deploykit.web.projection.tables import ACCESS, METADATA, PROTECTED

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables, where the first version has not made them already: it makes all that there are."""
    METADATA.create_all(op.get_bind(), tables=[ACCESS, PROTECTED])
