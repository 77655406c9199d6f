"""Suites with their versions, the evaluations that they asked for, and verdicts."""

import sqlalchemy as sa
from alembic import op

revision = "20261127_suites"
down_revision = "20261127_registry"
branch_labels = None
depends_on = None

_OPEN = sa.text("state IN ('pending', 'running')")
_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Adds the four tables."""
    op.create_table(
        "suites",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("triggers", sa.JSON(), nullable=False),
        sa.Column("watched_from", _MOMENT, nullable=False),
        sa.Column("scanned_to", _MOMENT, nullable=False),
        sa.Column("archived_at", _MOMENT, nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_suites_project_id_projects"),
        sa.PrimaryKeyConstraint("id", name="pk_suites"),
        sa.UniqueConstraint("project_id", "name", name="uq_suites_project_id_name"),
    )
    op.create_index("ix_suites_project_id_id", "suites", ["project_id", "id"])
    op.create_table(
        "suite_versions",
        sa.Column("suite_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("plan", sa.JSON(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["suite_id"], ["suites.id"], name="fk_suite_versions_suite_id_suites"),
        sa.PrimaryKeyConstraint("suite_id", "version", name="pk_suite_versions"),
    )
    op.create_table(
        "suite_evaluations",
        sa.Column("suite_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("checkpoint_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["suite_id", "version"],
            ["suite_versions.suite_id", "suite_versions.version"],
            name="fk_suite_evaluations_suite_id_version_suite_versions",
        ),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"], ["checkpoints.id"], name="fk_suite_evaluations_checkpoint_id_checkpoints"
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_suite_evaluations_job_id_jobs"),
        sa.PrimaryKeyConstraint("suite_id", "version", "checkpoint_id", name="pk_suite_evaluations"),
    )
    op.create_table(
        "verdicts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("suite_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("checkpoint_id", sa.Uuid(), nullable=False),
        sa.Column("baseline_id", sa.Uuid(), nullable=True),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("state", sa.String(length=128), nullable=False),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.Column("level", sa.Float(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("baseline_job_id", sa.Uuid(), nullable=True),
        sa.Column("promoted_alias", sa.String(), nullable=False),
        sa.Column("promotion_note", sa.String(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("decided_at", _MOMENT, nullable=True),
        sa.CheckConstraint("state IN ('pending', 'running', 'decided', 'error')", name="ck_verdicts_state"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_verdicts_project_id_projects"),
        sa.ForeignKeyConstraint(["suite_id"], ["suites.id"], name="fk_verdicts_suite_id_suites"),
        sa.ForeignKeyConstraint(
            ["suite_id", "version"],
            ["suite_versions.suite_id", "suite_versions.version"],
            name="fk_verdicts_suite_id_version_suite_versions",
        ),
        sa.ForeignKeyConstraint(["checkpoint_id"], ["checkpoints.id"], name="fk_verdicts_checkpoint_id_checkpoints"),
        sa.ForeignKeyConstraint(["baseline_id"], ["checkpoints.id"], name="fk_verdicts_baseline_id_checkpoints"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_verdicts_job_id_jobs"),
        sa.ForeignKeyConstraint(["baseline_job_id"], ["jobs.id"], name="fk_verdicts_baseline_job_id_jobs"),
        sa.PrimaryKeyConstraint("id", name="pk_verdicts"),
        sa.UniqueConstraint("suite_id", "version", "checkpoint_id", name="uq_verdicts_suite_id_version_checkpoint_id"),
    )
    op.create_index("ix_verdicts_project_id_id", "verdicts", ["project_id", "id"])
    op.create_index("ix_verdicts_suite_id_id", "verdicts", ["suite_id", "id"])
    op.create_index("ix_verdicts_checkpoint_id", "verdicts", ["checkpoint_id"])
    op.create_index("ix_verdicts_open", "verdicts", ["id"], sqlite_where=_OPEN, postgresql_where=_OPEN)


def downgrade() -> None:
    """Removes them."""
    for table in ("verdicts", "suite_evaluations", "suite_versions", "suites"):
        op.drop_table(table)
