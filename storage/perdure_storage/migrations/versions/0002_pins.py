"""Pins, which keep the blobs of a backup from gc; runs by the run that they take over from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ID = sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Bring the tables up to this revision."""
    op.create_table(
        "pin",
        sa.Column("id", _ID, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_pin"),
        sqlite_with_rowid=False,
    )
    donor = sa.text("reuse_from IS NOT NULL")
    op.create_index(
        "ix_run_reuse_from", "run", ["reuse_from"], postgresql_where=donor, sqlite_where=donor
    )
