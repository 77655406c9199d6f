"""What every group of commands is added with."""

import argparse
import difflib
import re
from typing import NoReturn, TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where commands are added; argparse has no public name for it."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors say what was probably meant."""

    def error(self, message: str) -> NoReturn:
        """Ends the process with 2 and a message."""
        self.exit(2, f"{self.prog}: {suggestion(self, message) or message}\n`{self.prog} --help` lists what there is\n")


_CHOICE = re.compile(r"argument .*: invalid choice: '(?P<given>.*?)' \(choose from (?P<known>.*)\)", re.DOTALL)
_UNKNOWN = re.compile(r"unrecognized arguments: (?P<given>-\S+)")


def suggestion(parser: argparse.ArgumentParser, message: str) -> str:
    """What a person is told about a word that argparse does not know; empty where its own message says it all."""
    if match := _CHOICE.fullmatch(message):
        known = [word.strip(" '") for word in match["known"].split(",")]
        near = difflib.get_close_matches(match["given"], known, 3, 0.6)
        meant = f"did you mean {' or '.join(near)}?" if near else f"it is one of {', '.join(known)}"
        return f"there is no {match['given']!r}; {meant}"
    if match := _UNKNOWN.match(message):
        near = difflib.get_close_matches(match["given"], sorted(_option_strings(parser)), 3, 0.6)
        return f"there is no option {match['given']!r} here" + (f"; did you mean {' or '.join(near)}?" if near else "")
    return ""


def _option_strings(parser: argparse.ArgumentParser) -> set[str]:
    """Every option below a parser: argparse tells of unknown ones at the top."""
    found: set[str] = set()
    for action in parser._actions:
        found.update(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            found.update(*(_option_strings(child) for child in action.choices.values()))
    return found


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
