"""Health for machines: alive, ready, and numbers for Prometheus."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from api.auth import requires
from api.dependencies import DatabaseDep, PrincipalDep, SettingsDep
from api.errors import RETRY_AFTER_SECONDS, ApiError
from api.failures import may_fail
from api.metrics import MEDIA_TYPE
from api.platform_metrics import platform_lines
from api.registry_views import disk
from store.database import is_current
from store.disk import disk_of
from store.models.project import DEFAULT_PROJECT_ID

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
    """Numbers in Prometheus' text format; a key of the default project sees those of all projects."""
    seen = request.app.state.database if principal.project_id == DEFAULT_PROJECT_ID else database
    lines = [*request.app.state.metrics.lines(), *platform_lines(seen, settings)]
    return Response("\n".join(lines) + "\n", media_type=MEDIA_TYPE)
