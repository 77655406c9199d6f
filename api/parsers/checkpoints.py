"""`lco checkpoints` and `lco alias`."""

from api.parsers.base import Commands, add, group

_CHECKPOINTS = "api.commands.checkpoints"


def add_commands(commands: Commands) -> None:
    """Adds these commands."""
    checkpoints = group(commands, "checkpoints", "list, keep, export and delete checkpoints")
    listing = add(checkpoints, "list", f"{_CHECKPOINTS}:list_checkpoints", "list checkpoints")
    listing.add_argument("--of-run", metavar="ID", help="only those of this run")
    listing.add_argument("--job", metavar="ID", help="only those of this job")
    listing.add_argument("--kind", choices=("state", "model"), help="resumable states, or published models")
    listing.add_argument("--pinned", action="store_true", help="only those that are pinned")
    listing.add_argument("--deleted", action="store_true", help="those whose files are no more")
    listing.add_argument("--limit", type=int, default=20, help="at most this many (default 20)")
    listing.add_argument("--json", action="store_true", help="as JSON")
    for name, text in (("pin", "mark a checkpoint as one to keep"), ("unpin", "take that mark away")):
        command = add(checkpoints, name, f"{_CHECKPOINTS}:{name}", text)
        command.add_argument("id", metavar="ID")
        command.add_argument("--json", action="store_true", help="as JSON")
    add(checkpoints, "show", f"{_CHECKPOINTS}:show", "print a checkpoint as JSON").add_argument("id", metavar="ID")
    expire = add(checkpoints, "expire", f"{_CHECKPOINTS}:expire", "let a checkpoint end by itself")
    expire.add_argument("id", metavar="ID")
    when = expire.add_mutually_exclusive_group(required=True)
    when.add_argument("--days", type=float, help="in so many days")
    when.add_argument("--never", action="store_true", help="not at all")
    delete = add(checkpoints, "delete", f"{_CHECKPOINTS}:delete", "give up a checkpoint's files")
    delete.add_argument("id", metavar="ID")
    lineage = add(checkpoints, "lineage", f"{_CHECKPOINTS}:lineage", "show where a checkpoint comes from")
    lineage.add_argument("id", metavar="ID")
    lineage.add_argument("--json", action="store_true", help="as JSON")
    export = add(checkpoints, "export", f"{_CHECKPOINTS}:export", "download a published model with its model card")
    export.add_argument("id", metavar="ID")
    export.add_argument("directory", metavar="DIR", help="a new directory")
    export.add_argument(
        "--form", choices=("merged", "adapter"), default="merged", help="the whole model, or its adapter alone"
    )
    aliases = group(commands, "alias", "name checkpoints, for jobs that take alias:NAME")
    setting = add(aliases, "set", f"{_CHECKPOINTS}:set_alias", "give a published model a name")
    setting.add_argument("name", metavar="NAME")
    setting.add_argument("id", metavar="CHECKPOINT")
    setting.add_argument("--json", action="store_true", help="as JSON")
    add(aliases, "list", f"{_CHECKPOINTS}:list_aliases", "list aliases").add_argument("--json", action="store_true")
    add(aliases, "remove", f"{_CHECKPOINTS}:remove_alias", "take a name away").add_argument("name", metavar="NAME")
