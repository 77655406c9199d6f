"""What an operator watches: the wait before each attempt, the trace of a submission, signals between processes."""

import sqlalchemy as sa
from alembic import op

revision = "20261127_observability"
down_revision = "20261127_projects"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds two columns, which older rows leave empty, and a table."""
    op.add_column("attempts", sa.Column("waited_seconds", sa.Float(), nullable=True))
    op.add_column("runs", sa.Column("traceparent", sa.String(length=64), nullable=True))
    op.create_table(
        "signals",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_signals"),
    )


def downgrade() -> None:
    """Removes them."""
    op.drop_table("signals")
    op.drop_column("runs", "traceparent")
    op.drop_column("attempts", "waited_seconds")
