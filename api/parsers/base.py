"""What every group of commands is added with."""

import argparse
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where commands are added; argparse has no public name for it."""


def add(commands: Commands, name: str, run: str, text: str) -> argparse.ArgumentParser:
    """A command.

    Args:
        run: `module:function` that carries it out with the parsed options; imported only then.
        text: what it does, for the help; begins with a lower-case letter and ends without a full stop.
    """
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=run)
    return parser


def group(commands: Commands, name: str, text: str, metavar: str = "COMMAND") -> Commands:
    """A command with commands of its own: `lco keys list`."""
    return commands.add_parser(name, help=text).add_subparsers(required=True, metavar=metavar)
