"""Submitting, listing, following and steering jobs; results."""

from api.parsers.base import Commands, add

_JOBS = "api.commands.jobs"


def add_commands(commands: Commands) -> None:
    """Adds these commands."""
    submit = add(commands, "submit", f"{_JOBS}:submit", "submit a job or an experiment")
    submit.add_argument("file", metavar="FILE", help="TOML or JSON; one with `jobs` is an experiment")
    submit.add_argument("--seeds", metavar="0,1", help="train seeds instead of those in the file")
    submit.add_argument("--no-reuse", action="store_true", help="of an experiment: run every stage, also what is done")
    submit.add_argument("--dry-run", action="store_true", help="say what it would do and cost, and submit nothing")
    submit.add_argument("--wait", action="store_true", help="follow it; exit code 1 unless it succeeds")
    submit.add_argument("--json", action="store_true", help="print the new object, not its id; with --wait at its end")
    for name, text in (
        ("jobs", "list jobs"),
        ("runs", "list runs"),
        ("workers", "list workers"),
    ):
        listing = add(commands, name, f"{_JOBS}:list_{name}", text)
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
        ("retry", "end the back-off before its next attempt"),
    ):
        command = add(commands, name, f"{_JOBS}:{name}", text)
        command.add_argument("id", metavar="ID")
        if name not in ("show", "watch"):
            command.add_argument("--json", action="store_true", help="as JSON")
    check = add(commands, "check", "api.commands.checking:check", "check an experiment; tells what it would make")
    check.add_argument("file", metavar="FILE", help="TOML or JSON")
    check.add_argument("--of", metavar="EXP", help="the file is a patch, as `lco clone EXP --patch FILE` takes it")
    check.add_argument("--json", action="store_true", help="as JSON")
    clone = add(commands, "clone", f"{_JOBS}:clone", "submit a changed copy of an experiment")
    clone.add_argument("id", metavar="ID")
    clone.add_argument(
        "--patch", metavar="FILE", help="JSON or TOML with the changes: a JSON Merge Patch; jobs by name"
    )
    clone.add_argument("--json", action="store_true", help="as JSON")
    diff = add(commands, "diff", f"{_JOBS}:diff", "show what differs between two experiments' documents")
    diff.add_argument("before", metavar="ID")
    diff.add_argument("after", metavar="ID")
    diff.add_argument("--json", action="store_true", help="as JSON")
    logs = add(commands, "logs", f"{_JOBS}:logs", "print the output of a run")
    logs.add_argument("id", metavar="ID", help="a run, or a job with one run")
    logs.add_argument("-f", "--follow", action="store_true", help="until the run ends")
    compare = add(
        commands,
        "compare",
        f"{_JOBS}:compare",
        "compare an experiment's methods with one of them, runs or checkpoints side by side, or two evaluations' run "
        "directories problem by problem",
    )
    compare.add_argument(
        "ids",
        metavar="ID",
        nargs="+",
        help="an experiment, with --baseline; 2 to 8 runs or checkpoints; or "
        "BASE_RUN_DIR OTHER_RUN_DIR, which need no platform",
    )
    compare.add_argument("--baseline", metavar="METHOD", help="the method of the experiment to compare with")
    compare.add_argument("--metric", metavar="NAME", help="only this metric")
    compare.add_argument("--json", action="store_true", help="as JSON")
    results = add(
        commands, "results", f"{_JOBS}:results", "print the table of results: mean and spread over train seeds"
    )
    results.add_argument("--experiment", metavar="ID", help="of this experiment (default: the newest)")
    results.add_argument("--job", metavar="ID", help="of this evaluation job")
    results.add_argument("--json", action="store_true", help="as JSON")
    results.add_argument("--format", choices=("csv", "markdown", "latex", "html"), help="of an experiment, as text")
    results.add_argument("--metric", metavar="NAME", help="with --format: only this metric")
    results.add_argument("--baseline", metavar="METHOD", help="with --format: mark what differs significantly from it")
