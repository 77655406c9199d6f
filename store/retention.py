"""Records that end by age: logs, curves, events and completions of what ended long ago."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, delete, exists, func, select, update
from sqlalchemy.orm import Session

from store.database import database_time
from store.errors import Gone
from store.ids import encode_id
from store.models.job import Job
from store.models.record import Completion, Event, LogChunk, Metric
from store.models.run import Run
from store.settings import Settings
from store.states import TERMINAL

_BATCH = 20


@dataclass(frozen=True, slots=True)
class Records:
    """A kind of records that a run or a job leaves."""

    name: str
    table: Any
    days: Callable[[Settings], float]
    """Age at which they end; 0 for never."""


RECORDS = (
    Records("logs", LogChunk, lambda settings: settings.retention_log_days),
    Records("metrics", Metric, lambda settings: settings.retention_metric_days),
    Records("completions", Completion, lambda settings: settings.retention_completion_days),
    Records("events", Event, lambda settings: settings.retention_event_days),
)


def due_records(session: Session, settings: Settings, kind: Records, moment: datetime) -> list[UUID]:
    """The runs that lose such records now; for events the jobs."""
    query = _due(settings, kind, moment)
    return [] if query is None else list(session.scalars(query))


def purge(session: Session, settings: Settings, kind: Records, moment: datetime) -> int:
    """Deletes such records of the next few runs or jobs, in the caller's transaction; how many lost them."""
    query = _due(settings, kind, moment)
    subjects = [] if query is None else list(session.scalars(query.limit(_BATCH)))
    if not subjects:
        return 0
    if kind.table is Event:
        session.execute(delete(Event).where(Event.job_id.in_(subjects)))
        return len(subjects)
    session.execute(delete(kind.table).where(kind.table.run_id.in_(subjects)))
    now = database_time(session).isoformat(timespec="seconds")
    for run_id, purged in session.execute(select(Run.id, Run.purged).where(Run.id.in_(subjects))).all():
        values = {"purged": {**purged, kind.name: now}}
        session.execute(update(Run).where(Run.id == run_id).values(values))
    return len(subjects)


def _due(settings: Settings, kind: Records, moment: datetime) -> Select[UUID] | None:
    days = kind.days(settings)
    if not days:
        return None
    border = moment - timedelta(days=days)
    if kind.table is Event:
        over = (
            select(Run.job_id)
            .group_by(Run.job_id)
            .having(func.max(Run.finished_at) <= border, func.count() == func.count(Run.finished_at))
        )
        return select(Job.id).where(Job.id.in_(over), exists().where(Event.job_id == Job.id)).order_by(Job.id)
    has_any = exists().where(kind.table.run_id == Run.id)
    return select(Run.id).where(Run.state.in_(TERMINAL), Run.finished_at <= border, has_any).order_by(Run.id)


def refuse_purged(run: Run, kind: str) -> None:
    """Refuses to show an empty list where there was something.

    Raises:
        Gone: these records of the run were deleted by age.
    """
    if (since := run.purged.get(kind)) is not None:
        reason = "records of this age are not kept here"
        raise Gone(f"record of {kind}", encode_id("run", run.id), reason, datetime.fromisoformat(since))
