"""Budgets of jobs and experiments; runs that end or wait at a step; the trials of a search."""

import sqlalchemy as sa
from alembic import op

revision = "20261127_search"
down_revision = "20261127_alerts"
branch_labels = None
depends_on = None

_RUNS = {
    "stop_reason": "VARCHAR DEFAULT '' NOT NULL",
    "pause_at_step": "INTEGER",
    "is_held": "BOOLEAN DEFAULT false NOT NULL",
    "is_passed_over": "BOOLEAN DEFAULT false NOT NULL",
}


def upgrade() -> None:
    """Adds the columns and the table; what there is has no budget and is no trial."""
    for table in ("jobs", "experiments"):
        op.execute(f"ALTER TABLE {table} ADD COLUMN budget JSON")
    for name, kind in _RUNS.items():  # in words of their own: a copy of `runs` would lose its trigger on SQLite
        op.execute(f"ALTER TABLE runs ADD COLUMN {name} {kind}")
    op.create_table(
        "search_trials",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("experiment_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("arm", sa.String(length=128), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("steps", sa.JSON(), nullable=False),
        sa.Column("rung", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("values", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_search_trials_job_id_jobs"),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["experiments.id"], name="fk_search_trials_experiment_id_experiments"
        ),
        sa.PrimaryKeyConstraint("job_id", name="pk_search_trials"),
    )
    op.create_index("ix_search_trials_experiment_id_position", "search_trials", ["experiment_id", "position"])
    op.create_index(
        "ix_search_trials_running",
        "search_trials",
        ["experiment_id"],
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )


def downgrade() -> None:
    """Removes them."""
    op.drop_table("search_trials")
    for name in _RUNS:
        op.execute(f"ALTER TABLE runs DROP COLUMN {name}")
    for table in ("jobs", "experiments"):
        op.execute(f"ALTER TABLE {table} DROP COLUMN budget")
