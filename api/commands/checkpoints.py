"""`lco checkpoints` and `lco alias`."""

import itertools
from argparse import Namespace

from api.client import Client
from api.commands.tables import print_json, print_table


def list_checkpoints(options: Namespace) -> int:
    """Lists checkpoints."""
    filters = {"run": options.of_run, "job": options.job, "kind": options.kind}
    with Client() as client:
        found = list(itertools.islice(client.checkpoints(**filters), options.limit))
    if options.json:
        return print_json(found)
    rows = [
        [
            item.id,
            item.kind,
            item.step,
            f"{item.size_bytes / 1e6:,.1f} MB",
            ", ".join(item.aliases),
            "pinned" if item.is_pinned else "",
            item.created_at,
        ]
        for item in found
    ]
    return print_table(["id", "kind", "step", "size", "aliases", "pinned", "created"], rows)


def pin(options: Namespace) -> int:
    """Marks a checkpoint as one to keep."""
    with Client() as client:
        found = client.pin(options.id)
    if options.json:
        return print_json(found)
    print(f"{found.id} is pinned")
    return 0


def unpin(options: Namespace) -> int:
    """Takes the mark away."""
    with Client() as client:
        found = client.unpin(options.id)
    if options.json:
        return print_json(found)
    print(f"{found.id} is not pinned")
    return 0


def list_aliases(options: Namespace) -> int:
    """Lists aliases."""
    with Client() as client:
        found = list(client.aliases())
    if options.json:
        return print_json(found)
    return print_table(["alias", "checkpoint", "since"], [[a.source, a.checkpoint_id, a.updated_at] for a in found])


def set_alias(options: Namespace) -> int:
    """Gives a checkpoint a name."""
    with Client() as client:
        found = client.set_alias(options.name, options.id)
    if options.json:
        return print_json(found)
    print(f"{found.source} is {found.checkpoint_id}")
    return 0


def remove_alias(options: Namespace) -> int:
    """Takes a name away."""
    with Client() as client:
        client.remove_alias(options.name)
    print(f"alias:{options.name} is gone")
    return 0
