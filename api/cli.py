"""The command line `lco`. This file only parses; what a command needs is imported when it runs: `--help` is quick.

Exit codes: 0 done, 1 the job failed or the API refused, 2 wrong usage or settings, 130 interrupted.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

STAGES = {
    "train": "lco.train",
    "sft": "lco.sft",
    "pairs": "lco.pairs",
    "dpo": "lco.dpo",
    "evaluate": "evaluation.run",
}
"""Command -> the module that a job of this kind runs, too."""
ANALYSES = {name: f"lco.analysis.{name}" for name in ("dynamics", "convexity", "theory")}
"""What `lco analyze` can do -> the module that does it."""
TOOLS = {
    "score": ("evaluation.scoring", "grade outputs that exist already, without the platform: lco score --help"),
    "report": ("evaluation.report", "write an evaluation as one HTML file: RUN_DIR"),
}
"""Command -> the module that does it by itself, and its help."""
_PLATFORM = "api.commands.platform"
_JOBS = "api.commands.jobs"
_KEYS = "api.commands.keys"
_CHECKPOINTS = "api.commands.checkpoints"
_DATASETS = "api.commands.datasets"
_MODELS = "api.commands.models"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and (module := _module_of(given)):
        importlib.import_module(_MODELS).become(module, given[1:])
        return 0
    if given[:1] == ["analyze"] and given[1:2] and given[1] in ANALYSES:
        importlib.import_module(_MODELS).become(ANALYSES[given[1]], given[2:])
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
    if command == "compare" and rest and not rest[0].startswith(("exp_", "-")):
        return "evaluation.comparison"
    return STAGES.get(command) or TOOLS.get(command, ("",))[0]


def friendly(error: Exception) -> str | None:
    """What a person is told about an error of theirs or of the API; None for one of ours, which needs its traceback."""
    from pydantic import ValidationError

    from api.commands.usage import UsageError
    from api.transport import ApiFailure

    if isinstance(error, ApiFailure):
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
    parser = argparse.ArgumentParser(
        prog="lco",
        description="Training and evaluation platform for Logits Convex Optimization.",
        epilog="Settings come from LCO_* variables; LCO_DATA_DIR (default ./var) is where the platform lives.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_platform(commands)
    _add_jobs(commands)
    _add_keys(commands)
    _add_models(commands)
    _add_datasets(commands)
    _add_checkpoints(commands)
    return parser


_Commands = argparse._SubParsersAction  # argparse has no public name for it


def _add(commands: "_Commands[argparse.ArgumentParser]", name: str, run: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=run)
    return parser


def _add_platform(commands: "_Commands[argparse.ArgumentParser]") -> None:
    up = _add(commands, "up", f"{_PLATFORM}:up", "start the platform here: migrate, API and supervisor, until Ctrl-C")
    up.add_argument("--port", type=int, help="port of the API; 0 takes a free one")
    up.add_argument("--slots", type=int, help="runs at a time")
    up.add_argument("--no-worker", action="store_true", help="the API alone")
    up.add_argument("--celery", action="store_true", help="with LCO_BROKER_URL: a Celery worker and the beat here, too")
    _add(commands, "api", f"{_PLATFORM}:api", "run the API alone, in this process")
    _add(
        commands,
        "migrate",
        f"{_PLATFORM}:migrate_database",
        "bring the database to the newest migration, and make the admin key where there is none",
    )
    _add(commands, "login-link", f"{_PLATFORM}:login_link", "print a link that opens the dashboard, once")


def _add_jobs(commands: "_Commands[argparse.ArgumentParser]") -> None:
    submit = _add(commands, "submit", f"{_JOBS}:submit", "submit a job or an experiment")
    submit.add_argument("file", metavar="FILE", help="TOML or JSON; one with `jobs` is an experiment")
    submit.add_argument("--seeds", metavar="0,1", help="train seeds instead of those in the file")
    submit.add_argument("--no-reuse", action="store_true", help="of an experiment: run every stage, also what is done")
    submit.add_argument("--wait", action="store_true", help="follow it; exit code 1 unless it succeeds")
    for name, text in (
        ("jobs", "list jobs"),
        ("experiments", "list experiments"),
        ("runs", "list runs"),
        ("workers", "list workers"),
    ):
        listing = _add(commands, name, f"{_JOBS}:list_{name}", text)
        listing.add_argument("--json", action="store_true", help="as JSON")
        listing.add_argument("--limit", type=int, default=20, help="at most this many (default 20)")
        if name in ("jobs", "runs"):
            listing.add_argument("--experiment", metavar="ID", help="only those of this experiment")
    for name, text in (
        ("show", "print an object as JSON"),
        ("watch", "follow a job, an experiment or a run to its end"),
        ("cancel", "cancel a job, an experiment or a run"),
        ("pause", "pause it at its next checkpoint"),
        ("resume", "resume it from its newest checkpoint"),
    ):
        _add(commands, name, f"{_JOBS}:{name}", text).add_argument("id", metavar="ID")
    clone = _add(commands, "clone", f"{_JOBS}:clone", "submit a changed copy of an experiment")
    clone.add_argument("id", metavar="ID")
    clone.add_argument(
        "--patch", metavar="FILE", help="JSON or TOML with the changes: a JSON Merge Patch; jobs by name"
    )
    diff = _add(commands, "diff", f"{_JOBS}:diff", "show what differs between two experiments' documents")
    diff.add_argument("before", metavar="ID")
    diff.add_argument("after", metavar="ID")
    diff.add_argument("--json", action="store_true", help="as JSON")
    logs = _add(commands, "logs", f"{_JOBS}:logs", "print the output of a run")
    logs.add_argument("id", metavar="ID", help="a run, or a job with one run")
    logs.add_argument("-f", "--follow", action="store_true", help="until the run ends")
    compare = _add(
        commands,
        "compare",
        f"{_JOBS}:compare",
        "compare an experiment's methods with one of them, or two evaluations' run directories problem by problem",
    )
    compare.add_argument("id", metavar="EXPERIMENT", help="or BASE_RUN_DIR OTHER_RUN_DIR, which need no platform")
    compare.add_argument("--baseline", metavar="METHOD", required=True, help="the method to compare with")
    compare.add_argument("--metric", metavar="NAME", help="only this metric")
    compare.add_argument("--json", action="store_true", help="as JSON")
    results = _add(
        commands, "results", f"{_JOBS}:results", "print the table of results: mean and spread over train seeds"
    )
    results.add_argument("--experiment", metavar="ID", help="of this experiment (default: the newest)")
    results.add_argument("--job", metavar="ID", help="of this evaluation job")
    results.add_argument("--json", action="store_true", help="as JSON")
    results.add_argument("--format", choices=("csv", "markdown", "latex", "html"), help="of an experiment, as text")
    results.add_argument("--metric", metavar="NAME", help="with --format: only this metric")
    results.add_argument("--baseline", metavar="METHOD", help="with --format: mark what differs significantly from it")


def _add_keys(commands: "_Commands[argparse.ArgumentParser]") -> None:
    keys = commands.add_parser("keys", help="create, list and revoke API keys").add_subparsers(
        required=True, metavar="COMMAND"
    )
    create = _add(keys, "create", f"{_KEYS}:create", "make an API key and print it, once")
    create.add_argument("name", metavar="NAME", help="what it is for")
    create.add_argument("--scope", choices=("read", "write", "admin"), default="read")
    create.add_argument("--days", type=int, help="days until it expires (default: never)")
    _add(keys, "list", f"{_KEYS}:list_keys", "list API keys").add_argument("--json", action="store_true")
    _add(keys, "revoke", f"{_KEYS}:revoke", "end an API key").add_argument("id", metavar="ID")


def _add_models(commands: "_Commands[argparse.ArgumentParser]") -> None:
    for name, module in STAGES.items():
        # Listed for the help alone: main() hands their arguments to the module, which has a parser of its own.
        text = f"run one stage without the platform: python -m {module} CONFIG RUN_DIR"
        if name == "evaluate":
            text = "evaluate a model without the platform: CHECKPOINT --benchmarks NAME,..., or CONFIG RUN_DIR"
        commands.add_parser(name, help=text)
    analyses = commands.add_parser("analyze", help="the paper's analyses: figures and numbers, without the platform")
    known = analyses.add_subparsers(required=True, metavar="ANALYSIS")
    for name, module in ANALYSES.items():
        known.add_parser(name, help=f"python -m {module} OUT_DIR")
    for name, (_, text) in TOOLS.items():
        commands.add_parser(name, help=text)
    models = commands.add_parser("models", help="import and list models").add_subparsers(
        required=True, metavar="COMMAND"
    )
    importing = _add(models, "import", f"{_MODELS}:import_model", "make a model available as model:NAME")
    importing.add_argument("name", metavar="NAME")
    importing.add_argument("--gguf", metavar="PATH", help="a GGUF file of your own")
    _add(models, "list", f"{_MODELS}:list_models", "list imported models").add_argument("--json", action="store_true")


def _add_datasets(commands: "_Commands[argparse.ArgumentParser]") -> None:
    datasets = commands.add_parser("datasets", help="upload, list and preview data sets").add_subparsers(
        required=True, metavar="COMMAND"
    )
    upload = _add(datasets, "upload", f"{_DATASETS}:upload", "make rows available as dataset:NAME")
    upload.add_argument("name", metavar="NAME")
    upload.add_argument("file", metavar="FILE", help="JSON Lines, CSV or Parquet, by its suffix")
    upload.add_argument(
        "--text-fields", metavar="a,b", type=lambda text: text.split(","), default=[], help="must hold text in each row"
    )
    upload.add_argument("--json", action="store_true", help="as JSON")
    listing = _add(datasets, "list", f"{_DATASETS}:list_datasets", "list versions of data sets")
    listing.add_argument("--name", metavar="NAME", help="only of this data set")
    listing.add_argument("--limit", type=int, default=20, help="at most this many (default 20)")
    listing.add_argument("--json", action="store_true", help="as JSON")
    show = _add(datasets, "show", f"{_DATASETS}:show", "print a version of a data set as JSON")
    preview = _add(datasets, "preview", f"{_DATASETS}:preview", "print rows of a data set")
    for command in (show, preview):
        command.add_argument("dataset", metavar="NAME[@VERSION]", help="or an id")
    preview.add_argument("--limit", type=int, default=10, help="at most this many (default 10)")
    preview.add_argument("--after", type=int, default=0, metavar="N", help="begin after row N")
    preview.add_argument("--json", action="store_true", help="as JSON")


def _add_checkpoints(commands: "_Commands[argparse.ArgumentParser]") -> None:
    checkpoints = commands.add_parser("checkpoints", help="list and pin checkpoints").add_subparsers(
        required=True, metavar="COMMAND"
    )
    listing = _add(checkpoints, "list", f"{_CHECKPOINTS}:list_checkpoints", "list checkpoints")
    listing.add_argument("--of-run", metavar="ID", help="only those of this run")
    listing.add_argument("--job", metavar="ID", help="only those of this job")
    listing.add_argument("--kind", choices=("state", "model"), help="resumable states, or published models")
    listing.add_argument("--limit", type=int, default=20, help="at most this many (default 20)")
    listing.add_argument("--json", action="store_true", help="as JSON")
    for name, text in (("pin", "mark a checkpoint as one to keep"), ("unpin", "take that mark away")):
        _add(checkpoints, name, f"{_CHECKPOINTS}:{name}", text).add_argument("id", metavar="ID")
    aliases = commands.add_parser("alias", help="name checkpoints, for jobs that take alias:NAME").add_subparsers(
        required=True, metavar="COMMAND"
    )
    setting = _add(aliases, "set", f"{_CHECKPOINTS}:set_alias", "give a published model a name")
    setting.add_argument("name", metavar="NAME")
    setting.add_argument("id", metavar="CHECKPOINT")
    _add(aliases, "list", f"{_CHECKPOINTS}:list_aliases", "list aliases").add_argument("--json", action="store_true")
    _add(aliases, "remove", f"{_CHECKPOINTS}:remove_alias", "take a name away").add_argument("name", metavar="NAME")


if __name__ == "__main__":
    sys.exit(main())
