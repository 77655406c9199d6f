"""`lco schedules`."""

import itertools
import sys
from argparse import Namespace
from pathlib import Path

from api.client import Client
from api.commands.documents import read_document
from api.commands.tables import print_json, print_table, safe
from api.commands.usage import UsageError
from api.schedule_schemas import ScheduleFireRead, ScheduleRead
from api.words_of_schedules import action_text, trigger_text


def create(options: Namespace) -> int:
    """Adds a schedule; a job or an experiment becomes the action of one."""
    document = read_document(Path(options.file))
    if options.cron is not None:
        action = (
            {"kind": "experiment", "document": document} if "jobs" in document else {"kind": "job", "spec": document}
        )
        trigger = {"kind": "cron", "expression": options.cron, "time_zone": options.time_zone or "UTC"}
        document = {"name": options.name or document.get("name"), "trigger": trigger, "action": action}
    elif "trigger" not in document:
        raise UsageError(f"{options.file} says not when: give --cron, or a [trigger] in the file")
    elif options.time_zone is not None:
        raise UsageError("--time-zone goes with --cron; else the file's [trigger] has it")
    elif options.name is not None:
        document = document | {"name": options.name}
    with Client() as client:
        found = client.create_schedule(document)
    print(found.id)
    if found.next_due_at is not None:
        print(
            f"{trigger_text(found.trigger)}; next at {found.next_due_at.astimezone():%Y-%m-%d %H:%M}", file=sys.stderr
        )
    return 0


def list_schedules(options: Namespace) -> int:
    """Lists schedules."""
    with Client() as client:
        found = list(client.schedules())
    if options.json:
        return print_json(found)
    rows = [
        [
            item.id,
            item.name,
            trigger_text(item.trigger),
            action_text(item.action),
            "suspended" if item.is_suspended else item.next_due_at,
            item.last_fire and item.last_fire.outcome,
        ]
        for item in found
    ]
    return print_table(["id", "name", "when", "what", "next", "last"], rows)


def fires(options: Namespace) -> int:
    """Lists what a schedule did."""
    with Client() as client:
        found = list(itertools.islice(client.schedule_fires(options.id), options.limit))
    if options.json:
        return print_json(found)
    rows = [[item.due_at, item.cause, item.outcome, ", ".join(item.objects), item.message] for item in found]
    return print_table(["due", "cause", "outcome", "submitted", "message"], rows)


def suspend(options: Namespace) -> int:
    """Lets a schedule rest."""
    with Client() as client:
        print(f"{client.suspend_schedule(options.id).id} is suspended")
    return 0


def resume(options: Namespace) -> int:
    """Lets a schedule go on."""
    with Client() as client:
        print(_goes_on(client.resume_schedule(options.id)))
    return 0


def trigger(options: Namespace) -> int:
    """Fires a schedule; the exit code is 1 where that failed."""
    with Client() as client:
        found = client.trigger_schedule(options.id)
    if found.trigger["kind"] != "cron":
        print(f"{found.id} looks now")
        return 0
    assert found.last_fire is not None
    print(_told(found.last_fire))
    return 1 if found.last_fire.outcome == "failed" else 0


def remove(options: Namespace) -> int:
    """Removes a schedule."""
    with Client() as client:
        client.remove_schedule(options.id)
    print(f"{options.id} is removed")
    return 0


def _goes_on(schedule: ScheduleRead) -> str:
    due = schedule.next_due_at
    return f"{schedule.id} goes on" + ("" if due is None else f", next at {due.astimezone():%Y-%m-%d %H:%M}")


def _told(fire: ScheduleFireRead) -> str:
    return safe(" ".join([fire.outcome, *fire.objects, *([f"({fire.message})"] if fire.message else [])]))
