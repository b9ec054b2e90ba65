"""What steps wait for, and the messages that end their waiting."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ID = sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql")
_COUNTED = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Bring the tables up to this revision."""
    op.create_table(
        "wait",
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("step_id", _ID, nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", _ID, nullable=False),
        sa.Column("match", sa.Text(), nullable=False),
        sa.Column("deadline_us", sa.BigInteger(), nullable=True),
        sa.Column("value", sa.LargeBinary(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("message", sa.BigInteger(), nullable=True),
        sa.Column("mac", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name="fk_wait_run_id"),
        sa.PrimaryKeyConstraint("run_id", "step_id", "generation", name="pk_wait"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_wait_delivered",
        "wait",
        ["run_id", "message"],
        unique=True,
        postgresql_where=sa.text("message IS NOT NULL"),
        sqlite_where=sa.text("message IS NOT NULL"),
    )
    op.create_index(
        "ix_wait_event",
        "wait",
        ["name", "run_id"],
        postgresql_where=sa.text("kind = 'event' AND message IS NULL"),
        sqlite_where=sa.text("kind = 'event' AND message IS NULL"),
    )
    op.create_table(
        "message",
        sa.Column("id", _COUNTED, autoincrement=True, nullable=False),
        sa.Column("receiver", _ID, nullable=False),
        sa.Column("name", _ID, nullable=False),
        sa.Column("match", sa.Text(), nullable=False),
        sa.Column("dedup_key", _ID, nullable=True),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("mac", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_message"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_message_dedup",
        "message",
        ["receiver", "name", "dedup_key"],
        unique=True,
        postgresql_where=sa.text("dedup_key IS NOT NULL"),
        sqlite_where=sa.text("dedup_key IS NOT NULL"),
    )
    op.create_index("ix_message_receiver", "message", ["receiver", "name", "id"])
