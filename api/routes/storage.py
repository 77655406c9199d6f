"""What takes how much room, and the collection of garbage."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy import select

from api import registry_schemas, registry_views
from api.auth import Principal, requires
from api.bodies import Body
from api.conditional import object_response
from api.dependencies import DatabaseDep, PrincipalDep, SettingsDep
from api.routes.projects import OperatorDep, visible
from store.database import Database
from store.disk import disk_of
from store.gc import Collector
from store.models.project import Project
from store.models.registry import Chore
from store.settings import Settings
from store.usage import size_of_database, used_by

router = APIRouter(prefix="/v1", tags=["storage"])


@router.get("/usage", operation_id="storage.usage", response_model=registry_schemas.UsageRead)
@requires("read")
def usage(request: Request, settings: SettingsDep, principal: PrincipalDep) -> Response:
    """Room taken by kind, the disk, and how long things are kept."""
    whole: Database = request.app.state.database
    return object_response(request, usage_read(whole, settings, principal))


def usage_read(whole: Database, settings: Settings, principal: Principal) -> registry_schemas.UsageRead:
    """What takes how much room.

    Args:
        whole: the database, not confined to the caller's project.
    """
    with whole.read() as session:
        rows = session.scalars(select(Project).order_by(Project.id)).all()
        database_bytes = size_of_database(session)
        last = select(Chore.started_at).where(Chore.name.startswith("gc")).order_by(Chore.started_at.desc())
        collected_at = session.scalar(last.limit(1))
    projects = []
    for row in rows:
        if visible(principal) in (None, row.id):
            with whole.confined(row.id).read() as session:
                projects.append(registry_views.project_usage(row.name, used_by(session)))
    return registry_schemas.UsageRead(
        projects=projects,
        size_bytes=sum(project.size_bytes for project in projects),
        database_bytes=database_bytes,
        disk=registry_views.disk(disk_of(settings)),
        retention=registry_views.retention(settings),
        collected_at=collected_at,
    )


@router.post("/gc", operation_id="storage.collect", response_model=registry_schemas.GcRead)
@requires("admin")
def collect(
    request: Request,
    operator: OperatorDep,
    database: DatabaseDep,
    settings: SettingsDep,
    spec: Annotated[Any, Depends(Body(registry_schemas.GcSpec))],
) -> Response:
    """Collects garbage now, in all projects: what expired, what no row knows of, records past their age.

    Safe to repeat, and while runs go on: what a run may still need is never taken.
    """
    collector = Collector(settings, request.app.state.database)
    if spec.dry_run:
        found = registry_views.plan(collector.plan())
    else:
        with database.write():  # its entry in the audit log: a collection has transactions of its own
            pass
        found = registry_views.report(collector.collect())
    return Response(found.model_dump_json(), 200, media_type="application/json")
