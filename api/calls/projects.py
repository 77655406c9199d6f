"""Calls about projects and the audit log."""

from collections.abc import Mapping
from typing import Any, Literal

from api.calls.base import Ask, AskList, listing
from api.project_schemas import AuditEntryRead, ProjectRead
from api.transport import Call, body_of


def create_project(name: str, quotas: Mapping[str, Any]) -> Ask[ProjectRead]:
    """A new project."""
    return Ask(Call("POST", "/v1/projects", content=body_of({"name": name, **quotas})), ProjectRead)


def change_project(identifier: str, values: Mapping[str, Any]) -> Ask[ProjectRead]:
    """Other quotas, or another name."""
    return Ask(Call("PATCH", f"/v1/projects/{identifier}", content=body_of(dict(values))), ProjectRead)


def archive_project(identifier: str, verb: Literal["archive", "unarchive"]) -> Ask[ProjectRead]:
    """The end of a project, or its return."""
    return Ask(Call("POST", f"/v1/projects/{identifier}/{verb}"), ProjectRead)


def projects(name: str | None) -> AskList[ProjectRead]:
    """Projects, newest first."""
    return listing("/v1/projects", ProjectRead, {"name": name})


def audit_entries(
    action: str | None, object_id: str | None, key: str | None, project: str | None
) -> AskList[AuditEntryRead]:
    """Changes, newest first."""
    filters = {"action": action, "object": object_id, "key": key, "project": project}
    return listing("/v1/audit_entries", AuditEntryRead, filters)
