"""The audit log: who changed what."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api import schemas
from api.auth import requires, widen
from api.conditional import object_response
from api.dependencies import DatabaseDep, PrincipalDep
from api.ids import parse_id
from api.pagination import ListingDep, cursor, make_page, page_response
from api.project_schemas import AuditEntryRead
from store.ids import encode_id
from store.models.project import AuditEntry
from store.repositories.audit import Audit

router = APIRouter(prefix="/v1/audit_entries", tags=["audit_entries"])


def shown(row: AuditEntry) -> AuditEntryRead:
    """An entry, for the wire."""
    return AuditEntryRead(
        id=encode_id("aud", row.id),
        project_id=encode_id("prj", row.project_id),
        key_id=encode_id("key", row.api_key_id),
        key_name=row.key_name,
        via=row.via,
        action=row.action,
        object_id=row.object_id,
        details=row.details,
        request_id=row.request_id,
        created_at=row.created_at,
    )


@router.get("", operation_id="audit_entries.list", response_model=schemas.Page[AuditEntryRead])
@requires("admin")
def list_entries(
    request: Request,
    database: DatabaseDep,
    principal: PrincipalDep,
    listing: ListingDep,
    action: Annotated[str | None, Query(max_length=128, description="Only this operation: `jobs.cancel`.")] = None,
    object_id: Annotated[
        str | None, Query(alias="object", max_length=128, description="Only changes of the object with this id.")
    ] = None,
    key: Annotated[str | None, Query(max_length=64, description="Only changes made with this API key.")] = None,
    project: Annotated[str | None, Query(max_length=64, description="Only entries of this project.")] = None,
) -> Response:
    """Changes made over HTTP, newest first: of all projects for an admin key of the default one."""
    after, before = listing.cursors("aud")
    key_id, project_id = cursor("key", key, "key"), cursor("prj", project, "project")
    with database.read() as session:
        widen(session, principal)
        rows = Audit(session).page(
            listing.limit,
            after,
            before,
            listing.order,
            action=action,
            object_id=object_id,
            api_key_id=key_id,
            project_id=project_id,
        )
    data = [shown(row) for row in rows.rows]
    return page_response(request, make_page(data, rows.has_more, [item.id for item in data]))


@router.get("/{aud_id}", operation_id="audit_entries.get", response_model=AuditEntryRead)
@requires("admin")
def get(request: Request, database: DatabaseDep, principal: PrincipalDep, aud_id: str) -> Response:
    """One entry."""
    with database.read() as session:
        widen(session, principal)
        return object_response(request, shown(Audit(session).get(parse_id("aud", aud_id))))
