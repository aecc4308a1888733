"""Migrations of the ledger: alembic runs those that are missing when it is opened."""
