"""`lco checkpoints` and `lco alias`."""

from api.parsers.base import Commands, add, group

_CHECKPOINTS = "api.commands.checkpoints"


def add_commands(commands: Commands) -> None:
    """Adds these commands."""
    checkpoints = group(commands, "checkpoints", "list and pin checkpoints")
    listing = add(checkpoints, "list", f"{_CHECKPOINTS}:list_checkpoints", "list checkpoints")
    listing.add_argument("--of-run", metavar="ID", help="only those of this run")
    listing.add_argument("--job", metavar="ID", help="only those of this job")
    listing.add_argument("--kind", choices=("state", "model"), help="resumable states, or published models")
    listing.add_argument("--limit", type=int, default=20, help="at most this many (default 20)")
    listing.add_argument("--json", action="store_true", help="as JSON")
    for name, text in (("pin", "mark a checkpoint as one to keep"), ("unpin", "take that mark away")):
        command = add(checkpoints, name, f"{_CHECKPOINTS}:{name}", text)
        command.add_argument("id", metavar="ID")
        command.add_argument("--json", action="store_true", help="as JSON")
    aliases = group(commands, "alias", "name checkpoints, for jobs that take alias:NAME")
    setting = add(aliases, "set", f"{_CHECKPOINTS}:set_alias", "give a published model a name")
    setting.add_argument("name", metavar="NAME")
    setting.add_argument("id", metavar="CHECKPOINT")
    setting.add_argument("--json", action="store_true", help="as JSON")
    add(aliases, "list", f"{_CHECKPOINTS}:list_aliases", "list aliases").add_argument("--json", action="store_true")
    add(aliases, "remove", f"{_CHECKPOINTS}:remove_alias", "take a name away").add_argument("name", metavar="NAME")
