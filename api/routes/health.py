"""Health for machines: alive, ready, and numbers for Prometheus."""

from collections.abc import Iterator

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from api.auth import requires
from api.dependencies import DatabaseDep, SettingsDep
from api.errors import RETRY_AFTER_SECONDS, ApiError
from api.failures import may_fail
from api.metrics import MEDIA_TYPE, gauge
from store.database import Database, is_current
from store.repositories.runs import Runs

router = APIRouter(tags=["health"])


@router.get("/healthz", operation_id="health.alive")
@requires("open")
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", operation_id="health.ready")
@may_fail("not_migrated")
@requires("open")
def readyz(database: DatabaseDep, settings: SettingsDep) -> Response:
    """The database answers and is at the newest migration. A broker is reported, and never fails readiness."""
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    try:
        current = is_current(database.engine)
    except (SQLAlchemyError, OSError):
        raise ApiError(503, "database_unavailable", "the database does not answer", headers=headers) from None
    if not current:
        raise ApiError(503, "not_migrated", "the database is not at the newest migration", headers=headers)
    return JSONResponse({"status": "ready", "dispatch": "celery" if settings.broker_url else "local"})


@router.get("/metrics", operation_id="health.metrics", response_class=Response)
@requires("read")
def metrics(request: Request, database: DatabaseDep) -> Response:
    """Numbers in Prometheus' text format; those about runs are read from the database now."""
    lines = [*request.app.state.metrics.lines(), *_from_database(database)]
    return Response("\n".join(lines) + "\n", media_type=MEDIA_TYPE)


def _from_database(database: Database) -> Iterator[str]:
    with database.read() as session:
        runs = Runs(session)
        counts: dict[tuple[str, ...], float] = {key: float(value) for key, value in runs.counts().items()}
        oldest: dict[tuple[str, ...], float] = {(key,): value for key, value in runs.oldest_queued_seconds().items()}
        ended: dict[tuple[str, ...], float] = {(key,): float(value) for key, value in runs.attempt_outcomes().items()}
    yield from gauge("lco_runs", "Runs by state and queue.", counts, ("state", "queue"))
    yield from gauge("lco_queue_oldest_seconds", "How long the oldest claimable run waits.", oldest, ("queue",))
    yield from gauge("lco_attempts_total", "Ended attempts by outcome.", ended, ("outcome",), kind="counter")
