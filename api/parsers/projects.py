"""`lco projects` and `lco audit`."""

import argparse
from collections.abc import Callable

from api.parsers.base import Commands, add, group

_PROJECTS = "api.commands.projects"
QUOTAS = {
    "gpu_slots": ("max_gpu_slots", int, "N", "GPUs that its live runs may hold at once"),
    "running_runs": ("max_running_runs", int, "N", "live runs at once"),
    "storage": ("max_storage_bytes", int, "BYTES", "of checkpoints and data sets together"),
    "judge_spend": ("max_judge_spend", float, "USD", "that judges may cost in a calendar month (UTC)"),
}
"""Option -> field, type, metavar, help."""


def add_commands(commands: Commands) -> None:
    """Adds these commands."""
    projects = group(commands, "projects", "list, create, show, set and archive projects")
    listing = add(projects, "list", f"{_PROJECTS}:list_projects", "list projects with their quotas and usage")
    listing.add_argument("--json", action="store_true", help="as JSON")
    create = add(projects, "create", f"{_PROJECTS}:create", "make a project and print its id")
    create.add_argument("name", metavar="NAME")
    show = add(projects, "show", f"{_PROJECTS}:show", "print a project as JSON")
    change = add(projects, "set", f"{_PROJECTS}:change", "set quotas of a project; `none` takes a bound away")
    archive = add(projects, "archive", f"{_PROJECTS}:archive", "let a project take nothing new")
    archive.add_argument("--undo", action="store_true", help="take it up again")
    for command in (show, change, archive):
        command.add_argument("project", metavar="PROJECT", help="name or id")
    change.add_argument("--name", help="another name")
    for command in (create, change):
        _add_quotas(command)
    audit = add(commands, "audit", f"{_PROJECTS}:audit", "list who changed what over HTTP, newest first")
    audit.add_argument("--action", metavar="NAME", help="only this operation: jobs.cancel")
    audit.add_argument("--object", metavar="ID", help="only changes of this object")
    audit.add_argument("--key", metavar="ID", help="only changes made with this API key")
    audit.add_argument("--project", metavar="PROJECT", help="only of this project, by name or id")
    audit.add_argument("--limit", type=int, default=20, help="at most this many (default 20)")
    audit.add_argument("--json", action="store_true", help="as JSON")


def _add_quotas(command: argparse.ArgumentParser) -> None:
    for option, (_, kind, metavar, text) in QUOTAS.items():
        command.add_argument(f"--{option.replace('_', '-')}", type=_bound(kind), metavar=metavar, help=text)


def _bound(kind: Callable[[str], int | float]) -> Callable[[str], int | float | str]:
    def number(text: str) -> int | float | str:
        return text if text == "none" else kind(text)

    return number
