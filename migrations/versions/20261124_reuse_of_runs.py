"""Reuse of finished runs, and experiments that are changed copies of others."""

import sqlalchemy as sa
from alembic import op

revision = "20261124"
down_revision = "20261123"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the content hash of runs, what they reused, and what an experiment was cloned from."""
    op.add_column("runs", sa.Column("content_hash", sa.String(length=64), nullable=True))
    op.add_column("runs", sa.Column("reused_run_id", sa.Uuid(), nullable=True))
    op.create_index("ix_runs_content_hash", "runs", ["content_hash"])
    op.add_column("experiments", sa.Column("cloned_from", sa.Uuid(), nullable=True))


def downgrade() -> None:
    """Removes them."""
    op.drop_column("experiments", "cloned_from")
    op.drop_index("ix_runs_content_hash", table_name="runs")
    op.drop_column("runs", "reused_run_id")
    op.drop_column("runs", "content_hash")
