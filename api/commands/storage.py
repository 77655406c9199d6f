"""`lco gc`, `lco usage` and `lco delete`."""

from argparse import Namespace

from api.client import Client
from api.commands.tables import print_json, print_table, shown
from api.figures import size_text


def collect(options: Namespace) -> int:
    """Collects garbage, or says what would go."""
    with Client() as client:
        found = client.collect_garbage(dry_run=options.dry_run)
    if options.json:
        return print_json(found)
    rows = [[item.kind, item.count, size_text(item.size_bytes), item.subject, item.reason] for item in found.items]
    print_table(["kind", "count", "size", "what", "why"], rows)
    if found.dry_run:
        print(f"{found.num_items} things would go, {size_text(found.size_bytes)}; nothing was changed")
    else:
        print(f"{found.num_items} things went, {size_text(found.freed_bytes)} freed")
    for failure in found.failures:
        print(f"could not be removed: {shown(failure)}")
    return 1 if found.failures else 0


def usage(options: Namespace) -> int:
    """Shows what takes how much room."""
    with Client() as client:
        found = client.usage()
    if options.json:
        return print_json(found)
    rows: list[list[object]] = [
        [project.name, kind.kind, kind.count, size_text(kind.size_bytes)]
        for project in found.projects
        for kind in project.kinds
    ]
    rows.append(["", "database", None, size_text(found.database_bytes)])
    print_table(["project", "kind", "count", "size"], rows)
    disk = found.disk
    print(f"disk: {disk.used_percent:g} % used ({disk.status}), {size_text(disk.free_bytes)} free")
    return 0


def delete(options: Namespace) -> int:
    """Deletes jobs, runs, experiments, checkpoints or models."""
    with Client() as client:
        for identifier in options.ids:
            client.delete(identifier)
            print(f"{identifier} is deleted")
    return 0
