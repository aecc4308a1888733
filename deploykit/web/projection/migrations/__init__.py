"""Migrations of the projection's database: alembic runs those that are missing when the database is opened."""
