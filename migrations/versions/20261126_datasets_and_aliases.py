"""Data sets, names for checkpoints, and pinned checkpoints."""

import sqlalchemy as sa
from alembic import op

revision = "20261126_datasets"
down_revision = "20261125"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the two tables, and the mark of a pinned checkpoint."""
    op.create_table(
        "datasets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("format", sa.String(length=128), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("num_rows", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("columns", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_datasets"),
        sa.UniqueConstraint("name", "version", name="uq_datasets_name_version"),
    )
    op.create_table(
        "aliases",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("checkpoint_id", sa.Uuid(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["checkpoint_id"], ["checkpoints.id"], name="fk_aliases_checkpoint_id_checkpoints"),
        sa.PrimaryKeyConstraint("name", name="pk_aliases"),
    )
    op.create_index("ix_aliases_checkpoint_id", "aliases", ["checkpoint_id"])
    op.add_column("checkpoints", sa.Column("is_pinned", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Removes them."""
    op.drop_column("checkpoints", "is_pinned")
    op.drop_index("ix_aliases_checkpoint_id", table_name="aliases")
    op.drop_table("aliases")
    op.drop_table("datasets")
