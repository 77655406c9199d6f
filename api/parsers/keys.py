"""`lco keys`."""

from api.parsers.base import Commands, add, group

_KEYS = "api.commands.keys"


def add_commands(commands: Commands) -> None:
    """Adds these commands."""
    keys = group(commands, "keys", "create, list and revoke API keys")
    create = add(keys, "create", f"{_KEYS}:create", "make an API key and print it, once")
    create.add_argument("name", metavar="NAME", help="what it is for")
    create.add_argument("--scope", choices=("read", "write", "admin"), default="read")
    create.add_argument("--project", metavar="PROJECT", help="name or id (default: the project of the key in use)")
    create.add_argument("--days", type=int, help="days until it expires (default: never)")
    create.add_argument("--json", action="store_true", help="as JSON")
    add(keys, "list", f"{_KEYS}:list_keys", "list API keys").add_argument("--json", action="store_true")
    revoke = add(keys, "revoke", f"{_KEYS}:revoke", "end an API key")
    revoke.add_argument("id", metavar="ID")
    revoke.add_argument("--json", action="store_true", help="as JSON")
