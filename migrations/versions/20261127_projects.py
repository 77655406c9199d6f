"""Projects: everything belongs to one; what there is already, to the default one."""

from datetime import UTC, datetime
from uuid import UUID

import sqlalchemy as sa
from alembic import op

revision = "20261127_projects"
down_revision = "20261126_datasets"
branch_labels = None
depends_on = None

DEFAULT_PROJECT_ID = UUID("00000000-0000-7000-8000-000000000001")
LISTED = ("experiments", "jobs", "runs", "checkpoints", "results", "datasets")
"""Tables whose lists are read by project."""
NAMES = {"fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s"}
"""SQLite does not tell the name of a foreign key that stands with its column."""
TABLES = (*LISTED, "aliases", "api_keys")


def upgrade() -> None:
    """Adds the table with the default project, and the column to every table whose rows have a name on the wire."""
    projects = op.create_table(
        "projects",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("max_gpu_slots", sa.Integer(), nullable=True),
        sa.Column("max_running_runs", sa.Integer(), nullable=True),
        sa.Column("max_storage_bytes", sa.BigInteger(), nullable=True),
        sa.Column("max_judge_spend", sa.Float(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
        sa.UniqueConstraint("name", name="uq_projects_name"),
    )
    op.bulk_insert(projects, [{"id": DEFAULT_PROJECT_ID, "name": "default", "created_at": datetime.now(UTC)}])
    dialect = op.get_bind().dialect
    for table in TABLES:
        # In words of its own: Alembic would copy whole tables on SQLite, and runs would lose their trigger.
        op.execute(
            f"ALTER TABLE {table} ADD COLUMN project_id {sa.Uuid().compile(dialect)} "
            f"DEFAULT '{DEFAULT_PROJECT_ID.hex}' NOT NULL "
            f"CONSTRAINT fk_{table}_project_id_projects REFERENCES projects (id)"
        )
        if dialect.name == "postgresql":
            op.alter_column(table, "project_id", server_default=None)
    for table in LISTED:
        op.create_index(f"ix_{table}_project_id_id", table, ["project_id", "id"])
    with op.batch_alter_table("datasets", naming_convention=NAMES) as datasets:
        datasets.drop_constraint("uq_datasets_name_version", type_="unique")
        datasets.create_unique_constraint("uq_datasets_project_id_name_version", ["project_id", "name", "version"])
    with op.batch_alter_table("aliases", naming_convention=NAMES) as aliases:
        aliases.drop_constraint("pk_aliases", type_="primary")
        aliases.create_primary_key("pk_aliases", ["project_id", "name"])


def downgrade() -> None:
    """Removes them; where two projects gave the same name to different things, there is no way back."""
    with op.batch_alter_table("aliases", naming_convention=NAMES) as aliases:
        aliases.drop_constraint("pk_aliases", type_="primary")
        aliases.create_primary_key("pk_aliases", ["name"])
        aliases.drop_column("project_id")
    for table in LISTED:
        op.drop_index(f"ix_{table}_project_id_id", table_name=table)
    with op.batch_alter_table("datasets", naming_convention=NAMES) as datasets:
        datasets.drop_constraint("uq_datasets_project_id_name_version", type_="unique")
        datasets.create_unique_constraint("uq_datasets_name_version", ["name", "version"])
        datasets.drop_column("project_id")
    for table in ("experiments", "jobs", "runs", "checkpoints", "results", "api_keys"):
        op.drop_column(table, "project_id")
    op.drop_table("projects")
