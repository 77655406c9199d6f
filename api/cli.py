"""The command line `lco`. This file only parses; what a command needs is imported when it runs: `--help` is quick.

Exit codes: 0 done, 1 the job failed or the API refused, 2 wrong usage or settings, 130 interrupted. `lco regress` has
codes of its own.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from api.parsers import (
    checkpoints,
    datasets,
    experiments,
    jobs,
    keys,
    maintenance,
    models,
    platform,
    projects,
    rewards,
    schedules,
    searches,
    storage,
    suites,
    tools,
    webhooks,
)
from api.parsers.base import Parser
from api.parsers.models import ANALYSES, STAGES, TOOLS

_GROUPS = (
    platform,
    maintenance,
    jobs,
    experiments,
    searches,
    keys,
    projects,
    models,
    datasets,
    checkpoints,
    rewards,
    storage,
    suites,
    schedules,
    webhooks,
    tools,
)
"""Modules that add commands, in the order of the help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and (module := _module_of(given)):
        importlib.import_module("api.commands.models").become(module, given[1:])
        return 0
    if given[:1] == ["analyze"] and given[1:2] and given[1] in ANALYSES:
        importlib.import_module("api.commands.models").become(ANALYSES[given[1]], given[2:])
        return 0
    options = make_parser().parse_args(given)
    module, _, function = options.run.partition(":")
    try:
        return int(getattr(importlib.import_module(module), function)(options))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `lco jobs | head`
        sys.stderr.close()
        return 0
    except Exception as error:
        message = friendly(error)
        if message is None:
            raise
        print(f"lco: {message}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1


def _module_of(given: Sequence[str]) -> str:
    """The module that a command becomes; empty for those that are carried out here."""
    command, *rest = given
    if command == "evaluate" and (not rest or any(a.startswith(("--b", "-h", "--h")) for a in rest)):
        return "evaluation.command"  # options; else a configuration file and a run directory
    if command == "sample" and rest and Path(rest[0]).is_dir():
        return "evaluation.sample_command"
    if command == "compare" and rest and not rest[0].startswith(("exp_", "run_", "ckpt_", "-")):
        return "evaluation.comparison"
    return STAGES.get(command) or TOOLS.get(command, ("",))[0]


def friendly(error: Exception) -> str | None:
    """What a person is told about an error of theirs or of the API; None for one of ours, which needs its traceback."""
    from pydantic import ValidationError

    from api.commands.usage import UsageError
    from api.transport import ApiFailure

    if isinstance(error, ApiFailure):
        if error.code == "unreachable":
            return (
                f"{error}; start the platform with `lco up`, or name another one in LCO_URL (`lco doctor` looks closer)"
            )
        fields = error.problem.get("errors", [])
        lines = [f"\n  {field['pointer'] or '/'}: {field['message']}" for field in fields]
        return f"{error}" if len(fields) < 2 else f"{error.code}{''.join(lines)}"
    if isinstance(error, ValidationError):
        return "; ".join(_setting_error(e) for e in error.errors())
    if isinstance(error, UsageError | TimeoutError):
        return str(error)
    return None


def _setting_error(error: Any) -> str:
    """What is wrong with one LCO_* variable."""
    name = f"LCO_{'_'.join(map(str, error['loc'])).upper()}"
    if error["type"] == "extra_forbidden":
        return f"{name} is no setting; docs/operations.md lists them"
    return f"{name}: {error['msg']}"


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = Parser(
        prog="lco",
        description="Training and evaluation platform for Logits Convex Optimization.",
        epilog="Settings come from LCO_* variables; LCO_DATA_DIR (default ./var) is where the platform lives.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for group in _GROUPS:
        group.add_commands(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
