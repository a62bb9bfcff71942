"""An index by which the stages of one release are found."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_stage_history_release", "stage_history", ["workspace", "release", "number"], unique=False)
