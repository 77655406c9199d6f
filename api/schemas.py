"""What the wire shows: one model per object. The dashboard renders the same models, the client returns them."""

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from api import enums

T = TypeVar("T")


class Wire(BaseModel):
    """Base of what the API sends; a client of an older version ignores fields it does not know."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="ignore", ser_json_inf_nan="null")


class Page(Wire, Generic[T]):
    """One page of a list."""

    object: Literal["list"] = "list"
    data: list[T]
    """The objects, in the order asked for."""
    has_more: bool
    """Whether another page follows in the direction of the cursor."""
    first_id: str | None
    """Cursor of the first object; null on an empty page."""
    last_id: str | None
    """Cursor of the last object: the next page's `after`."""


class Progress(Wire):
    """How far a run is."""

    step: int
    """Finished steps."""
    total: int
    """Steps in all; 0 while unknown."""
    message: str
    """What the run is doing."""
    updated_at: datetime | None
    """When the run last told."""


class RunError(Wire):
    """Why a run failed."""

    code: str
    """Short name, for a program."""
    message: str
    """The same for a person."""


class Durations(Wire):
    """Where the time of a finished run went; null where a moment has not come."""

    queued_seconds: float | None
    """From ready to start."""
    running_seconds: float | None
    """From the first start to the end, all attempts and the waiting between them."""


class RunSummary(Wire):
    """A run within its job."""

    id: str
    seed: int
    """Train seed."""
    state: enums.State
    desired: enums.Wish
    """What was asked for."""
    status_reason: str
    """Why the run is in its state."""
    attempt: int
    """Tries so far."""
    progress: Progress
    started_at: datetime | None
    finished_at: datetime | None
    is_held: bool = False
    """Paused by itself at the end of a rung of its search, which decides whether it goes on."""
    reused_run_id: str | None = None
    """The run whose output this one took over instead of running: completions, metrics and logs are there."""


class RunRead(RunSummary):
    """One seed of a job: the unit of dispatch, of progress and of retry."""

    object: Literal["run"] = "run"
    job_id: str
    experiment_id: str | None
    job_name: str
    kind: enums.JobKind
    method: str
    """The name under which its results are tabled."""
    queue: str
    """The queue whose workers may take it."""
    gpus: int
    """GPUs it needs."""
    labels: list[str]
    """Labels that its worker must offer."""
    needs: list[str]
    """Runs it waits for: the same seed of the jobs it depends on."""
    blocked_on: int
    """How many of them are unfinished."""
    infra_failures: int
    """Attempts that infrastructure ended."""
    worker_id: str | None
    """The worker that holds it."""
    error: RunError | None
    latest_metrics: dict[str, Any]
    """Newest value of every metric."""
    output_attempt: int
    """The attempt whose files are published; 0 while none is. Of the reused run, where there is one."""
    durations: Durations
    version: int
    """Grows with every change of state."""
    created_at: datetime
    queued_at: datetime | None
    last_heartbeat_at: datetime | None


class AttemptRead(Wire):
    """One try at a run."""

    object: Literal["attempt"] = "attempt"
    n: int
    """1 for the first."""
    worker_id: str
    dispatcher: enums.Dispatcher
    """What woke the worker."""
    host: str
    pid: int | None
    gpus: list[int]
    """Indices of the GPUs it had."""
    outcome: enums.AttemptOutcome | None
    """null while it runs."""
    exit_code: int | None
    """Negative for a signal."""
    error_message: str
    resumed_from_step: int | None
    """Step of the checkpoint it began from; null from the start."""
    started_at: datetime
    ended_at: datetime | None


class BudgetRead(Wire):
    """What may be spent; null for no limit."""

    wall_seconds: float | None = None
    """Seconds that attempts may run, added up."""
    tokens: int | None = None
    """Tokens generated plus tokens trained on."""
    judge_usd: float | None = None
    """What judges may cost, in the currency of their `prices`."""


class SpentRead(Wire):
    """What was spent so far."""

    wall_seconds: float
    """Of attempts, open ones until now; waiting is not counted."""
    tokens: float
    """Generated plus trained on, as metrics and completions tell them."""
    judge_usd: float
    """As results tell it: an evaluation that still runs is not in it."""


class JobRead(Wire):
    """What was submitted: one spec over a list of seeds."""

    object: Literal["job"] = "job"
    id: str
    experiment_id: str | None
    name: str
    kind: enums.JobKind
    method: str
    """The name under which its results are tabled."""
    status: enums.Status
    """Follows from the runs."""
    seeds: list[int]
    """Train seeds: one run each."""
    runs: list[RunSummary]
    """The runs, by seed."""
    needs: list[str]
    """Jobs it depends on."""
    progress: Progress
    """Steps over all runs."""
    metadata: dict[str, str]
    spec: dict[str, Any]
    """The spec as submitted, with every default."""
    budget: BudgetRead | None = None
    """What each of its runs may spend."""
    spent: SpentRead | None = None
    """By all its runs; in lists only of a job with a budget."""
    version: int
    created_at: datetime


class JobNode(Wire):
    """A job in its experiment's graph."""

    id: str
    name: str
    kind: enums.JobKind
    method: str
    status: enums.Status
    needs: list[str]
    """Names of the jobs it depends on."""
    runs: list[RunSummary]


class ExperimentRead(Wire):
    """Several jobs and their dependencies, with live states."""

    object: Literal["experiment"] = "experiment"
    id: str
    name: str
    description: str
    status: enums.Status
    """Follows from the jobs: running while any is unfinished."""
    num_runs: int
    num_finished: int
    """Runs in a final state."""
    num_failed: int
    """Runs that failed or were quarantined."""
    jobs: list[JobNode]
    """The graph: jobs in an order in which each stands after those it needs."""
    num_reused: int = 0
    """Runs that took over the output of an earlier one."""
    cloned_from: str | None = None
    """The experiment that this one is a changed copy of."""
    budget: BudgetRead | None = None
    """What all its runs together may spend."""
    spent: SpentRead | None = None
    """By all its runs; in lists only of an experiment with a budget."""
    metadata: dict[str, str]
    created_at: datetime


class EventRead(Wire):
    """Something that happened to a job or one of its runs."""

    object: Literal["event"] = "event"
    seq: int
    """Gapless within the job: the cursor, and the id in a stream."""
    job_id: str
    run_id: str | None
    attempt: int | None
    type: str
    """job.created, run.state, run.checkpoint or run.message."""
    level: enums.Level
    message: str
    data: dict[str, Any]
    created_at: datetime


class MetricPoint(Wire):
    """One step of a series, or several neighbouring ones where fewer points were asked for."""

    step: int
    """The last step behind the point."""
    value: float | None
    """The mean of the finite values; null where there is none."""
    min: float | None
    max: float | None
    num_steps: int
    """Steps behind the point."""
    num_not_finite: int
    """How many of them had no finite value."""


class MetricSeries(Wire):
    """One metric of one run."""

    key: str
    points: list[MetricPoint]


class MetricsRead(Wire):
    """Metrics of one run."""

    object: Literal["metrics"] = "metrics"
    run_id: str
    series: list[MetricSeries]
    """By key."""


class CurvePoint(Wire):
    """A metric over the seeds of a job at one step, or at several neighbouring ones where fewer were asked for."""

    step: int
    """The last step behind the point."""
    mean: float | None
    """Over the seeds with a finite value; null where there is none."""
    std: float | None
    """Over the same seeds, ddof = 1; null below two."""
    n: int
    """Seeds with a finite value."""
    missing_seeds: list[int]
    """Those without one, or not there yet."""


class CurveOverSeeds(Wire):
    """One metric of one job."""

    job_id: str
    job: str
    """Its name."""
    kind: enums.JobKind
    method: str
    key: str
    points: list[CurvePoint]


class CurvesRead(Wire):
    """Metrics of an experiment's jobs by step, over their seeds."""

    object: Literal["curves"] = "curves"
    experiment_id: str
    curves: list[CurveOverSeeds]
    """By key, then in the order of the jobs; without those that have no value yet."""


class LogChunkRead(Wire):
    """A piece of a run's output."""

    object: Literal["log_chunk"] = "log_chunk"
    cursor: str
    """`ATTEMPT.CHUNK`: sorts within the run."""
    attempt: int
    chunk: int
    text: str
    """Untrusted text: show it as text."""
    created_at: datetime


class CheckpointRead(Wire):
    """A directory with weights."""

    object: Literal["checkpoint"] = "checkpoint"
    id: str
    run_id: str | None
    """null for a model that lies below the models root."""
    job_id: str | None
    model: str | None = None
    """Name of the registered model whose weights these are; jobs take it as `model:NAME`."""
    attempt: int
    kind: enums.CheckpointKind
    """`state` (resumable) or `model` (published at the end)."""
    step: int
    path: str
    """Relative to the artifact root; where there is no run, to the models root."""
    manifest_sha256: str
    size_bytes: int
    is_pinned: bool = False
    """Whether somebody asked to keep it."""
    aliases: list[str] = []
    """Names that mean this checkpoint now."""
    expires_at: datetime | None = None
    """Deleted after this moment, unless something holds it; null: never by itself."""
    deleted_at: datetime | None = None
    """Since when its files are no more; in lists of what was deleted."""
    deleted_reason: str = ""
    created_at: datetime
