"""Schedules and their ticks; runs that a schedule made, whose plan is built by who claims them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ID = sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql")


def _where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}


def _run_before() -> sa.Table:
    """Return the table as it was: SQLite copies it, also where the SQL is only printed."""
    return sa.Table(
        "run",
        sa.MetaData(),
        sa.Column("id", _ID, nullable=False),
        sa.Column("workflow", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("plan_digest", _ID, nullable=False),
        sa.Column("origin", sa.Text(), nullable=True),
        sa.Column("inputs_digest", sa.Text(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("parent", _ID, nullable=True),
        sa.Column("forked_from", _ID, nullable=True),
        sa.Column("reuse_from", _ID, nullable=True),
        sa.Column("queue", sa.Text(), nullable=True),
        sa.Column("priority", sa.BigInteger(), nullable=False),
        sa.Column("not_before_us", sa.BigInteger(), nullable=True),
        sa.Column("deadline_us", sa.BigInteger(), nullable=True),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("started_at_us", sa.BigInteger(), nullable=True),
        sa.Column("finished_at_us", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.LargeBinary(), nullable=True),
        sa.Column("error_mac", sa.LargeBinary(), nullable=True),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("owner_token", sa.Text(), nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("takeovers", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("wake_at_us", sa.BigInteger(), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("pause_requested", sa.Boolean(), nullable=False),
        sa.Column("inputs", sa.LargeBinary(), nullable=False),
        sa.Column("mac", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["plan_digest"], ["plan.digest"], name="fk_run_plan_digest"),
        sa.PrimaryKeyConstraint("id", name="pk_run"),
        sa.Index("ix_run_by_status", "status", "created_at_us", "id"),
        sa.Index("ix_run_by_workflow", "workflow", "created_at_us", "id"),
        sa.Index(
            "ix_run_cancelling",
            "id",
            **_where("cancel_requested AND status NOT IN ('SUCCEEDED', 'FAILED', 'CANCELLED')"),
        ),
        sa.Index("ix_run_driven", "owner_token", **_where("status IN ('RUNNING', 'PAUSED')")),
        sa.Index("ix_run_newest", "created_at_us", "id"),
        sa.Index("ix_run_parent", "parent", **_where("parent IS NOT NULL")),
        sa.Index("ix_run_reuse_from", "reuse_from", **_where("reuse_from IS NOT NULL")),
        sa.Index("ix_run_waiting", "wake_at_us", **_where("status || '' = 'WAITING'")),
        postgresql_with={"fillfactor": "70"},
    )


def upgrade() -> None:
    """Bring the tables up to this revision."""
    with op.batch_alter_table("run", copy_from=_run_before()) as batch:
        batch.alter_column("plan_digest", existing_type=_ID, nullable=True)
        batch.add_column(sa.Column("schedule", _ID, nullable=True))
    op.create_index(
        "ix_run_of_schedule",
        "run",
        ["schedule", "status", "finished_at_us"],
        **_where("schedule IS NOT NULL"),
    )
    op.create_index(
        "ix_run_by_schedule",
        "run",
        ["schedule", "created_at_us", "id"],
        **_where("schedule IS NOT NULL"),
    )
    op.create_table(
        "schedule",
        sa.Column("name", _ID, nullable=False),
        sa.Column("module", _ID, nullable=True),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("plan_digest", _ID, nullable=True),
        sa.Column("blobs", sa.Text(), nullable=False),
        sa.Column("mac", sa.LargeBinary(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("next_at_us", sa.BigInteger(), nullable=True),
        sa.Column("wakes_below", sa.BigInteger(), nullable=True),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("ended", sa.Boolean(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("state_mac", sa.LargeBinary(), nullable=True),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["plan_digest"], ["plan.digest"], name="fk_schedule_plan_digest"),
        sa.PrimaryKeyConstraint("name", name="pk_schedule"),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index(
        "ix_schedule_next", "schedule", ["next_at_us"], **_where("next_at_us IS NOT NULL")
    )
    op.create_index(
        "ix_schedule_waiting", "schedule", ["name"], **_where("wakes_below IS NOT NULL")
    )
    op.create_index(
        "ix_schedule_plan_digest",
        "schedule",
        ["plan_digest"],
        **_where("plan_digest IS NOT NULL"),
    )
    op.create_table(
        "tick",
        sa.Column("schedule", _ID, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("last_us", sa.BigInteger(), nullable=True),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("decided_at_us", sa.BigInteger(), nullable=False),
        sa.Column("run_id", _ID, nullable=True),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("mac", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["schedule"], ["schedule.name"], name="fk_tick_schedule"),
        sa.PrimaryKeyConstraint("schedule", "at_us", name="pk_tick"),
        sqlite_with_rowid=False,
    )
