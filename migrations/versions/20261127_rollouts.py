"""Rollouts that training runs keep."""

import sqlalchemy as sa
from alembic import op

revision = "20261127_rollouts"
down_revision = "20261127_origins"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the table."""
    op.create_table(
        "rollouts",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("iteration", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("prompt_id", sa.String(length=128), nullable=False),
        sa.Column("prompt", sa.String(), nullable=False),
        sa.Column("reference", sa.String(), nullable=False),
        sa.Column("num_tokens", sa.Integer(), nullable=False),
        sa.Column("is_truncated", sa.Boolean(), nullable=False),
        sa.Column("reward", sa.Float(), nullable=True),
        sa.Column("is_correct", sa.Boolean(), nullable=True),
        sa.Column("parts", sa.JSON(), nullable=False),
        sa.Column("pieces", sa.JSON(), nullable=False),
        sa.Column("advantages", sa.JSON(), nullable=False),
        sa.Column("logprobs", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_rollouts_run_id_runs"),
        sa.PrimaryKeyConstraint("run_id", "iteration", "position", name="pk_rollouts"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Removes it."""
    op.drop_table("rollouts")
