"""Graphs that steps give in place of their values."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ID = sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Bring the tables up to this revision."""
    op.create_table(
        "expansion",
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("step_id", _ID, nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("link", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("plan_digest", _ID, nullable=False),
        sa.Column("mac", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name="fk_expansion_run_id"),
        sa.ForeignKeyConstraint(["plan_digest"], ["plan.digest"], name="fk_expansion_plan_digest"),
        sa.PrimaryKeyConstraint("run_id", "step_id", "generation", "link", name="pk_expansion"),
        sqlite_with_rowid=False,
    )
