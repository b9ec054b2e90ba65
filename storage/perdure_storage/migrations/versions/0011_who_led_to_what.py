"""What led to what triggers are told of: when a run was made that ends, who sent an event."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_ID = sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Bring the tables up to this revision."""
    op.add_column("run_end", sa.Column("created_at_us", sa.BigInteger(), nullable=True))
    op.add_column("message", sa.Column("sender", _ID, nullable=True))
