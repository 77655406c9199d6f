"""`lco keys`."""

from argparse import Namespace

from api.client import Client
from api.commands.projects import find
from api.commands.tables import print_json, print_table


def create(options: Namespace) -> int:
    """Makes an API key."""
    with Client() as client:
        project = find(client, options.project).id if options.project else None
        created = client.create_key(options.name, options.scope, options.days, project)
    if options.json:
        return print_json(created)
    print(created.key)
    return 0


def list_keys(options: Namespace) -> int:
    """Lists API keys."""
    with Client() as client:
        keys = list(client.api_keys())
        names = {project.id: project.name for project in client.projects()}
    if options.json:
        return print_json(keys)
    rows = [
        [key.id, key.name, names[key.project_id], key.scope, "revoked" if key.revoked_at else "active", key.created_at]
        for key in keys
    ]
    return print_table(["id", "name", "project", "scope", "state", "created"], rows)


def revoke(options: Namespace) -> int:
    """Ends an API key."""
    with Client() as client:
        revoked = client.revoke_key(options.id)
    if options.json:
        return print_json(revoked)
    print(f"{revoked.id} is revoked")
    return 0
