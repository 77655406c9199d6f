"""`lco rollouts`."""

from api.parsers.base import Commands, add

_REWARDS = "api.commands.rewards"


def add_commands(commands: Commands) -> None:
    """Adds these commands."""
    rollouts = add(commands, "rollouts", f"{_REWARDS}:rollouts", "print completions that a training run keeps")
    rollouts.add_argument("id", metavar="RUN", help="a run, or a job with one run")
    rollouts.add_argument("--iteration", type=int, metavar="N", help="only of this iteration, counted from 0")
    rollouts.add_argument("--limit", type=int, default=8, help="at most this many, the newest first (default 8)")
    rollouts.add_argument("--json", action="store_true", help="as JSON, with every token's advantage")
