"""Quotas of projects at the door: what is refused when it is submitted or uploaded, and why a queued run waits.

Checks that decide something lock the project's row first (PostgreSQL; on SQLite writers take turns), so that two
requests at once do not both take what is left. What a claim passes over is in `store.shares`.
"""

from collections.abc import Iterable, Iterator
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lco.config import Config
from lco.endpoint_config import AzureEndpoint, OpenAiEndpoint
from store.confinement import project_of
from store.database import database_time
from store.endpoints import endpoints
from store.errors import Conflict, Invalid
from store.models.dataset import Dataset
from store.models.project import Project, Spending
from store.models.run import Run
from store.repositories.projects import Projects, month_of
from store.repositories.runs import RunDigest
from store.states import RunState
from store.uploads import Rows
from store.upserts import insert_into


def admit(session: Session, size_bytes: int = 1) -> None:
    """Nothing, if the session's project takes something new.

    Args:
        size_bytes: what is to be kept; a submission must find some storage left.

    Raises:
        Conflict: the project is archived, or its storage would exceed or has reached its quota.
    """
    project = Projects(session).own()
    if project.archived_at is not None:
        raise Conflict("project_archived", f"the project {project.name} is archived: nothing new is taken")
    if not size_bytes or project.max_storage_bytes is None:
        return
    project = _locked(session, project.id)
    most = project.max_storage_bytes
    if most is not None:
        used = Projects(session).usage([project.id])[project.id].storage_bytes
        if used + size_bytes > most:
            more = f", and this adds {_size(size_bytes)}" if size_bytes > 1 else ""
            raise Conflict(
                "quota_exceeded",
                f"max_storage_bytes: the project {project.name} keeps {_size(used)} of the {_size(most)} that it may "
                f"keep{more}; delete checkpoints or data sets, or let an admin raise the quota",
                f"{used} of {most} bytes",
            )


def admit_rows(session: Session, rows: Rows) -> None:
    """The same for uploaded rows; those that the project keeps already take no more storage.

    Raises:
        Conflict: as for `admit`.
    """
    is_kept = select(Dataset.id).where(Dataset.project_id == project_of(session), Dataset.sha256 == rows.sha256)
    admit(session, 0 if session.scalar(is_kept.limit(1)) is not None else rows.size_bytes)


def spending_cap(config: Config) -> float | None:
    """USD that a run's endpoints may cost at most; None where one that may cost something has no cap."""
    caps = [endpoint.spending_cap for _, endpoint in _paid(config)]
    return None if 0.0 in caps else sum(caps)


def _paid(config: Config, pointer: str = "/config") -> Iterator[tuple[str, OpenAiEndpoint | AzureEndpoint]]:
    """The models behind endpoints that may cost something, with their JSON pointers.

    A server of one's own costs nothing: one without a key and prices, or one that gives rewards.
    """
    for place, endpoint in endpoints(config, pointer):
        prices = endpoint.prices
        if endpoint.api_key_variable or prices.input_per_million or prices.output_per_million:
            yield place, endpoint


def admit_spending(session: Session, config: Config, num_runs: int, pointer: str) -> float | None:
    """The `spending_cap` of each of some new runs, if what is left of the project's judge budget covers them all.

    The caps of unfinished runs count as spent, so that the budget holds however they end.

    Raises:
        Invalid: the project has a budget, and an endpoint no cap.
        Conflict: there is not enough left.
    """
    cap = spending_cap(config)
    if cap == 0.0 or Projects(session).own().max_judge_spend is None:
        return cap
    project = _locked(session, project_of(session))
    most = project.max_judge_spend
    if most is None:
        return cap
    if cap is None:
        here = next(place for place, endpoint in _paid(config, pointer) if not endpoint.spending_cap)
        raise Invalid(f"{here}/spending_cap", "this project has a judge budget: say what a run may spend, with prices")
    usage = Projects(session).usage([project.id])[project.id]
    wanted = cap * num_runs
    if usage.judge_spend + usage.judge_reserved + wanted > most:
        raise Conflict(
            "quota_exceeded",
            f"max_judge_spend: the project {project.name} may spend ${most:.2f} a month; ${usage.judge_spend:.2f} are "
            f"spent, ${usage.judge_reserved:.2f} are reserved by unfinished runs, and this could cost ${wanted:.2f}",
            f"${usage.judge_spend + usage.judge_reserved:.2f} of ${most:.2f}",
        )
    return cap


def record_spending(session: Session, project_id: UUID, run_id: UUID, usd: float) -> None:
    """Puts down to this month what a run has spent since it was last told. The caller holds the run's row.

    Args:
        usd: in all so far; less than before changes nothing.
    """
    known = select(func.coalesce(func.sum(Spending.usd), 0.0)).where(Spending.run_id == run_id)
    more = usd - session.execute(known).scalar_one()
    if more <= 0:
        return
    month = month_of(database_time(session))
    row = insert_into(session, Spending).values(run_id=run_id, month=month, project_id=project_id, usd=more)
    together = {"usd": Spending.usd + row.excluded.usd}
    session.execute(row.on_conflict_do_update(index_elements=["run_id", "month"], set_=together))


def waits(session: Session, runs: Iterable[Run | RunDigest]) -> dict[UUID, str]:
    """For queued runs that a quota of their project holds back now: why, for a person."""
    queued = [run for run in runs if run.state == RunState.QUEUED]
    reasons: dict[UUID, str] = {}
    if not queued:
        return reasons
    bound = select(Project).where(
        Project.id.in_({run.project_id for run in queued}),
        Project.max_running_runs.is_not(None) | Project.max_gpu_slots.is_not(None),
    )
    projects = {project.id: project for project in session.scalars(bound)}
    usage = Projects(session).usage(projects) if projects else {}
    for run in queued:
        if (project := projects.get(run.project_id)) is None:
            continue
        used = usage[project.id]
        if project.max_running_runs is not None and used.running_runs >= project.max_running_runs:
            reasons[run.id] = (
                f"waits: the project {project.name} has {used.running_runs} of the {project.max_running_runs} "
                "live runs that its quota max_running_runs allows"
            )
        elif project.max_gpu_slots is not None and 0 < run.num_gpus > project.max_gpu_slots - used.gpu_slots:
            reasons[run.id] = (
                f"waits: needs {run.num_gpus} GPUs, and the project {project.name} holds {used.gpu_slots} of the "
                f"{project.max_gpu_slots} that its quota max_gpu_slots allows"
            )
    return reasons


def _locked(session: Session, project_id: UUID) -> Project:
    query = select(Project).where(Project.id == project_id).with_for_update(key_share=True)
    return session.scalars(query.execution_options(populate_existing=True)).one()


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.3g} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.3g} MB"
