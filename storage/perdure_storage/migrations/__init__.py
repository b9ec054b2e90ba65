"""Alembic environment and revisions of a store's tables; shipped with the package."""
