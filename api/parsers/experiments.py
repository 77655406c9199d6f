"""`lco experiments`: the list, and what can be said of a document before it is submitted."""

import argparse

from api.parsers.base import Commands, add

_EXPERIMENTS = "api.commands.experiments"
DEVICES = ("h100", "h200", "a100")
"""Those of `store.pricing`, which a parser does not load; a test compares them."""


def add_commands(commands: Commands) -> None:
    """Adds these commands."""
    experiments = add(
        commands, "experiments", "api.commands.jobs:list_experiments", "list experiments, check documents"
    )
    _list_options(experiments)
    more = experiments.add_subparsers(metavar="COMMAND")
    _list_options(add(more, "list", "api.commands.jobs:list_experiments", "list experiments"))
    check = add(
        more, "check", f"{_EXPERIMENTS}:check", "validate documents and price them, without platform, network or GPU"
    )
    check.add_argument(
        "paths", metavar="PATH", nargs="*", help="files, or directories of them (default: experiments/paper)"
    )
    check.add_argument("--device", choices=DEVICES, default="h100", help="what hours and memory are told of")
    check.add_argument("--jobs", action="store_true", help="every job, not only sums")
    check.add_argument("--json", action="store_true", help="as JSON")


def _list_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--limit", type=int, default=20, help="at most this many (default 20)")
