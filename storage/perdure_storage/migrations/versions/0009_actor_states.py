"""The state of an actor after a call, in the row of the call's result."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables up to this revision."""
    op.add_column("step", sa.Column("states", sa.LargeBinary(), nullable=True))
