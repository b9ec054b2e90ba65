"""Queues: their limits, and what runs have in them: keys, slots and starts by index."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_ID = sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql")
_IS_QUEUED_FREELY = "queue IS NULL AND status || '' = 'QUEUED'"
_IS_IN_LINE = "queue IS NOT NULL AND status || '' = 'QUEUED'"
_HAS_SLOT = "queue IS NOT NULL AND owner_token IS NOT NULL"
_HAS_STARTED = "queue IS NOT NULL AND started_at_us IS NOT NULL"
_IS_ONLY_ONE = "dedup_key IS NOT NULL AND status IN ('QUEUED', 'RUNNING', 'WAITING', 'PAUSED')"


def _where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}


def upgrade() -> None:
    """Bring the tables up to this revision."""
    op.create_table(
        "queue",
        sa.Column("name", _ID, nullable=False),
        sa.Column("running_limit", sa.BigInteger(), nullable=True),
        sa.Column("key_limit", sa.BigInteger(), nullable=True),
        sa.Column("rate", sa.BigInteger(), nullable=True),
        sa.Column("window_us", sa.BigInteger(), nullable=True),
        sa.Column("declared", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_queue"),
        sqlite_with_rowid=False,
    )
    op.add_column("run", sa.Column("limit_key", _ID, nullable=False, server_default=""))
    op.add_column("run", sa.Column("dedup_key", _ID, nullable=True))
    op.create_index(
        "ix_run_line",
        "run",
        ["queue", "limit_key", sa.text("priority DESC"), "created_at_us", "id", "not_before_us"],
        **_where(_IS_IN_LINE),
    )
    op.create_index("ix_run_queued_freely", "run", ["created_at_us"], **_where(_IS_QUEUED_FREELY))
    op.create_index("ix_run_slot", "run", ["queue", "limit_key"], **_where(_HAS_SLOT))
    op.create_index("ix_run_started", "run", ["queue", "started_at_us"], **_where(_HAS_STARTED))
    op.create_index(
        "ix_run_key_started",
        "run",
        ["queue", "limit_key", "started_at_us"],
        **_where(_HAS_STARTED),
    )
    op.create_index(
        "ix_run_only_one", "run", ["queue", "dedup_key"], unique=True, **_where(_IS_ONLY_ONE)
    )
