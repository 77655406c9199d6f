"""`lco search`."""

from api.parsers.base import Commands, add, group


def add_commands(commands: Commands) -> None:
    """Adds these commands."""
    searches = group(commands, "search", "look at the trials of a search")
    show = add(searches, "show", "api.commands.searches:show", "print the trials of an experiment's search")
    show.add_argument("id", metavar="EXPERIMENT")
    show.add_argument("--json", action="store_true", help="as JSON")
