"""First tables: experiments, jobs, runs and attempts, what runs leave behind, workers, and who may call."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "20261123"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    "api_keys",
    "experiments",
    "idempotency_keys",
    "workers",
    "jobs",
    "sessions",
    "runs",
    "attempts",
    "checkpoints",
    "completions",
    "events",
    "log_chunks",
    "metrics",
    "run_dependencies",
    "results",
)
"""In the order of creation."""

IS_TERMINAL_STATE_LEFT = "OLD.state IN ('succeeded', 'failed', 'cancelled', 'quarantined') AND NEW.state <> OLD.state"
REFUSAL = "a run that has ended never changes its state"


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    """Creates the tables and the trigger that makes terminal states final."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("scope", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
    )

    op.create_table(
        "experiments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_experiments"),
    )

    op.create_table(
        "idempotency_keys",
        sa.Column("api_key_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("request_sha256", sa.String(length=64), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("api_key_id", "key", name="pk_idempotency_keys"),
    )

    op.create_table(
        "workers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("host", sa.String(length=128), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("dispatcher", sa.String(length=128), nullable=False),
        sa.Column("queues", sa.JSON(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("gpus", sa.JSON(), nullable=False),
        sa.Column("is_draining", sa.Boolean(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )

    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("experiment_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=128), nullable=False),
        sa.Column("method", sa.String(length=128), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(length=128), nullable=False),
        sa.Column("event_seq", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["experiment_id"], ["experiments.id"], name="fk_jobs_experiment_id_experiments"),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.UniqueConstraint("experiment_id", "name", name="uq_jobs_experiment_id_name"),
    )
    op.create_index("ix_jobs_experiment_id_id", "jobs", ["experiment_id", "id"])
    op.create_index("ix_jobs_status_id", "jobs", ["status", "id"])

    op.create_table(
        "sessions",
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("api_key_id", sa.Uuid(), nullable=False),
        sa.Column("is_link", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["api_key_id"], ["api_keys.id"], name="fk_sessions_api_key_id_api_keys"),
        sa.PrimaryKeyConstraint("token_sha256", name="pk_sessions"),
    )

    op.create_table(
        "runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=128), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("queue", sa.String(length=128), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("num_gpus", sa.Integer(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=128), nullable=False),
        sa.Column("desired", sa.String(length=128), nullable=False),
        sa.Column("status_reason", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("infra_failures", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.Uuid(), nullable=True),
        sa.Column("hb_seq", sa.BigInteger(), nullable=False),
        sa.Column("hb_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("progress_step", sa.Integer(), nullable=False),
        sa.Column("progress_total", sa.Integer(), nullable=False),
        sa.Column("progress_message", sa.String(), nullable=False),
        sa.Column("progress_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("available_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("hint_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("blocked_on", sa.Integer(), nullable=False),
        sa.Column("latest_metrics", sa.JSON(), nullable=False),
        sa.Column("error_code", sa.String(), nullable=False),
        sa.Column("error_message", sa.String(), nullable=False),
        sa.Column("output_attempt", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("desired IN ('run', 'pause', 'cancel')", name="ck_runs_desired"),
        sa.CheckConstraint(
            "state IN ('blocked', 'queued', 'leased', 'running', 'stopping', 'retry_wait', 'paused', 'succeeded', "
            "'failed', 'cancelled', 'quarantined')",
            name="ck_runs_state",
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_runs_job_id_jobs"),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.UniqueConstraint("job_id", "seed", name="uq_runs_job_id_seed"),
    )
    op.create_index(
        "ix_runs_claim",
        "runs",
        ["queue", sa.text("priority DESC"), "available_at", "id"],
        **_where("state = 'queued'"),
    )
    op.create_index("ix_runs_live", "runs", ["worker_id"], **_where("state IN ('leased', 'running', 'stopping')"))
    op.create_index("ix_runs_wait", "runs", ["available_at"], **_where("state = 'retry_wait'"))

    op.create_table(
        "attempts",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.Uuid(), nullable=False),
        sa.Column("dispatcher", sa.String(length=128), nullable=False),
        sa.Column("host", sa.String(length=128), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column("gpus", sa.JSON(), nullable=False),
        sa.Column("outcome", sa.String(length=128), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("error_message", sa.String(), nullable=False),
        sa.Column("resumed_from_step", sa.Integer(), nullable=True),
        sa.Column("last_step", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_attempts_run_id_runs"),
        sa.PrimaryKeyConstraint("run_id", "n", name="pk_attempts"),
    )
    op.create_index("uq_attempts_open", "attempts", ["run_id"], unique=True, **_where("ended_at IS NULL"))

    op.create_table(
        "checkpoints",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=128), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("manifest_sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_checkpoints_run_id_runs"),
        sa.PrimaryKeyConstraint("id", name="pk_checkpoints"),
        sa.UniqueConstraint("run_id", "attempt", "kind", "step", name="uq_checkpoints_run_id_attempt_kind_step"),
    )

    op.create_table(
        "completions",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("benchmark", sa.String(length=128), nullable=False),
        sa.Column("example_id", sa.String(length=128), nullable=False),
        sa.Column("decoding", sa.String(length=128), nullable=False),
        sa.Column("train_seed", sa.BigInteger(), nullable=False),
        sa.Column("eval_seed", sa.BigInteger(), nullable=True),
        sa.Column("prompt", sa.String(), nullable=False),
        sa.Column("completion", sa.String(), nullable=False),
        sa.Column("reference", sa.String(), nullable=False),
        sa.Column("extracted", sa.String(), nullable=True),
        sa.Column("verdict", sa.String(length=128), nullable=False),
        sa.Column("correct", sa.Boolean(), nullable=True),
        sa.Column("truncated", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_completions_run_id_runs"),
        sa.PrimaryKeyConstraint("run_id", "position", name="pk_completions"),
        sqlite_with_rowid=False,
    )

    op.create_table(
        "events",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("type", sa.String(length=128), nullable=False),
        sa.Column("level", sa.String(length=128), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_events_job_id_jobs"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_events_run_id_runs"),
        sa.PrimaryKeyConstraint("job_id", "seq", name="pk_events"),
    )

    op.create_table(
        "log_chunks",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("chunk", sa.Integer(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_log_chunks_run_id_runs"),
        sa.PrimaryKeyConstraint("run_id", "attempt", "chunk", name="pk_log_chunks"),
    )

    op.create_table(
        "metrics",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_metrics_run_id_runs"),
        sa.PrimaryKeyConstraint("run_id", "key", "step", name="pk_metrics"),
        sqlite_with_rowid=False,
    )

    op.create_table(
        "run_dependencies",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("needs_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["needs_id"], ["runs.id"], name="fk_run_dependencies_needs_id_runs"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_run_dependencies_run_id_runs"),
        sa.PrimaryKeyConstraint("run_id", "needs_id", name="pk_run_dependencies"),
    )
    op.create_index("ix_run_dependencies_needs_id", "run_dependencies", ["needs_id"])

    op.create_table(
        "results",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("experiment_id", sa.Uuid(), nullable=True),
        sa.Column("checkpoint_id", sa.Uuid(), nullable=True),
        sa.Column("method", sa.String(length=128), nullable=False),
        sa.Column("benchmark", sa.String(length=128), nullable=False),
        sa.Column("metric", sa.String(length=128), nullable=False),
        sa.Column("decoding", sa.String(length=128), nullable=False),
        sa.Column("train_seed", sa.BigInteger(), nullable=False),
        sa.Column("eval_seed", sa.BigInteger(), nullable=True),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("num_examples", sa.Integer(), nullable=False),
        sa.Column("num_unscored", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["checkpoint_id"], ["checkpoints.id"], name="fk_results_checkpoint_id_checkpoints"),
        sa.ForeignKeyConstraint(["experiment_id"], ["experiments.id"], name="fk_results_experiment_id_experiments"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_results_job_id_jobs"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_results_run_id_runs"),
        sa.PrimaryKeyConstraint("id", name="pk_results"),
        sa.UniqueConstraint(
            "run_id",
            "benchmark",
            "metric",
            "decoding",
            "eval_seed",
            name="uq_results_run_id_benchmark_metric_decoding_eval_seed",
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.create_index("ix_results_experiment_id_method", "results", ["experiment_id", "method"])
    op.create_index("ix_results_job_id", "results", ["job_id"])
    op.create_index(
        "uq_results_greedy",
        "results",
        ["run_id", "benchmark", "metric", "decoding"],
        unique=True,
        **_where("eval_seed IS NULL"),
    )

    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION refuse_to_leave_terminal_state() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = 'integrity_constraint_violation'; END $$"
        )
        op.execute(
            "CREATE TRIGGER runs_terminal_state_is_final BEFORE UPDATE OF state ON runs FOR EACH ROW "
            f"WHEN ({IS_TERMINAL_STATE_LEFT}) EXECUTE FUNCTION refuse_to_leave_terminal_state()"
        )
    else:
        op.execute(
            "CREATE TRIGGER runs_terminal_state_is_final BEFORE UPDATE OF state ON runs FOR EACH ROW "
            f"WHEN {IS_TERMINAL_STATE_LEFT} BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
        )


def downgrade() -> None:
    """Drops everything."""
    for table in reversed(TABLES):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION refuse_to_leave_terminal_state()")
