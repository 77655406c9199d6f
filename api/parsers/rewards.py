"""`lco rollouts`, `lco sample` and `lco rewards`."""

from api.parsers.base import Commands, add, group
from evaluation.sample_options import add_options

_REWARDS = "api.commands.rewards"


def add_commands(commands: Commands) -> None:
    """Adds these commands."""
    rollouts = add(commands, "rollouts", f"{_REWARDS}:rollouts", "print completions that a training run keeps")
    rollouts.add_argument("id", metavar="RUN", help="a run, or a job with one run")
    rollouts.add_argument("--iteration", type=int, metavar="N", help="only of this iteration, counted from 0")
    rollouts.add_argument("--limit", type=int, default=8, help="at most this many, the newest first (default 8)")
    rollouts.add_argument("--json", action="store_true", help="as JSON, with every token's advantage")
    text = "print what one to four checkpoints say to a prompt; a directory needs no platform"
    sample = add(commands, "sample", f"{_REWARDS}:sample", text)
    add_options(sample)
    sample.add_argument("--gpus", type=int, default=0, help="GPUs of the worker that samples (default 0)")
    sample.add_argument("--no-wait", action="store_true", help="print the id and its page's path alone")
    rewards = group(commands, "rewards", "list and try rewards")
    add(rewards, "list", f"{_REWARDS}:list_rewards", "list the kinds of reward").add_argument(
        "--json", action="store_true", help="as JSON"
    )
    check = add(rewards, "check", f"{_REWARDS}:check", "try a reward on completions")
    check.add_argument("file", metavar="FILE", help="TOML or JSON: a training job, or a reward alone")
    check.add_argument("--samples", metavar="FILE", help="JSON Lines of prompt, completion and, where known, reference")
    check.add_argument("--json", action="store_true", help="as JSON")
