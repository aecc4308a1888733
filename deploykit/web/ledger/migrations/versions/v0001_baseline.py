"""The first version of the ledger."""

from __future__ import annotations

from alembic import op

from deploykit.web.ledger.tables import METADATA

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables. A later version that changes one must write this one's tables down here first."""
    METADATA.create_all(op.get_bind())
