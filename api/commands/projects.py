"""`lco projects` and `lco audit`."""

from argparse import Namespace
from collections.abc import Mapping
from itertools import islice
from typing import Any

from api.client import Client
from api.commands.tables import print_json, print_table
from api.commands.usage import UsageError
from api.parsers.projects import QUOTAS
from api.project_schemas import ProjectRead


def find(client: Client, text: str) -> ProjectRead:
    """The project of an id or a name.

    Raises:
        UsageError: there is none, or the key does not reach it.
    """
    if text.startswith("prj_"):
        return client.project(text)
    for project in client.projects():
        if project.name == text:
            return project
    raise UsageError(f"there is no project {text[:64]!r}; `lco projects list` shows those that this key reaches")


def list_projects(options: Namespace) -> int:
    """Lists projects."""
    with Client() as client:
        projects = list(client.projects())
    if options.json:
        return print_json(projects)
    head = ["id", "name", "gpus", "runs", "queued", "storage", "judge $", "state"]
    return print_table(head, [_row(project) for project in projects])


def _row(project: ProjectRead) -> list[object]:
    quotas, usage = project.quotas, project.usage
    return [
        project.id,
        project.name,
        _of(usage.gpu_slots, quotas.max_gpu_slots),
        _of(usage.running_runs, quotas.max_running_runs),
        usage.queued_runs,
        _of(_size(usage.storage_bytes), None if quotas.max_storage_bytes is None else _size(quotas.max_storage_bytes)),
        _of(f"{usage.judge_spend:.2f}", None if quotas.max_judge_spend is None else f"{quotas.max_judge_spend:.2f}"),
        "archived" if project.archived_at else "active",
    ]


def _of(used: object, most: object | None) -> str:
    return str(used) if most is None else f"{used} of {most}"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def _quotas(options: Namespace) -> dict[str, Any]:
    given = {field: getattr(options, option) for option, (field, *_) in QUOTAS.items()}
    return {field: None if value == "none" else value for field, value in given.items() if value is not None}


def create(options: Namespace) -> int:
    """Makes a project."""
    with Client() as client:
        print(client.create_project(options.name, **_quotas(options)).id)
    return 0


def show(options: Namespace) -> int:
    """Prints a project."""
    with Client() as client:
        return print_json(find(client, options.project))


def change(options: Namespace) -> int:
    """Sets quotas of a project."""
    values = _quotas(options) | ({"name": options.name} if options.name else {})
    if not values:
        raise UsageError("say what to set: --gpu-slots, --running-runs, --storage, --judge-spend or --name")
    with Client() as client:
        return print_json(client.change_project(find(client, options.project).id, **values))


def archive(options: Namespace) -> int:
    """Archives a project, or takes it up again."""
    with Client() as client:
        project = find(client, options.project)
        act = client.unarchive_project if options.undo else client.archive_project
        print(f"{act(project.id).name} is {'active' if options.undo else 'archived'}")
    return 0


def audit(options: Namespace) -> int:
    """Lists the audit log."""
    with Client() as client:
        project = find(client, options.project).id if options.project else None
        found = client.audit_entries(action=options.action, object_id=options.object, key=options.key, project=project)
        entries = list(islice(found, options.limit))
    if options.json:
        return print_json(entries)
    rows = [[entry.created_at, entry.key_name, entry.action, entry.object_id, told(entry.details)] for entry in entries]
    return print_table(["time", "key", "action", "object", "details"], rows)


def told(details: Mapping[str, Any]) -> str:
    """What an entry tells, on one line."""
    return ", ".join(f"{name} {value}" for name, value in details.items())[:120]
