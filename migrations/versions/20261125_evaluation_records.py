"""Evaluation records: standard errors, what was measured, and all that is known of a completion."""

import sqlalchemy as sa
from alembic import op

revision = "20261125"
down_revision = "20261124"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns, and the table of configurations."""
    op.create_table(
        "configurations",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("hash", name="pk_configurations"),
    )
    op.add_column("results", sa.Column("stderr_over_examples", sa.Float(), nullable=True))
    op.add_column("results", sa.Column("configuration", sa.String(length=64), nullable=False, server_default=""))
    op.add_column("completions", sa.Column("sample_index", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("completions", sa.Column("value", sa.Float(), nullable=True))
    op.add_column("completions", sa.Column("reason", sa.String(), nullable=True))
    op.add_column("completions", sa.Column("num_tokens", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("completions", sa.Column("choice_logprobs", sa.JSON(), nullable=True))
    op.add_column("completions", sa.Column("values", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("completions", sa.Column("details", sa.JSON(), nullable=False, server_default="{}"))
    # The benchmarks so far knew right and wrong alone.
    op.execute("UPDATE completions SET value = CASE WHEN correct THEN 1.0 ELSE 0.0 END WHERE correct IS NOT NULL")


def downgrade() -> None:
    """Drops them."""
    for name in ("details", "values", "choice_logprobs", "num_tokens", "reason", "value", "sample_index"):
        op.drop_column("completions", name)
    for name in ("configuration", "stderr_over_examples"):
        op.drop_column("results", name)
    op.drop_table("configurations")
