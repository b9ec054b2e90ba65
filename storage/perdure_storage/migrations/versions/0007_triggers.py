"""Triggers, what arrived for them, and the ends of runs of which they have not been told."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ID = sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql")


def _where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}


def upgrade() -> None:
    """Bring the tables up to this revision."""
    op.add_column("run", sa.Column("trigger", _ID, nullable=True))
    op.create_index(
        "ix_run_by_trigger",
        "run",
        ["trigger", "created_at_us", "id"],
        **_where("trigger IS NOT NULL"),
    )
    op.create_table(
        "trigger",
        sa.Column("name", _ID, nullable=False),
        sa.Column("module", _ID, nullable=True),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("plan_digest", _ID, nullable=True),
        sa.Column("blobs", sa.Text(), nullable=False),
        sa.Column("events", sa.Text(), nullable=False),
        sa.Column("watches_runs", sa.Boolean(), nullable=False),
        sa.Column("listens", sa.Boolean(), nullable=False),
        sa.Column("mac", sa.LargeBinary(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("heard", sa.BigInteger(), nullable=False),
        sa.Column("next_at_us", sa.BigInteger(), nullable=True),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("state_mac", sa.LargeBinary(), nullable=True),
        sa.Column("listener", _ID, nullable=True),
        sa.Column("newest", sa.BigInteger(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["plan_digest"], ["plan.digest"], name="fk_trigger_plan_digest"),
        sa.PrimaryKeyConstraint("name", name="pk_trigger"),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index(
        "ix_trigger_next", "trigger", ["next_at_us"], **_where("next_at_us IS NOT NULL")
    )
    op.create_index("ix_trigger_watching", "trigger", ["name"], **_where("watches_runs"))
    op.create_index("ix_trigger_listening", "trigger", ["name"], **_where("listens"))
    op.create_index(
        "ix_trigger_plan_digest",
        "trigger",
        ["plan_digest"],
        **_where("plan_digest IS NOT NULL"),
    )
    op.create_table(
        "arrival",
        sa.Column("trigger", _ID, nullable=False),
        sa.Column("key", _ID, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("condition", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=True),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("decided_at_us", sa.BigInteger(), nullable=False),
        sa.Column("run_id", _ID, nullable=True),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("mac", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["trigger"], ["trigger.name"], name="fk_arrival_trigger"),
        sa.PrimaryKeyConstraint("trigger", "key", name="pk_arrival"),
    )
    op.create_index("ix_arrival_seq", "arrival", ["trigger", "seq"], unique=True)
    op.create_index("ix_arrival_decision", "arrival", ["trigger", "decision", "seq"])
    op.create_table(
        "run_end",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True),
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("workflow", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("trigger", _ID, nullable=True),
        sa.Column("schedule", _ID, nullable=True),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_run_end"),
        sqlite_autoincrement=True,
    )
