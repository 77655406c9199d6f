"""Settings: API keys, projects with what they use, and the audit log."""

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from api.auth import requires, widen
from api.dashboard.lists import PER_PAGE, Cursor, pager
from api.dashboard.pages import page
from api.dependencies import DatabaseDep, PrincipalDep
from api.ids import parse_id
from api.pagination import cursor
from api.project_schemas import ProjectRead
from api.routes import api_keys, audit, projects
from store.errors import NotFound
from store.ids import decode_id, encode_id
from store.repositories.audit import Audit
from store.repositories.keys import Keys
from store.repositories.projects import Projects

router = APIRouter(include_in_schema=False)

_PAGES = {"exp": "experiments", "job": "jobs", "run": "runs", "ds": "datasets", "prj": "settings/projects"}
"""Prefix of an id -> where its page is."""


@dataclass(frozen=True, slots=True)
class Meter:
    """What a project uses of one thing."""

    label: str
    used: float
    most: float | None
    unit: str
    """`bytes`, `usd` or empty."""

    @property
    def state(self) -> str:
        """The colour of its bar: as of a failure where nothing is left."""
        return "failed" if self.most is not None and self.used >= self.most else "running"


def meters(project: ProjectRead) -> list[Meter]:
    """What a project uses against its quotas."""
    quotas, usage = project.quotas, project.usage
    spent = usage.judge_spend + usage.judge_reserved
    return [
        Meter("GPUs in use", usage.gpu_slots, quotas.max_gpu_slots, ""),
        Meter("Live runs", usage.running_runs, quotas.max_running_runs, ""),
        Meter("Storage", usage.storage_bytes, quotas.max_storage_bytes, "bytes"),
        Meter("Judges this month", spent, quotas.max_judge_spend, "usd"),
    ]


def _names(session: Session, ids: set[str]) -> dict[str, str]:
    """Names of projects by their ids as shown."""
    found = Projects(session).names({decode_id("prj", text) for text in ids})
    return {encode_id("prj", identifier): name for identifier, name in found.items()}


@router.get("/settings")
@requires("read")
def keys(
    request: Request, database: DatabaseDep, principal: PrincipalDep, after: Cursor = None, before: Cursor = None
) -> Response:
    """The caller's project, and for an admin its API keys; those of all projects for an operator."""
    with database.read() as session:
        (own,) = projects.shown(session, [Projects(session).own()])
        rows, data, choices = None, [], []
        if principal.may("admin"):
            widen(session, principal)
            rows = Keys(session).page(PER_PAGE, cursor("key", after, "after"), cursor("key", before, "before"))
            data = [api_keys.shown(row) for row in rows.rows]
            if principal.is_operator:
                found = Projects(session).page(100).rows
                choices = [(encode_id("prj", row.id), row.name) for row in found if row.archived_at is None]
        names = _names(session, {key.project_id for key in data})
    return page(
        request,
        "settings_keys.html",
        project=own,
        meters=meters(own),
        keys=data,
        projects=names,
        choices=choices,
        links={} if rows is None else pager("/settings", {}, rows, [key.id for key in data], after, before),
        twin="/v1/api_keys" if rows is not None else f"/v1/projects/{own.id}",
    )


@router.get("/settings/projects")
@requires("read")
def list_projects(
    request: Request, database: DatabaseDep, principal: PrincipalDep, after: Cursor = None, before: Cursor = None
) -> Response:
    """The projects that the caller sees, with what they use."""
    with database.read() as session:
        rows = Projects(session).page(
            PER_PAGE,
            cursor("prj", after, "after"),
            cursor("prj", before, "before"),
            project_id=projects.visible(principal),
        )
        data = projects.shown(session, rows.rows)
    return page(
        request,
        "settings_projects.html",
        projects=[(project, meters(project)) for project in data],
        links=pager("/settings/projects", {}, rows, [project.id for project in data], after, before),
        twin="/v1/projects",
    )


@router.get("/settings/projects/{prj_id}")
@requires("read")
def project(request: Request, database: DatabaseDep, principal: PrincipalDep, prj_id: str) -> Response:
    """One project: what it uses, its quotas, and how they are changed."""
    identifier = parse_id("prj", prj_id)
    if projects.visible(principal) not in (None, identifier):
        raise NotFound("project", prj_id)
    with database.read() as session:
        (found,) = projects.shown(session, [Projects(session).get(identifier)])
    return page(
        request,
        "settings_project.html",
        project=found,
        meters=meters(found),
        twin=f"/v1/projects/{found.id}",
    )


@router.get("/settings/audit")
@requires("admin")
def audit_log(
    request: Request,
    database: DatabaseDep,
    principal: PrincipalDep,
    action: Annotated[str, Query(max_length=128)] = "",
    object_id: Annotated[str, Query(alias="object", max_length=128)] = "",
    after: Cursor = None,
    before: Cursor = None,
) -> Response:
    """Who changed what, newest first."""
    with database.read() as session:
        widen(session, principal)
        rows = Audit(session).page(
            PER_PAGE,
            cursor("aud", after, "after"),
            cursor("aud", before, "before"),
            action=action or None,
            object_id=object_id or None,
        )
        data = [audit.shown(row) for row in rows.rows]
        names = _names(session, {entry.project_id for entry in data})
    filters = {name: value for name, value in (("action", action), ("object", object_id)) if value}
    return page(
        request,
        "settings_audit.html",
        entries=data,
        places={entry.id: _place(entry.object_id) for entry in data},
        projects=names,
        filters=filters,
        links=pager("/settings/audit", filters, rows, [entry.id for entry in data], after, before),
        twin=f"/v1/audit_entries?{urlencode(filters)}" if filters else "/v1/audit_entries",
    )


def _place(object_id: str | None) -> str | None:
    """The page of what an entry is about, where it has one."""
    prefix, _, _ = (object_id or "").partition("_")
    return f"/{_PAGES[prefix]}/{object_id}" if prefix in _PAGES else None
