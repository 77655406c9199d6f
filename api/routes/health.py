"""Health for machines: alive, ready, and numbers for Prometheus."""

from collections.abc import Iterator

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from api.auth import Principal, requires, widen
from api.dependencies import DatabaseDep, PrincipalDep, SettingsDep
from api.errors import RETRY_AFTER_SECONDS, ApiError
from api.metrics import MEDIA_TYPE, gauge
from api.registry_views import disk
from store.database import Database, is_current
from store.disk import disk_of
from store.repositories.runs import Runs
from store.settings import Settings

router = APIRouter(tags=["health"])


@router.get("/healthz", operation_id="health.alive")
@requires("open")
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", operation_id="health.ready")
@requires("open")
def readyz(database: DatabaseDep, settings: SettingsDep) -> Response:
    """The database answers and is at the newest migration. Broker and disk are reported, and never fail readiness."""
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    try:
        current = is_current(database.engine)
    except (SQLAlchemyError, OSError):
        raise ApiError(503, "database_unavailable", "the database does not answer", headers=headers) from None
    if not current:
        raise ApiError(503, "not_migrated", "the database is not at the newest migration", headers=headers)
    room = disk(disk_of(settings))
    body = {"status": "ready", "dispatch": "celery" if settings.broker_url else "local"}
    return JSONResponse({**body, "disk": room.status, "disk_used_percent": room.used_percent})


@router.get("/metrics", operation_id="health.metrics", response_class=Response)
@requires("read")
def metrics(request: Request, database: DatabaseDep, settings: SettingsDep, principal: PrincipalDep) -> Response:
    """Numbers in Prometheus' text format; those about runs are read from the database now.

    They are about the key's project; with an admin key of the default one, about all.
    """
    lines = [*request.app.state.metrics.lines(), *_from_database(database, settings, principal)]
    return Response("\n".join(lines) + "\n", media_type=MEDIA_TYPE)


def _from_database(database: Database, settings: Settings, principal: Principal) -> Iterator[str]:
    with database.read() as session:
        widen(session, principal)
        runs = Runs(session)
        counts: dict[tuple[str, ...], float] = {key: float(value) for key, value in runs.counts().items()}
        oldest: dict[tuple[str, ...], float] = {(key,): value for key, value in runs.oldest_queued_seconds().items()}
        ended: dict[tuple[str, ...], float] = {(key,): float(value) for key, value in runs.attempt_outcomes().items()}
    yield from gauge("lco_runs", "Runs by state and queue.", counts, ("state", "queue"))
    yield from gauge("lco_queue_oldest_seconds", "How long the oldest claimable run waits.", oldest, ("queue",))
    room = disk_of(settings)
    yield from gauge("lco_disk_used_ratio", "Use of the artifacts' disk.", {(): room.used_percent / 100}, ())
    yield from gauge("lco_disk_free_bytes", "Free space on the artifacts' disk.", {(): float(room.free_bytes)}, ())
    yield from gauge("lco_attempts_total", "Ended attempts by outcome.", ended, ("outcome",), kind="counter")
