"""What runs leave behind: events, metrics, logs, checkpoints, results, completions."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Float, ForeignKey, Index, String, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base, Created, PrimaryId, ShortText
from store.models.project import InProject


class Event(Base):
    """One thing that happened to a job or a run; `seq` is gapless per job."""

    __tablename__ = "events"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[UUID | None] = mapped_column(ForeignKey("runs.id"))
    attempt: Mapped[int | None] = mapped_column()
    type: Mapped[ShortText]
    """`job.created`, `job.state`, `run.state`, `run.checkpoint`, `run.message`."""
    level: Mapped[ShortText] = mapped_column(default="info")
    message: Mapped[str]
    data: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[Created]


class Metric(Base):
    """One value of one named number at one step; written again by a resumed attempt, with the same value."""

    __tablename__ = "metrics"
    __table_args__ = {"sqlite_with_rowid": False}

    run_id: Mapped[UUID] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(128), primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    value: Mapped[float | None] = mapped_column(Float)
    """null where the number was not finite."""
    attempt: Mapped[int]


class Rollout(Base):
    """One rollout of a training run that is kept for people to read; written again by a resumed attempt, the same."""

    __tablename__ = "rollouts"
    __table_args__ = {"sqlite_with_rowid": False}

    run_id: Mapped[UUID] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    iteration: Mapped[int] = mapped_column(primary_key=True)
    """From 0."""
    position: Mapped[int] = mapped_column(primary_key=True)
    """Place among the iteration's completions, the group of a prompt side by side."""
    attempt: Mapped[int]
    prompt_id: Mapped[ShortText]
    prompt: Mapped[str]
    reference: Mapped[str]
    num_tokens: Mapped[int]
    """Of the whole completion; as many or fewer are kept."""
    is_truncated: Mapped[bool]
    reward: Mapped[float | None] = mapped_column(Float)
    """null where our side failed to give one."""
    is_correct: Mapped[bool | None]
    """null where nothing says."""
    parts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """What the reward is made of, by name."""
    pieces: Mapped[list[Any]]
    """Text of each token."""
    advantages: Mapped[list[Any]]
    logprobs: Mapped[list[Any]]


class LogChunk(Base):
    """A piece of a run's standard output and error."""

    __tablename__ = "log_chunks"

    run_id: Mapped[UUID] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    chunk: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    created_at: Mapped[Created]


class Checkpoint(InProject, Base):
    """A directory with weights: a resumable state during the run, or the run's published model."""

    __tablename__ = "checkpoints"
    __table_args__ = (UniqueConstraint("run_id", "attempt", "kind", "step"), Index(None, "project_id", "id"))

    id: Mapped[PrimaryId]
    run_id: Mapped[UUID | None] = mapped_column(ForeignKey("runs.id"))
    """null for a model that lies below the models root."""
    model_id: Mapped[UUID | None] = mapped_column(ForeignKey("models.id"), index=True)
    """The registered model whose weights these are; null for what a run trained."""
    attempt: Mapped[int]
    kind: Mapped[ShortText]
    """`state` (resumable) or `model` (weights alone, published at the end)."""
    step: Mapped[int] = mapped_column(BigInteger)
    path: Mapped[str]
    """Relative to the artifact root; where there is no run, to the models root."""
    manifest_sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    is_pinned: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether somebody asked to keep it."""
    expires_at: Mapped[datetime | None] = mapped_column()
    """Deleted after this moment, unless something holds it; null: never by itself."""
    deleted_at: Mapped[datetime | None] = mapped_column()
    """Since when its files are no more; its row stays, for what was measured on it."""
    deleted_reason: Mapped[str] = mapped_column(default="", server_default="")
    """Why, for a person."""
    created_at: Mapped[Created]


class Result(InProject, Base):
    """A metric of one policy on one benchmark for one train seed and one eval seed in one decoding."""

    __tablename__ = "results"
    __table_args__ = (
        UniqueConstraint("run_id", "benchmark", "metric", "decoding", "eval_seed", postgresql_nulls_not_distinct=True),
        # SQLite counts two nulls as different: greedy rows need an index of their own.
        Index(
            "uq_results_greedy",
            "run_id",
            "benchmark",
            "metric",
            "decoding",
            unique=True,
            sqlite_where=text("eval_seed IS NULL"),
            postgresql_where=text("eval_seed IS NULL"),
        ),
        Index(None, "experiment_id", "method"),
        Index(None, "job_id"),
        Index(None, "project_id", "id"),
    )

    id: Mapped[PrimaryId]
    run_id: Mapped[UUID] = mapped_column(ForeignKey("runs.id"))
    """The evaluation run."""
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"))
    experiment_id: Mapped[UUID | None] = mapped_column(ForeignKey("experiments.id"))
    checkpoint_id: Mapped[UUID | None] = mapped_column(ForeignKey("checkpoints.id"))
    """The evaluated checkpoint; null for an imported model."""
    method: Mapped[ShortText]
    benchmark: Mapped[ShortText]
    metric: Mapped[ShortText]
    decoding: Mapped[ShortText]
    train_seed: Mapped[int] = mapped_column(BigInteger)
    eval_seed: Mapped[int | None] = mapped_column(BigInteger)
    """null for greedy decoding."""
    value: Mapped[float | None] = mapped_column(Float)
    """null where nothing could be scored."""
    stderr_over_examples: Mapped[float | None] = mapped_column(Float)
    """Of the value, over examples; null where it is not known."""
    num_examples: Mapped[int]
    num_unscored: Mapped[int] = mapped_column(default=0)
    configuration: Mapped[str] = mapped_column(String(64), default="")
    """Hash of what was measured; its `Configuration` says it. Results of different ones are never merged."""
    created_at: Mapped[Created]


class Configuration(Base):
    """What a benchmark measured: its configuration, version, data and graders, and the decoding."""

    __tablename__ = "configurations"

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    """SHA-256 of the document."""
    document: Mapped[dict[str, Any]]
    created_at: Mapped[Created]


class Completion(Base):
    """One completion of an evaluation, with what was made of it."""

    __tablename__ = "completions"
    __table_args__ = {"sqlite_with_rowid": False}

    run_id: Mapped[UUID] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    """0-based order: benchmark, decoding, eval seed, example, sample."""
    benchmark: Mapped[ShortText]
    example_id: Mapped[ShortText]
    decoding: Mapped[ShortText]
    train_seed: Mapped[int] = mapped_column(BigInteger)
    eval_seed: Mapped[int | None] = mapped_column(BigInteger)
    sample_index: Mapped[int] = mapped_column(default=0)
    """Which of the example's samples, from 0."""
    prompt: Mapped[str]
    completion: Mapped[str]
    reference: Mapped[str]
    extracted: Mapped[str | None]
    verdict: Mapped[ShortText]
    """`correct`, `wrong`, `no_answer`, `timeout`, `error`, `skipped` or `scored`."""
    correct: Mapped[bool | None]
    """null where our side failed, and where there is no right or wrong."""
    value: Mapped[float | None] = mapped_column(Float)
    """The score; null where our side failed: such a completion is counted in `num_unscored`."""
    reason: Mapped[str | None]
    """Why, for a person."""
    truncated: Mapped[bool]
    num_tokens: Mapped[int] = mapped_column(default=0)
    choice_logprobs: Mapped[list[Any] | None]
    """Log-probability of each choice, in the likelihood form."""
    values: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Further numbers of the example."""
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Anything else the scorer kept."""
