"""What a step's last attempt held of memory: that of a successful one had no place."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables up to this revision."""
    op.add_column("step", sa.Column("peak_memory_bytes", sa.BigInteger(), nullable=True))
