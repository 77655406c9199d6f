"""`lco checkpoints` and `lco alias`."""

import itertools
from argparse import Namespace
from pathlib import Path

from api.client import Client
from api.commands.tables import print_json, print_table, shown
from api.figures import size_text


def list_checkpoints(options: Namespace) -> int:
    """Lists checkpoints."""
    filters: dict[str, object] = {"run": options.of_run, "job": options.job, "kind": options.kind}
    if options.pinned:
        filters["pinned"] = "true"
    if options.deleted:
        filters["deleted"] = "true"
    with Client() as client:
        found = list(itertools.islice(client.checkpoints(**filters), options.limit))
    if options.json:
        return print_json(found)
    rows = [
        [
            item.id,
            item.kind,
            item.step,
            size_text(item.size_bytes),
            ", ".join(item.aliases),
            "pinned" if item.is_pinned else "",
            item.expires_at,
            item.created_at,
        ]
        for item in found
    ]
    return print_table(["id", "kind", "step", "size", "aliases", "pinned", "expires", "created"], rows)


def show(options: Namespace) -> int:
    """Prints a checkpoint as JSON."""
    with Client() as client:
        return print_json(client.show(options.id))


def expire(options: Namespace) -> int:
    """Lets a checkpoint end by itself, or not."""
    with Client() as client:
        found = client.expire(options.id, None if options.never else options.days)
    print(f"{found.id} " + ("never expires" if found.expires_at is None else f"expires {shown(found.expires_at)}"))
    return 0


def delete(options: Namespace) -> int:
    """Gives up a checkpoint's files."""
    with Client() as client:
        client.delete(options.id)
    print(f"{options.id} is deleted")
    return 0


def lineage(options: Namespace) -> int:
    """Shows where a checkpoint comes from, and what was made of it."""
    with Client() as client:
        found = client.lineage(options.id)
    if options.json:
        return print_json(found)
    names = {node.id: node for node in found.nodes}
    rows = []
    for node in found.nodes:
        sources = [f"{edge.role} {names[edge.source].name}" for edge in found.edges if edge.target == node.id]
        seed = "" if node.seed is None else f", seed {node.seed}"
        what = f"{node.kind or node.type} {node.name}{seed}"
        mark = "this" if node.id == found.subject else "deleted" if node.is_deleted else ""
        rows.append([what, mark, ", ".join(sources), node.checkpoint_id or node.id, node.sha256[:16]])
    return print_table(["what", "", "made from", "id", "sha256"], rows)


def export(options: Namespace) -> int:
    """Downloads a published model."""
    with Client() as client:
        names = client.export(options.id, Path(options.directory), form=options.form)
    print(f"{options.directory}: {len(names)} files, each with its hash in SHA256SUMS")
    return 0


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
