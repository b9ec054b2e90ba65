"""The first tables: runs, steps, attempts, events, plans and what refers to blobs."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql")


def _where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}


def upgrade() -> None:
    """Bring the tables up to this revision."""
    op.create_table(
        "blob_ref",
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("holder_id", _ID, nullable=False),
        sa.Column("step_id", _ID, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("digest", _ID, nullable=False),
        sa.PrimaryKeyConstraint(
            "holder", "holder_id", "step_id", "generation", "digest", name="pk_blob_ref"
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_blob_ref_digest", "blob_ref", ["digest"])
    op.create_table(
        "condemned",
        sa.Column("digest", _ID, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_condemned"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "coordinator",
        sa.Column("token", _ID, nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("boot_id", sa.Text(), nullable=False),
        sa.Column("lease_until_us", sa.BigInteger(), nullable=False),
        sa.Column("workers", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("token", name="pk_coordinator"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "plan",
        sa.Column("digest", _ID, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("blobs", sa.Text(), nullable=False),
        sa.Column("mac", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("digest", name="pk_plan"),
    )
    op.create_table(
        "setting",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_setting"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tombstone",
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_tombstone"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "run",
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
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index("ix_run_by_status", "run", ["status", "created_at_us", "id"])
    op.create_index("ix_run_by_workflow", "run", ["workflow", "created_at_us", "id"])
    op.create_index(
        "ix_run_cancelling",
        "run",
        ["id"],
        **_where("cancel_requested AND status NOT IN ('SUCCEEDED', 'FAILED', 'CANCELLED')"),
    )
    op.create_index(
        "ix_run_driven", "run", ["owner_token"], **_where("status IN ('RUNNING', 'PAUSED')")
    )
    op.create_index("ix_run_newest", "run", ["created_at_us", "id"])
    op.create_index("ix_run_parent", "run", ["parent"], **_where("parent IS NOT NULL"))
    op.create_index("ix_run_waiting", "run", ["wake_at_us"], **_where("status || '' = 'WAITING'"))
    op.create_table(
        "attempt",
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("step_id", _ID, nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=True),
        sa.Column("error", sa.LargeBinary(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("started_at_us", sa.BigInteger(), nullable=True),
        sa.Column("finished_at_us", sa.BigInteger(), nullable=True),
        sa.Column("not_before_us", sa.BigInteger(), nullable=True),
        sa.Column("peak_memory_bytes", sa.BigInteger(), nullable=True),
        sa.Column("mac", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name="fk_attempt_run_id"),
        sa.PrimaryKeyConstraint("run_id", "step_id", "generation", "attempt", name="pk_attempt"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "event",
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("step_id", _ID, nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name="fk_event_run_id"),
        sa.PrimaryKeyConstraint("run_id", "seq", name="pk_event"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "plan_ref",
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("plan_digest", _ID, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name="fk_plan_ref_run_id"),
        sa.ForeignKeyConstraint(["plan_digest"], ["plan.digest"], name="fk_plan_ref_plan_digest"),
        sa.PrimaryKeyConstraint("run_id", "plan_digest", name="pk_plan_ref"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_plan_ref_plan_digest", "plan_ref", ["plan_digest"])
    op.create_table(
        "step",
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("step_id", _ID, nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("current", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("own", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("inputs", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(), nullable=True),
        sa.Column("codec", sa.Text(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("integrity", sa.Text(), nullable=True),
        sa.Column("value_digest", sa.Text(), nullable=True),
        sa.Column("parts", sa.Text(), nullable=True),
        sa.Column("preview", sa.Text(), nullable=True),
        sa.Column("data", sa.LargeBinary(), nullable=True),
        sa.Column("error", sa.LargeBinary(), nullable=True),
        sa.Column("caught", sa.Boolean(), nullable=False),
        sa.Column("started_at_us", sa.BigInteger(), nullable=True),
        sa.Column("finished_at_us", sa.BigInteger(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("mac", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name="fk_step_run_id"),
        sa.PrimaryKeyConstraint("run_id", "step_id", "generation", name="pk_step"),
    )
    op.create_index(
        "ix_step_current", "step", ["run_id", "step_id"], unique=True, **_where("current")
    )
