"""`lco doctor`, `completion`, `benchmarks` and `scores`."""

from api.parsers.base import Commands, add

_LISTS = "api.commands.lists"


def add_commands(commands: Commands) -> None:
    """Adds these commands."""
    doctor = add(commands, "doctor", "api.commands.doctor:doctor", "check this installation, and say what to mend")
    doctor.add_argument("--json", action="store_true", help="as JSON")
    completion = add(
        commands,
        "completion",
        "api.commands.completion:completion",
        'print what makes a shell complete commands and options: eval "$(lco completion bash)"',
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    benchmarks = add(commands, "benchmarks", f"{_LISTS}:list_benchmarks", "list the benchmarks that can be evaluated")
    benchmarks.add_argument("--json", action="store_true", help="as JSON, with the schema of each configuration")
    scores = add(commands, "scores", f"{_LISTS}:list_scores", "list the outputs that were graded, with their figures")
    scores.add_argument("--limit", type=int, default=20, help="at most this many (default 20)")
    scores.add_argument("--json", action="store_true", help="as JSON")
