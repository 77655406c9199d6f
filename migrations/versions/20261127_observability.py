"""What an operator watches: waits before attempts, traces of submissions, signals of processes, mirrors of metrics."""

import sqlalchemy as sa
from alembic import op

revision = "20261127_observability"
down_revision = "20261127_quotas"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds two columns, which older rows leave empty, and two tables."""
    op.add_column("attempts", sa.Column("waited_seconds", sa.Float(), nullable=True))
    op.add_column("runs", sa.Column("traceparent", sa.String(length=64), nullable=True))
    op.create_table(
        "signals",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_signals"),
    )
    op.create_table(
        "mirrors",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("tracker", sa.String(length=300), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("external_id", sa.String(length=128), nullable=False),
        sa.Column("is_done", sa.Boolean(), nullable=False),
        sa.Column("error", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_mirrors_run_id_runs", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "tracker", name="pk_mirrors"),
    )


def downgrade() -> None:
    """Removes them."""
    op.drop_table("mirrors")
    op.drop_table("signals")
    op.drop_column("runs", "traceparent")
    op.drop_column("attempts", "waited_seconds")
