"""Keys under which schedules count each other's runs; runs by hand, which count for none."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_ID = sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql")


def _where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}


def upgrade() -> None:
    """Bring the tables up to this revision."""
    op.add_column(
        "run", sa.Column("by_hand", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.drop_index("ix_run_of_schedule", "run")
    op.create_index(
        "ix_run_of_schedule",
        "run",
        ["schedule", "status", "finished_at_us"],
        **_where("schedule IS NOT NULL AND NOT by_hand"),
    )
    op.add_column("schedule", sa.Column("concurrency", _ID, nullable=True))
    op.add_column("schedule", sa.Column("waits_since_us", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_schedule_line",
        "schedule",
        ["concurrency", "waits_since_us", "name"],
        **_where("concurrency IS NOT NULL"),
    )
    op.create_table(
        "concurrency",
        sa.Column("key", _ID, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_concurrency"),
        sqlite_with_rowid=False,
    )
