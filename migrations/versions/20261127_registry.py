"""The registry: registered models, deletion of checkpoints and of what they came from, hourly chores."""

import sqlalchemy as sa
from alembic import op

revision = "20261127_registry"
down_revision = "20261127_rollouts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the tables, and to checkpoints their model, their end and their expiry."""
    op.create_table(
        "models",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("origin", sa.String(length=128), nullable=False),
        sa.Column("hub_id", sa.String(length=256), nullable=False),
        sa.Column("revision", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_models_project_id_projects"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_models_job_id_jobs"),
        sa.PrimaryKeyConstraint("id", name="pk_models"),
        sa.UniqueConstraint("project_id", "name", name="uq_models_project_id_name"),
    )
    op.create_index("ix_models_project_id_id", "models", ["project_id", "id"])
    op.create_table(
        "tombstones",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("object", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_tombstones_project_id_projects"),
        sa.PrimaryKeyConstraint("id", name="pk_tombstones"),
    )
    op.create_table(
        "removals",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("freed_bytes", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_removals"),
    )
    is_open = sa.text("removed_at IS NULL")
    op.create_index("ix_removals_open", "removals", ["id"], sqlite_where=is_open, postgresql_where=is_open)
    op.create_table(
        "chores",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_chores"),
    )
    # In words of its own: Alembic would copy the table on SQLite, which those that refer to it do not allow.
    op.execute("ALTER TABLE checkpoints ALTER COLUMN run_id DROP NOT NULL")
    uuid = sa.Uuid().compile(op.get_bind().dialect)
    op.execute(
        f"ALTER TABLE checkpoints ADD COLUMN model_id {uuid} "
        "CONSTRAINT fk_checkpoints_model_id_models REFERENCES models (id)"
    )
    op.create_index("ix_checkpoints_model_id", "checkpoints", ["model_id"])
    op.add_column("checkpoints", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("checkpoints", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("checkpoints", sa.Column("deleted_reason", sa.String(), nullable=False, server_default=""))
    op.add_column("runs", sa.Column("purged", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("attempts", sa.Column("software", sa.JSON(), nullable=False, server_default="{}"))


def downgrade() -> None:
    """Removes them; registered models are forgotten, their files stay."""
    op.drop_column("attempts", "software")
    op.drop_column("runs", "purged")
    op.drop_column("checkpoints", "deleted_reason")
    op.drop_column("checkpoints", "deleted_at")
    op.drop_column("checkpoints", "expires_at")
    op.execute("DELETE FROM aliases WHERE checkpoint_id IN (SELECT id FROM checkpoints WHERE run_id IS NULL)")
    op.execute(
        "UPDATE results SET checkpoint_id = NULL "
        "WHERE checkpoint_id IN (SELECT id FROM checkpoints WHERE run_id IS NULL)"
    )
    op.execute("DELETE FROM checkpoints WHERE run_id IS NULL")
    op.execute("ALTER TABLE checkpoints ALTER COLUMN run_id SET NOT NULL")
    op.drop_index("ix_checkpoints_model_id", table_name="checkpoints")
    if op.get_bind().dialect.name == "postgresql":
        op.drop_column("checkpoints", "model_id")
    else:
        op.execute("ALTER TABLE checkpoints DROP COLUMN model_id")
    op.drop_table("chores")
    op.drop_index("ix_removals_open", table_name="removals")
    op.drop_table("removals")
    op.drop_table("tombstones")
    op.drop_index("ix_models_project_id_id", table_name="models")
    op.drop_table("models")
