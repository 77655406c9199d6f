"""From rows to wire models. The JSON routes and the pages of the dashboard show the same objects, made here.

Lists load what their objects need with one query per kind of row, however many objects there are.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.orm import Session

from api import schemas, service_schemas
from api.spending import budget, spent_of
from store.ids import encode_id
from store.models.base import utc_now
from store.models.job import Experiment, Job
from store.models.record import Checkpoint, Event, LogChunk
from store.models.run import Attempt, Run
from store.models.worker import Worker
from store.quotas import waits
from store.repositories.aliases import Aliases
from store.repositories.jobs import Experiments, Jobs
from store.repositories.metrics import Metrics
from store.repositories.models import Models
from store.repositories.runs import RunDigest, Runs
from store.states import TERMINAL, RunState, job_status

WORKER_SILENCE = timedelta(seconds=30)
"""A worker that was not seen for this long is shown as gone."""


def shown_id(prefix: str, identifier: UUID | None) -> str | None:
    """An id as the wire has it; None of none."""
    return None if identifier is None else encode_id(prefix, identifier)


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else max((end - start).total_seconds(), 0.0)


def _progress(run: Run | RunDigest) -> schemas.Progress:
    return schemas.Progress(
        step=run.progress_step, total=run.progress_total, message=run.progress_message, updated_at=run.progress_at
    )


def run_summary(run: Run | RunDigest, reasons: Mapping[UUID, str]) -> schemas.RunSummary:
    """A run within its job.

    Args:
        reasons: why runs wait that a quota holds back now.
    """
    return schemas.RunSummary(
        id=encode_id("run", run.id),
        seed=run.seed,
        state=run.state,
        desired=run.desired,
        status_reason=reasons.get(run.id, run.status_reason),
        attempt=run.attempt,
        progress=_progress(run),
        started_at=run.started_at,
        finished_at=run.finished_at,
        is_held=run.is_held,
        reused_run_id=shown_id("run", run.reused_run_id),
    )


def runs(session: Session, rows: Sequence[Run]) -> list[schemas.RunRead]:
    """Runs, each with its job's name and what it waits for."""
    jobs = Jobs(session).by_ids({row.job_id for row in rows})
    needs = Runs(session).needs_of([row.id for row in rows])
    reasons = waits(session, rows)
    return [_run(row, jobs[row.job_id], needs.get(row.id, []), reasons) for row in rows]


def run(session: Session, identifier: UUID) -> schemas.RunRead:
    """One run."""
    return runs(session, [Runs(session).get(identifier)])[0]


def _run(row: Run, job: Job, needs: Iterable[UUID], reasons: Mapping[UUID, str]) -> schemas.RunRead:
    has_error = bool(row.error_code or row.error_message)
    return schemas.RunRead(
        **run_summary(row, reasons).model_dump(),
        job_id=encode_id("job", row.job_id),
        experiment_id=shown_id("exp", job.experiment_id),
        job_name=job.name,
        kind=row.kind,
        method=job.method,
        queue=row.queue,
        gpus=row.num_gpus,
        labels=row.labels,
        needs=[encode_id("run", needed) for needed in needs],
        blocked_on=row.blocked_on,
        infra_failures=row.infra_failures,
        worker_id=shown_id("wrk", row.worker_id),
        error=schemas.RunError(code=row.error_code, message=row.error_message) if has_error else None,
        latest_metrics=row.latest_metrics,
        output_attempt=row.output_attempt,
        durations=schemas.Durations(
            queued_seconds=_seconds(row.queued_at, row.started_at),
            running_seconds=_seconds(row.started_at, row.finished_at),
        ),
        version=row.version,
        created_at=row.created_at,
        queued_at=row.queued_at,
        last_heartbeat_at=row.hb_at,
    )


def jobs(session: Session, rows: Sequence[Job], *, is_spent_told: bool = False) -> list[schemas.JobRead]:
    """Jobs, each with its runs.

    Args:
        is_spent_told: also of jobs without a budget.
    """
    runs_of = Runs(session).digests([row.id for row in rows])
    needs_of = Jobs(session).needs([row.id for row in rows])
    told = {row.id: [run.id for run in runs_of.get(row.id, [])] for row in rows if is_spent_told or row.budget}
    spent = spent_of(session, told)
    reasons = waits(session, [run for runs in runs_of.values() for run in runs])
    return [_job(row, runs_of.get(row.id, []), needs_of.get(row.id, []), spent.get(row.id), reasons) for row in rows]


def job(session: Session, identifier: UUID) -> schemas.JobRead:
    """One job."""
    return jobs(session, [Jobs(session).get(identifier)], is_spent_told=True)[0]


def _job(
    row: Job,
    its_runs: Sequence[RunDigest],
    needs: Iterable[UUID],
    spent: schemas.SpentRead | None,
    reasons: Mapping[UUID, str],
) -> schemas.JobRead:
    moments = [run.progress_at for run in its_runs if run.progress_at is not None]
    return schemas.JobRead(
        id=encode_id("job", row.id),
        experiment_id=shown_id("exp", row.experiment_id),
        name=row.name,
        kind=row.kind,
        method=row.method,
        status=row.status,
        seeds=[run.seed for run in its_runs],
        runs=[run_summary(run, reasons) for run in its_runs],
        needs=[encode_id("job", needed) for needed in needs],
        progress=schemas.Progress(
            step=sum(run.progress_step for run in its_runs),
            total=sum(run.progress_total for run in its_runs),
            message="",
            updated_at=max(moments, default=None),
        ),
        metadata=row.details,
        spec=row.spec,
        budget=budget(row.budget),
        spent=spent,
        version=row.version,
        created_at=row.created_at,
    )


def experiments(
    session: Session, rows: Sequence[Experiment], *, is_spent_told: bool = False
) -> list[schemas.ExperimentRead]:
    """Experiments, each with its graph of jobs and their live states.

    Args:
        is_spent_told: also of experiments without a budget.
    """
    jobs_of = Jobs(session).of_experiments([row.id for row in rows])
    job_ids = [job.id for jobs in jobs_of.values() for job in jobs]
    runs_of = Runs(session).digests(job_ids)
    needs_of = Jobs(session).needs(job_ids)
    told = {
        row.id: [run.id for job in jobs_of.get(row.id, []) for run in runs_of.get(job.id, [])]
        for row in rows
        if is_spent_told or row.budget
    }
    spent = spent_of(session, told)
    reasons = waits(session, [run for runs in runs_of.values() for run in runs])
    return [_experiment(row, jobs_of.get(row.id, []), runs_of, needs_of, spent.get(row.id), reasons) for row in rows]


def experiment(session: Session, identifier: UUID) -> schemas.ExperimentRead:
    """One experiment."""
    return experiments(session, [Experiments(session).get(identifier)], is_spent_told=True)[0]


def _experiment(
    row: Experiment,
    its_jobs: Sequence[Job],
    runs_of: dict[UUID, list[RunDigest]],
    needs_of: dict[UUID, list[UUID]],
    spent: schemas.SpentRead | None,
    reasons: Mapping[UUID, str],
) -> schemas.ExperimentRead:
    names = {job.id: job.name for job in its_jobs}
    its_runs = [run for job in its_jobs for run in runs_of.get(job.id, [])]
    states = [run.state for run in its_runs]
    counted = [run.state for run in its_runs if not run.is_passed_over]
    return schemas.ExperimentRead(
        id=encode_id("exp", row.id),
        name=row.name,
        description=row.description,
        status=job_status(counted or states),
        num_runs=len(states),
        num_finished=sum(state in TERMINAL for state in states),
        num_failed=sum(state in {RunState.FAILED, RunState.QUARANTINED} for state in states),
        jobs=[
            schemas.JobNode(
                id=encode_id("job", job.id),
                name=job.name,
                kind=job.kind,
                method=job.method,
                status=job.status,
                needs=[names.get(needed, encode_id("job", needed)) for needed in needs_of.get(job.id, [])],
                runs=[run_summary(run, reasons) for run in runs_of.get(job.id, [])],
            )
            for job in its_jobs
        ],
        num_reused=sum(run.reused_run_id is not None for job in its_jobs for run in runs_of.get(job.id, [])),
        cloned_from=shown_id("exp", row.cloned_from),
        budget=budget(row.budget),
        spent=spent,
        metadata=row.details,
        created_at=row.created_at,
    )


def attempt(row: Attempt) -> schemas.AttemptRead:
    """One try at a run."""
    return schemas.AttemptRead(
        n=row.n,
        worker_id=encode_id("wrk", row.worker_id),
        dispatcher=row.dispatcher,
        host=row.host,
        pid=row.pid,
        gpus=row.gpus,
        outcome=row.outcome,
        exit_code=row.exit_code,
        error_message=row.error_message,
        resumed_from_step=row.resumed_from_step,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )


def event(row: Event) -> schemas.EventRead:
    """One event."""
    return schemas.EventRead(
        seq=row.seq,
        job_id=encode_id("job", row.job_id),
        run_id=shown_id("run", row.run_id),
        attempt=row.attempt,
        type=row.type,
        level=row.level,
        message=row.message,
        data=row.data,
        created_at=row.created_at,
    )


def log_chunk(row: LogChunk) -> schemas.LogChunkRead:
    """A piece of a run's output."""
    return schemas.LogChunkRead(
        cursor=f"{row.attempt}.{row.chunk}",
        attempt=row.attempt,
        chunk=row.chunk,
        text=row.text,
        created_at=row.created_at,
    )


def checkpoints(session: Session, rows: Sequence[Checkpoint]) -> list[schemas.CheckpointRead]:
    """Checkpoints."""
    runs_by_id = Runs(session).by_ids({row.run_id for row in rows if row.run_id is not None})
    names = Aliases(session).of_checkpoints(row.id for row in rows)
    models = Models(session).names(row.model_id for row in rows if row.model_id is not None)
    return [
        schemas.CheckpointRead(
            id=encode_id("ckpt", row.id),
            run_id=shown_id("run", row.run_id),
            job_id=None if row.run_id is None else encode_id("job", runs_by_id[row.run_id].job_id),
            model=None if row.model_id is None else models.get(row.model_id),
            attempt=row.attempt,
            kind=row.kind,
            step=row.step,
            path=row.path,
            manifest_sha256=row.manifest_sha256,
            size_bytes=row.size_bytes,
            is_pinned=row.is_pinned,
            aliases=names.get(row.id, []),
            expires_at=row.expires_at,
            deleted_at=row.deleted_at,
            deleted_reason=row.deleted_reason,
            created_at=row.created_at,
        )
        for row in rows
    ]


def worker(row: Worker) -> service_schemas.WorkerRead:
    """One worker."""
    return service_schemas.WorkerRead(
        id=encode_id("wrk", row.id),
        host=row.host,
        pid=row.pid,
        dispatcher=row.dispatcher,
        queues=row.queues,
        labels=row.labels,
        slots=row.slots,
        gpus=row.gpus,
        is_draining=row.is_draining,
        is_alive=utc_now() - row.last_seen_at < WORKER_SILENCE,
        started_at=row.started_at,
        last_seen_at=row.last_seen_at,
    )


def metrics(
    session: Session, run_id: UUID, keys: Sequence[str] | None = None, from_step: int = 0, max_points: int = 1000
) -> schemas.MetricsRead:
    """Curves of a run."""
    Runs(session).get(run_id)
    curves = Metrics(session).series(run_id, keys, from_step, max_points)
    return schemas.MetricsRead(
        run_id=encode_id("run", run_id),
        series=[
            schemas.MetricSeries(
                key=key,
                points=[
                    schemas.MetricPoint(
                        step=point.step,
                        value=point.mean,
                        min=point.min,
                        max=point.max,
                        num_steps=point.num_steps,
                        num_not_finite=point.num_not_finite,
                    )
                    for point in points
                ],
            )
            for key, points in sorted(curves.items())
        ],
    )


def curves(
    session: Session,
    experiment_id: UUID,
    keys: Sequence[str],
    kind: str | None = None,
    from_step: int = 0,
    max_points: int = 500,
) -> schemas.CurvesRead:
    """Metrics of an experiment's jobs over their seeds."""
    Experiments(session).get(experiment_id)
    jobs = [job for job in Jobs(session).of_experiment(experiment_id) if kind in (None, job.kind)]
    found = Metrics(session).over_seeds([job.id for job in jobs], keys, from_step, max_points)
    return schemas.CurvesRead(
        experiment_id=encode_id("exp", experiment_id),
        curves=[
            schemas.CurveOverSeeds(
                job_id=encode_id("job", job.id),
                job=job.name,
                kind=job.kind,
                method=job.method,
                key=key,
                points=[
                    schemas.CurvePoint(
                        step=point.step,
                        mean=point.spread.mean,
                        std=point.spread.std,
                        n=point.spread.n,
                        missing_seeds=point.missing_seeds,
                    )
                    for point in points
                ],
            )
            for key in dict.fromkeys(keys)
            for job in jobs
            if (points := found.get(job.id, {}).get(key))
        ],
    )
