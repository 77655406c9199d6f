"""Submission: a spec becomes a job, its runs, their dependencies and the first event, in the caller's transaction."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from store import tracing
from store.artifacts import (
    data_file,
    model_directory,
    refuse_deleted,
    refuse_deleted_output,
    resolve_reference,
)
from store.budgets import priced_endpoints
from store.database import database_time
from store.disk import refuse_when_full
from store.effects import Happening, announce_experiment, settle, state_event
from store.endpoints import check_endpoints
from store.errors import Invalid, NotFound
from store.ids import decode_id, encode_id, new_id
from store.models.job import Experiment, Job
from store.models.record import Checkpoint
from store.models.run import Run, RunDependency
from store.naming import check_data, settled
from store.quotas import admit, admit_spending
from store.reuse import content_hash, copy_results, finished_run
from store.reward_trials import check_functions
from store.search import begin
from store.settings import Settings
from store.sources import GIVES, document_of, serving_run, source_job_id
from store.specs import ExperimentSpec, JobSpec, Reference, in_order, method_of, references
from store.states import TERMINAL, RunState
from store.tombstones import absent

TRACEPARENT = "lco_traceparent"
"""Name under which a session knows the trace context of its request."""
_MAX_SEED = 2**63 - 1


def submit_job(session: Session, spec: JobSpec, settings: Settings, *, reuse: bool = False) -> Job:
    """A job of its own; inputs that are jobs make each run wait for the run of its seed.

    Args:
        reuse: take over the outputs of runs that did the same already.

    Raises:
        Invalid: an input does not exist, cannot be what the stage needs, or did not succeed.
        Conflict: the project is archived, or a quota of it is used up.
        Full: the disk is.
    """
    refuse_when_full(settings)
    if spec.after:
        raise Invalid("/after", "only a job of an experiment can name others of it")
    admit(session)
    return _submit(session, spec, settings, experiment_id=None, siblings={}, pointer="", is_reused=reuse)


def submit_experiment(
    session: Session,
    spec: ExperimentSpec,
    settings: Settings,
    *,
    document: dict[str, Any] | None = None,
    cloned_from: UUID | None = None,
) -> Experiment:
    """An experiment with all its jobs.

    Args:
        document: what was submitted, where that is more than the spec: a matrix.
        cloned_from: the experiment that this one is a changed copy of.

    Raises:
        Invalid, Conflict: as for `submit_job`, or a search cannot compare its jobs.
    """
    admit(session)
    refuse_when_full(settings)
    if document is None:
        document = spec.model_dump(mode="json", exclude={"jobs": {"__all__": {"config": {"seed"}}}})
    experiment = Experiment(
        name=spec.name,
        description=spec.description,
        document=document,
        details=dict(spec.metadata),
        budget=None if spec.budget is None else spec.budget.model_dump(mode="json"),
        cloned_from=cloned_from,
        created_at=database_time(session),
    )
    session.add(experiment)
    session.flush()
    positions = {job.name: position for position, job in enumerate(spec.jobs)}
    siblings: dict[str, Job] = {}
    for job in in_order(spec.jobs):
        pointer = f"/jobs/{positions[job.name]}"
        siblings[job.name] = _submit(
            session,
            job,
            settings,
            experiment_id=experiment.id,
            siblings=siblings,
            pointer=pointer,
            is_reused=spec.reuse,
        )
    begin(session, experiment, spec, siblings)
    announce_experiment(session, experiment.id)
    return experiment


def _submit(
    session: Session,
    spec: JobSpec,
    settings: Settings,
    *,
    experiment_id: UUID | None,
    siblings: Mapping[str, Job],
    pointer: str,
    is_reused: bool = False,
) -> Job:
    with tracing.span("lco.submission", job=spec.name, kind=spec.kind, seeds=len(spec.seeds)):
        return _submit_traced(session, spec, settings, experiment_id, siblings, pointer, is_reused)


def _submit_traced(
    session: Session,
    spec: JobSpec,
    settings: Settings,
    experiment_id: UUID | None,
    siblings: Mapping[str, Job],
    pointer: str,
    is_reused: bool,
) -> Job:
    traceparent = tracing.current_traceparent() or session.info.get(TRACEPARENT)
    for position, seed in enumerate(spec.seeds):
        if seed > _MAX_SEED:
            raise Invalid(f"{pointer}/seeds/{position}", f"seeds end at {_MAX_SEED}")
    method = method_of(spec)
    spec = settled(session, spec, pointer)
    check_endpoints(settings, spec.config, f"{pointer}/config")
    if spec.budget is not None and spec.budget.judge_usd is not None and not priced_endpoints(spec.config):
        raise Invalid(f"{pointer}/budget/judge_usd", "no endpoint of the job has `prices`: what it costs is not known")
    check_functions(settings, spec.config, f"{pointer}/config")
    needed_jobs = dict.fromkeys(siblings[name].id for name in spec.after)
    for reference in references(spec.config):
        here = f"{pointer}/config/" + "/".join(reference.pointer)
        if reference.scheme == "job-name" and experiment_id is None:
            raise Invalid(
                here, f"{reference.value!r}: `job:` names a job of the same experiment; write an id without it"
            )
        needed = _checked_input(session, settings, reference, experiment_id, here)
        if needed is not None:
            needed_jobs[needed] = None
            _check_seeds(session, needed, spec.seeds, reference, here)
    moment = database_time(session)
    job = Job(
        id=new_id(),
        experiment_id=experiment_id,
        name=spec.name,
        kind=spec.kind,
        method=method,
        spec=document_of(spec),
        details=dict(spec.metadata),
        budget=None if spec.budget is None else spec.budget.model_dump(mode="json"),
        created_at=moment,
    )
    session.add(job)
    session.flush()
    runs = []
    edges = []
    happenings: list[Happening] = []
    reused: dict[UUID, UUID] = {}
    for seed in spec.seeds:
        run_id = new_id()
        content = content_hash(session, settings, spec, seed, experiment_id)
        twin = finished_run(session, settings, content) if is_reused else None
        needs = _needed_runs(session, list(needed_jobs), seed, f"{pointer}/seeds")
        unfinished = sum(not is_finished for is_finished in needs.values())
        edges += [{"run_id": run_id, "needs_id": needs_id} for needs_id in needs]
        runs.append(
            {
                "id": run_id,
                "project_id": job.project_id,
                "job_id": job.id,
                "kind": spec.kind,
                "seed": seed,
                "queue": "lco.gpu" if spec.resources.gpus else "lco.cpu",
                "priority": spec.priority,
                "num_gpus": spec.resources.gpus,
                "labels": list(spec.resources.labels),
                "state": RunState.BLOCKED if unfinished else RunState.QUEUED,
                "status_reason": "",
                "blocked_on": unfinished,
                "output_attempt": 0,
                "content_hash": content,
                "reused_run_id": None,
                "finished_at": None,
                "available_at": moment,
                "created_at": moment,
                "queued_at": None if unfinished else moment,
                "traceparent": traceparent,
            }
        )
        if twin is not None:
            reason = f"took over the output of {encode_id('run', twin.id)}, which did the same"
            runs[-1] |= {
                "state": RunState.SUCCEEDED,
                "status_reason": reason,
                "blocked_on": 0,
                "output_attempt": twin.output_attempt,
                "reused_run_id": twin.id,
                "finished_at": moment,
            }
            reused[run_id] = twin.id
            happenings.append(state_event(run_id, job.id, seed, 0, RunState.SUCCEEDED, reason))
    cap = admit_spending(session, spec.config, len(runs) - len(reused), f"{pointer}/config")
    session.execute(insert(Run), [run | {"spending_cap": cap} for run in runs])
    if edges:
        session.execute(insert(RunDependency), edges)
    message = f"{spec.kind} job {spec.name} with {len(runs)} run{'s' if len(runs) > 1 else ''}"
    data = {"seeds": list(spec.seeds), "kind": spec.kind}
    for run_id, source in reused.items():
        values = {"run_id": run_id, "job_id": job.id, "experiment_id": experiment_id, "method": job.method}
        copy_results(session, source, values)
    told = [Happening(job_id=job.id, type="job.created", message=message, data=data), *happenings]
    settle(session, told, is_submitting=True)
    session.refresh(job)
    return job


def _checked_input(
    session: Session, settings: Settings, reference: Reference, experiment_id: UUID | None, here: str
) -> UUID | None:
    """The job that an input waits for, after a check that the input exists and fits."""
    try:
        if reference.scheme == "model":
            model_directory(settings, reference.value)
        elif reference.scheme == "data":
            data_file(settings, reference.value)
            check_data(session, reference.value)
        elif reference.scheme == "dataset":
            resolve_reference(session, settings, reference, seed=0, experiment_id=None)
        elif reference.scheme == "checkpoint-id":
            _check_checkpoint(session, reference, here)
        job_id = source_job_id(session, reference, experiment_id)
    except (ValueError, NotFound) as error:
        raise Invalid(here, str(error)) from error
    if job_id is not None:
        kind = session.scalars(select(Job.kind).where(Job.id == job_id)).one()
        if reference.source not in GIVES[kind]:
            raise Invalid(here, f"{reference.value} is a job of kind {kind}, which gives no {reference.source}")
    return job_id


def _check_checkpoint(session: Session, reference: Reference, here: str) -> None:
    identifier = decode_id("ckpt", reference.value)
    row = session.get(Checkpoint, identifier, with_for_update={"read": True})  # not deleted before this is committed
    if row is None:
        raise absent(session, "checkpoint", identifier)
    if row.kind != "model":
        raise Invalid(here, f"{reference.value} is a resumable state, not a published model")
    refuse_deleted(row)
    kind = "import" if row.run_id is None else session.scalars(select(Run.kind).where(Run.id == row.run_id)).one()
    if reference.source not in GIVES[kind]:
        raise Invalid(here, f"{reference.value} is of a {kind} run, which gives no {reference.source}")


def _check_seeds(session: Session, job_id: UUID, seeds: list[int], reference: Reference, here: str) -> None:
    for seed in seeds:
        run = serving_run(session, job_id, seed, lock=True)
        if run is None:
            raise Invalid(here, f"{reference.value} has no run of seed {seed}")
        if run.state in TERMINAL and run.state != RunState.SUCCEEDED:
            run_name = encode_id("run", run.run_id)
            raise Invalid(here, f"{run_name}, the run of {reference.value} for seed {seed}, is {run.state}")
        try:
            refuse_deleted_output(session, run)
        except ValueError as error:
            raise Invalid(here, f"{reference.value}, seed {seed}: {error}") from error


def _needed_runs(session: Session, job_ids: list[UUID], seed: int, here: str) -> dict[UUID, bool]:
    """The runs that a run of this seed waits for, and whether each has succeeded."""
    needs: dict[UUID, bool] = {}
    for job_id in job_ids:
        run = serving_run(session, job_id, seed, lock=True)
        if run is None:
            raise Invalid(here, f"{encode_id('job', job_id)} has no run of seed {seed}")
        needs[run.run_id] = run.state == RunState.SUCCEEDED
    return needs
