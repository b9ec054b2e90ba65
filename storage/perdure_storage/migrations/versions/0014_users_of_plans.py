"""Who has a plan, by index: one that goes has to be nobody's, by its foreign keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_IS_PLANNED = "plan_digest IS NOT NULL"


def upgrade() -> None:
    """Bring the tables up to this revision."""
    op.create_index(
        "ix_run_plan_digest",
        "run",
        ["plan_digest"],
        postgresql_where=sa.text(_IS_PLANNED),
        sqlite_where=sa.text(_IS_PLANNED),
    )
    op.create_index("ix_expansion_plan_digest", "expansion", ["plan_digest"])
