"""What takes how much room, and the collection of garbage."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from api import registry_schemas, registry_views
from api.auth import requires
from api.bodies import Body
from api.conditional import object_response
from api.dependencies import DatabaseDep, PrincipalDep, SettingsDep
from store.database import Database
from store.disk import disk_of
from store.gc import Collector
from store.models.registry import Chore
from store.settings import Settings
from store.usage import usage_of

router = APIRouter(prefix="/v1", tags=["storage"])


@router.get("/usage", operation_id="storage.usage", response_model=registry_schemas.UsageRead)
@requires("read")
def usage(request: Request, database: DatabaseDep, settings: SettingsDep, principal: PrincipalDep) -> Response:
    """Room taken by kind, the disk, and how long things are kept."""
    return object_response(request, usage_read(database, settings))


def usage_read(database: Database, settings: Settings) -> registry_schemas.UsageRead:
    """What takes how much room."""
    with database.read() as session:
        found = usage_of(session)
        chore = session.get(Chore, "gc")
        collected_at = None if chore is None else chore.started_at
    projects = [registry_views.project_usage("default", found.used)]
    return registry_schemas.UsageRead(
        projects=projects,
        size_bytes=sum(project.size_bytes for project in projects),
        database_bytes=found.database_bytes,
        disk=registry_views.disk(disk_of(settings)),
        retention=registry_views.retention(settings),
        collected_at=collected_at,
    )


@router.post("/gc", operation_id="storage.collect", response_model=registry_schemas.GcRead)
@requires("admin")
def collect(
    request: Request, settings: SettingsDep, spec: Annotated[Any, Depends(Body(registry_schemas.GcSpec))]
) -> Response:
    """Collects garbage now, in all projects: what expired, what no row knows of, records past their age.

    Safe to repeat, and while runs go on: what a run may still need is never taken.
    """
    collector = Collector(settings, request.app.state.database)
    found = registry_views.plan(collector.plan()) if spec.dry_run else registry_views.report(collector.collect())
    return Response(found.model_dump_json(), 200, media_type="application/json")
