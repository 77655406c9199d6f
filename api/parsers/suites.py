"""`lco suites` and `lco regress`."""

from api.parsers.base import Commands, add, group

_SUITES = "api.commands.suites"


def add_commands(commands: Commands) -> None:
    """Adds these commands."""
    suites = group(commands, "suites", "benchmarks with a baseline and gates, and their verdicts on checkpoints")
    create = add(suites, "create", f"{_SUITES}:create", "create a suite")
    create.add_argument("file", metavar="FILE", help="TOML or JSON")
    listing = add(suites, "list", f"{_SUITES}:list_suites", "list suites in use")
    listing.add_argument("--archived", action="store_true", help="those out of use instead")
    show = add(suites, "show", f"{_SUITES}:show", "show the gates of a suite, and how its metrics went")
    show.add_argument("suite", metavar="SUITE", help="name or id")
    update = add(suites, "update", f"{_SUITES}:update", "change a suite; a new version where its plan changes")
    update.add_argument("suite", metavar="SUITE", help="name or id")
    update.add_argument("file", metavar="FILE", help="the changes, TOML or JSON: a JSON Merge Patch of its spec")
    for name, text in (("archive", "take a suite out of use"), ("restore", "take an archived suite into use again")):
        add(suites, name, f"{_SUITES}:{name}", text).add_argument("suite", metavar="SUITE", help="name or id")
    verdicts = add(suites, "verdicts", f"{_SUITES}:list_verdicts", "list verdicts")
    verdicts.add_argument("suite", metavar="SUITE", nargs="?", help="name or id (default: of every suite)")
    verdicts.add_argument("--outcome", choices=("pass", "regressed", "improved", "inconclusive"), help="only these")
    for command in (listing, verdicts):
        command.add_argument("--limit", type=int, default=20, help="at most this many (default 20)")
    verdict = add(suites, "verdict", f"{_SUITES}:show_verdict", "show the numbers of a verdict")
    retry = add(suites, "retry", f"{_SUITES}:retry", "try a verdict that ended in an error again")
    for command in (verdict, retry):
        command.add_argument("id", metavar="VERDICT")
    regress = add(
        commands, "regress", f"{_SUITES}:regress", "judge a checkpoint: exit code 0 passed, 1 regressed, 3 inconclusive"
    )
    regress.add_argument("checkpoint", metavar="CHECKPOINT", help="ckpt_... or alias:NAME")
    regress.add_argument("--suite", metavar="SUITE", required=True, help="name or id")
    regress.add_argument("--no-wait", action="store_true", help="only ask for the verdict, and print its id")
    regress.add_argument("--timeout", type=float, metavar="SECONDS", help="wait no longer; then exit code 4")
    regress.add_argument("--cause", metavar="TEXT", default="manual", help="what asks, to be shown with the verdict")
    for command in (create, listing, show, update, verdicts, verdict, regress):
        command.add_argument("--json", action="store_true", help="as JSON")
