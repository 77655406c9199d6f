"""Pages that list: experiments, jobs, workers."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from api import schemas, views
from api.auth import requires
from api.dashboard.pages import SLOW_REFRESH_SECONDS, page
from api.dependencies import DatabaseDep
from api.ids import parse_id
from api.overview_views import live_runs
from api.pagination import cursor
from store.database import database_time
from store.repositories.jobs import Experiments, Jobs
from store.repositories.paging import Page
from store.repositories.workers import Workers

router = APIRouter(include_in_schema=False)

PER_PAGE = 25
STATUSES = ("queued", "running", "paused", "succeeded", "failed", "cancelled")
KINDS = ("sft", "pairs", "dpo", "train", "evaluation", "score", "sample", "import")

Cursor = Annotated[str | None, Query(max_length=64)]


@router.get("/experiments")
@requires("read")
def experiments(request: Request, database: DatabaseDep, after: Cursor = None, before: Cursor = None) -> Response:
    """All experiments, newest first."""
    with database.read() as session:
        rows = Experiments(session).page(PER_PAGE, cursor("exp", after, "after"), cursor("exp", before, "before"))
        data = views.experiments(session, rows.rows)
    return page(
        request,
        "experiments.html",
        experiments=data,
        links=pager("/experiments", {}, rows, [experiment.id for experiment in data], after, before),
        twin=_twin("/v1/experiments", {}, after, before),
        every=SLOW_REFRESH_SECONDS,
    )


@router.get("/jobs")
@requires("read")
def jobs(
    request: Request,
    database: DatabaseDep,
    status: Annotated[str, Query(pattern=f"^({'|'.join(STATUSES)})?$")] = "",
    kind: Annotated[str, Query(pattern=f"^({'|'.join(KINDS)})?$")] = "",
    experiment: Annotated[str, Query(max_length=64)] = "",
    after: Cursor = None,
    before: Cursor = None,
) -> Response:
    """Jobs by status, kind and experiment, newest first."""
    filters = {"status": status, "kind": kind, "experiment": experiment}
    filters = {name: value for name, value in filters.items() if value}
    with database.read() as session:
        rows = Jobs(session).page(
            PER_PAGE,
            cursor("job", after, "after"),
            cursor("job", before, "before"),
            status=status or None,
            kind=kind or None,
            experiment_id=cursor("exp", experiment or None, "experiment"),
        )
        data = views.jobs(session, rows.rows)
        names = _names(session, data)
    return page(
        request,
        "jobs.html",
        jobs=data,
        names=names,
        filters=filters,
        statuses=STATUSES,
        kinds=KINDS,
        links=pager("/jobs", filters, rows, [job.id for job in data], after, before),
        twin=_twin("/v1/jobs", filters, after, before),
        every=SLOW_REFRESH_SECONDS,
    )


@router.get("/workers")
@requires("read")
def workers(request: Request, database: DatabaseDep) -> Response:
    """Workers, with their slots."""
    with database.read() as session:
        data = [views.worker(row) for row in Workers(session).page(100).rows]
        live = live_runs(session, database_time(session))
    return page(
        request,
        "workers.html",
        workers=sorted(data, key=lambda worker: not worker.is_alive),
        busy=Counter(run.worker_id for run in live),
        live=live,
        twin="/v1/workers",
        every=SLOW_REFRESH_SECONDS,
    )


def pager(
    path: str, query: Mapping[str, str], rows: Page[Any], ids: list[str], after: str | None, before: str | None
) -> dict[str, str | None]:
    """Addresses of the neighbouring pages of a list, newest first; None where there is none."""
    has_newer = after is not None or (before is not None and rows.has_more)
    has_older = before is not None or rows.has_more
    return {
        "before": f"{path}?{urlencode({**query, 'before': ids[0]})}" if ids and has_newer else None,
        "after": f"{path}?{urlencode({**query, 'after': ids[-1]})}" if ids and has_older else None,
    }


def _twin(path: str, query: Mapping[str, str], after: str | None, before: str | None) -> str:
    cursors = {name: value for name, value in (("after", after), ("before", before)) if value is not None}
    return f"{path}?{urlencode({**query, 'limit': PER_PAGE, **cursors})}"


def _names(session: Session, jobs: Iterable[schemas.JobRead]) -> dict[str, str]:
    """The names of the jobs' experiments, by their ids as shown."""
    ids: dict[str, UUID] = {
        job.experiment_id: parse_id("exp", job.experiment_id) for job in jobs if job.experiment_id is not None
    }
    return {shown: Experiments(session).get(identifier).name for shown, identifier in ids.items()}
