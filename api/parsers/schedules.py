"""`lco schedules`."""

from api.parsers.base import Commands, add, group

_SCHEDULES = "api.commands.schedules"


def add_commands(commands: Commands) -> None:
    """Adds these commands."""
    schedules = group(commands, "schedules", "do things at certain times, or whenever a model appears")
    create = add(schedules, "create", f"{_SCHEDULES}:create", "add a schedule from a file")
    create.add_argument("file", metavar="FILE", help="a schedule, or the job or experiment to submit; .toml or .json")
    create.add_argument("--cron", metavar="EXPRESSION", help="when FILE is to be submitted, such as '30 2 * * *'")
    create.add_argument("--time-zone", metavar="ZONE", help="whose clock (default: UTC)")
    create.add_argument("--name", metavar="NAME", help="name of the schedule (default: that in FILE)")
    listing = add(schedules, "list", f"{_SCHEDULES}:list_schedules", "list schedules")
    listing.add_argument("--json", action="store_true", help="as JSON")
    fires = add(schedules, "fires", f"{_SCHEDULES}:fires", "list what a schedule did")
    fires.add_argument("id", metavar="ID")
    fires.add_argument("--limit", type=int, default=20, help="at most this many (default 20)")
    fires.add_argument("--json", action="store_true", help="as JSON")
    for name, text in (
        ("suspend", "let a schedule rest"),
        ("resume", "let a schedule go on"),
        ("trigger", "fire a schedule now"),
        ("remove", "remove a schedule; what it submitted stays"),
    ):
        add(schedules, name, f"{_SCHEDULES}:{name}", text).add_argument("id", metavar="ID")
