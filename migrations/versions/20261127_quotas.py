"""Quotas, fair shares and the audit log: the claim's indexes by project, what judges cost, who changed what."""

import sqlalchemy as sa
from alembic import op

revision = "20261127_quotas"
down_revision = "20261127_search"
branch_labels = None
depends_on = None

IS_QUEUED = sa.text("state = 'queued'")
IS_LIVE = sa.text("state IN ('leased', 'running', 'stopping')")
ORDER: list[str | sa.TextClause] = ["queue", sa.text("priority DESC"), "available_at", "id"]


def upgrade() -> None:
    """Adds the tables, and the project to the indexes."""
    op.drop_index("ix_runs_claim", table_name="runs")
    op.create_index("ix_runs_claim", "runs", ["project_id", *ORDER], sqlite_where=IS_QUEUED, postgresql_where=IS_QUEUED)
    op.drop_index("ix_runs_live", table_name="runs")
    op.create_index("ix_runs_live", "runs", ["project_id", "num_gpus"], sqlite_where=IS_LIVE, postgresql_where=IS_LIVE)
    op.add_column("runs", sa.Column("spending_cap", sa.Float(), nullable=True))
    op.create_table(
        "spendings",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("month", sa.String(length=7), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("usd", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_spendings_project_id_projects"),
        sa.PrimaryKeyConstraint("run_id", "month", name="pk_spendings"),
    )
    op.create_index("ix_spendings_project_id_month", "spendings", ["project_id", "month"])
    op.create_table(
        "audit_entries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("api_key_id", sa.Uuid(), nullable=False),
        sa.Column("key_name", sa.String(length=128), nullable=False),
        sa.Column("via", sa.String(length=128), nullable=False),
        sa.Column("action", sa.String(length=128), nullable=False),
        sa.Column("object_id", sa.String(length=128), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_audit_entries_project_id_projects"),
        sa.PrimaryKeyConstraint("id", name="pk_audit_entries"),
    )
    op.create_index("ix_audit_entries_project_id_id", "audit_entries", ["project_id", "id"])


def downgrade() -> None:
    """Removes them."""
    op.drop_table("audit_entries")
    op.drop_table("spendings")
    op.drop_column("runs", "spending_cap")
    op.drop_index("ix_runs_claim", table_name="runs")
    op.drop_index("ix_runs_live", table_name="runs")
    op.create_index("ix_runs_live", "runs", ["worker_id"], sqlite_where=IS_LIVE, postgresql_where=IS_LIVE)
    op.create_index("ix_runs_claim", "runs", ORDER, sqlite_where=IS_QUEUED, postgresql_where=IS_QUEUED)
