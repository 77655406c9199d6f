"""`lco gc`, `lco usage` and `lco delete`."""

from api.parsers.base import Commands, add

_STORAGE = "api.commands.storage"


def add_commands(commands: Commands) -> None:
    """Adds these commands."""
    gc = add(commands, "gc", f"{_STORAGE}:collect", "remove what expired and what nothing needs")
    gc.add_argument("--dry-run", action="store_true", help="only say what would go")
    gc.add_argument("--json", action="store_true", help="as JSON")
    usage = add(commands, "usage", f"{_STORAGE}:usage", "show what takes how much room")
    usage.add_argument("--json", action="store_true", help="as JSON")
    delete = add(commands, "delete", f"{_STORAGE}:delete", "delete ended jobs, runs or experiments and all they left")
    delete.add_argument("ids", metavar="ID", nargs="+")
