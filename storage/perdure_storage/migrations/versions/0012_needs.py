"""The most that any step of a plan asks for: who has less leaves its runs to others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables up to this revision."""
    op.add_column("plan", sa.Column("needs", sa.Text(), nullable=True))
