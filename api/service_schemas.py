"""What the wire shows of the service itself: benchmarks, API keys, login links."""

from datetime import datetime
from typing import Any, Literal

from api import enums
from api.result_schemas import Unit
from api.schemas import Wire


class BenchmarkRead(Wire):
    """A benchmark that an evaluation may name."""

    object: Literal["benchmark"] = "benchmark"
    id: str
    """Its name."""
    description: str
    """Source and metric."""
    version: int
    """Grows when anything changes a number."""
    metrics: list[str]
    """What it measures, the headline first."""
    config_schema: dict[str, Any]
    """JSON Schema of its entry in `config.benchmarks`."""


class AliasRead(Wire):
    """A name for a checkpoint."""

    object: Literal["alias"] = "alias"
    name: str
    source: str
    """What jobs name it by: `alias:NAME`."""
    checkpoint_id: str
    updated_at: datetime
    """When the name came to mean this checkpoint."""


class DatasetRead(Wire):
    """One version of a data set; it never changes."""

    object: Literal["dataset"] = "dataset"
    id: str
    name: str
    version: int
    """1, 2, ... for each name."""
    source: str
    """What jobs name it by: `dataset:NAME@VERSION`."""
    format: str
    """What was uploaded: `jsonl`, `csv` or `parquet`."""
    sha256: str
    """Of the rows as they are kept: JSON Lines."""
    num_rows: int
    size_bytes: int
    """Of the rows as they are kept."""
    columns: list[str]
    """Names of the fields, in the order in which rows first have them."""
    origin: dict[str, Any]
    """Where the rows come from: `{"kind": "upload", "from": TEXT}`, `{"kind": "split", "dataset": ..., "part": ...}` or
    `{"kind": "run", "run": ..., "output": ...}`."""
    created_at: datetime


class DatasetRow(Wire):
    """One row of a data set."""

    object: Literal["dataset.row"] = "dataset.row"
    number: int
    """From 1."""
    fields: dict[str, Any]


class DiffRead(Wire):
    """A place where two documents differ."""

    object: Literal["difference"] = "difference"
    pointer: str
    """JSON Pointer; jobs are named by their name, not by their position."""
    before: Any = None
    """null where there was nothing."""
    after: Any = None
    """null where there is nothing."""


class IntervalRead(Wire):
    """A confidence interval."""

    low: float
    high: float


class OverExamplesRead(Wire):
    """The same problems, each one's share of correct completions compared."""

    num_examples: int
    num_wins: int
    num_losses: int
    num_ties: int
    mcnemar_p: float | None
    """Exact, two-sided; null where nothing changed."""


class ComparisonRead(Wire):
    """One method less the baseline, in one metric of one benchmark and decoding."""

    object: Literal["comparison"] = "comparison"
    method: str
    baseline: str
    benchmark: str
    metric: str
    decoding: str
    configuration: str
    """Hash of what both measured."""
    unit: Unit
    """Of the differences, their mean, spread and intervals."""
    seeds: list[int]
    """Train seeds that both have a value for."""
    differences: list[float]
    """By these seeds."""
    mean: float | None
    """Of the differences."""
    std: float | None
    """Of the differences, ddof = 1."""
    interval: IntervalRead | None
    """95 % interval of the mean by Student's t."""
    bootstrap: IntervalRead | None
    """95 % percentile bootstrap interval; too narrow with few seeds."""
    t_p: float | None
    """Two-sided paired t-test."""
    sign_flip_p: float | None
    """Two-sided paired permutation test; at least 2 / 2^seeds."""
    adjusted_p: float | None
    """`t_p` after Holm's correction over everything the request returns."""
    examples: OverExamplesRead | None
    """Over examples; null where the metric is not Pass@1."""


class OutputRead(Wire):
    """A file that a run published."""

    object: Literal["output"] = "output"
    name: str
    """`completions`, `pairs`, `results`, `score`, `rows`, ..."""
    size_bytes: int
    media_type: str
    url: str
    """Where it is downloaded."""


class ScoredRun(Wire):
    """One run of a score job."""

    id: str
    seed: int
    state: enums.State
    error: str | None
    """Why it failed."""
    figures: dict[str, Any] | None
    """The figures; null before it succeeded."""
    rows_url: str | None
    """Where the graded rows are downloaded, JSON Lines."""


class ScoreRead(Wire):
    """Outputs that existed already, graded."""

    object: Literal["score"] = "score"
    id: str
    """Of the job that grades."""
    name: str
    scoring: str
    """`math`, `alpaca-eval`, `qa-feedback`, `mmlu` or `completions`."""
    status: enums.Status
    """Of the job."""
    figures: dict[str, Any] | None
    """Those of its only run; null before that succeeded, and where there are several."""
    runs: list[ScoredRun]
    created_at: datetime


class ApiKeyRead(Wire):
    """An API key, without its secret."""

    object: Literal["api_key"] = "api_key"
    id: str
    project_id: str
    """The project whose objects it reaches."""
    name: str
    scope: enums.KeyScope
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class ApiKeyCreated(ApiKeyRead):
    """A new API key."""

    key: str
    """The key itself: shown this once; empty in a replayed reply."""


class LoginLink(Wire):
    """A link that opens one browser session, once."""

    object: Literal["login_link"] = "login_link"
    path: str
    """Path and query on this server; empty in a replayed reply."""
    expires_in_seconds: int


class WorkerRead(Wire):
    """A supervisor process and what it offers."""

    object: Literal["worker"] = "worker"
    id: str
    host: str
    pid: int
    dispatcher: enums.Dispatcher
    queues: list[str]
    labels: list[str]
    slots: int
    gpus: list[int]
    is_draining: bool
    """It finishes what it has and takes nothing."""
    is_alive: bool
    """It was seen lately."""
    started_at: datetime
    last_seen_at: datetime
