"""What `lco sample` understands, with the platform and without: options, and completions as text. Quick to import."""

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class Sampled(Protocol):
    """One completion, wherever it comes from."""

    @property
    def policy(self) -> int:
        """Which of the policies, from 0."""

    @property
    def prompt(self) -> int:
        """Which of the prompts, from 0."""

    @property
    def decoding(self) -> str:
        """`greedy`, or `tT-pP`."""

    @property
    def eval_seed(self) -> int | None:
        """None for greedy decoding."""

    @property
    def completion(self) -> str:
        """The text."""

    @property
    def logprobs(self) -> Sequence[float | None]:
        """Of each token."""

    @property
    def is_truncated(self) -> bool:
        """Whether it was cut."""

    @property
    def error(self) -> str | None:
        """Why there is none."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command line asks for, as fields of a `SampleConfig`."""

    policies: list[str]
    fields: dict[str, Any]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options to a parser."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="ckpt_..., alias:NAME, job_..., model:NAME, or a path")
    parser.add_argument(
        "--against", metavar="OTHER", action="append", default=[], help="another one beside it; up to three times"
    )
    parser.add_argument("--prompt", metavar="TEXT", action="append", default=[], help="what is asked; may be repeated")
    parser.add_argument("--prompts", metavar="FILE", type=Path, help="a prompt a line, or JSON Lines with `prompt`")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="0 for greedy (default 1)")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="nucleus (default 1)")
    parser.add_argument("--seeds", default="0", metavar="0,1", help="a completion for each (default 0)")
    parser.add_argument("--max-tokens", type=int, default=256, metavar="N", help="longest completion (default 256)")
    parser.add_argument("--system-prompt", default="", metavar="TEXT", help="what the chat template says first")
    parser.add_argument("--json", action="store_true", help="as JSON, with every token's log-probability")


def asked(options: argparse.Namespace) -> Asked:
    """What the options ask for.

    Raises:
        ValueError: there is no prompt, or an option has a value that cannot be read; the message names it.
    """
    prompts = [*options.prompt, *(_prompts_of(options.prompts) if options.prompts else [])]
    if not prompts:
        raise ValueError("--prompt: say what is asked, with --prompt TEXT or --prompts FILE")
    seeds = options.seeds.split(",")
    if not all(seed.strip().isdecimal() for seed in seeds):
        raise ValueError(f"--seeds: {options.seeds!r} is no list of numbers such as 0,1")
    decoding = f"t{options.temperature}" + (f"-p{options.top_p}" if options.top_p != 1 else "")
    fields = {
        "prompts": prompts,
        "decodings": ["greedy" if options.temperature == 0 else decoding],
        "eval_seeds": [int(seed) for seed in seeds],
        "max_tokens": options.max_tokens,
        "system_prompt": options.system_prompt,
    }
    return Asked([options.checkpoint, *options.against], fields)


def _prompts_of(path: Path) -> list[str]:
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--prompts: {path} cannot be read ({error})") from None
    if path.suffix != ".jsonl":
        return lines
    prompts = []
    for number, line in enumerate(lines, start=1):
        try:
            prompts.append(json.loads(line)["prompt"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"--prompts: {path}: row {number} is no object with a `prompt`") from None
    return prompts


def told(prompts: Sequence[str], labels: Sequence[str], rows: Iterable[Sampled]) -> str:
    """Completions as text, those of one prompt below each other."""
    found = sorted(rows, key=lambda row: (row.prompt, row.decoding, row.eval_seed or 0, row.policy))
    lines: list[str] = []
    shown = -1
    for row in found:
        if row.prompt != shown:
            shown = row.prompt
            lines += ["", f">>> {prompts[shown]}"] if lines else [f">>> {prompts[shown]}"]
        seed = "" if row.eval_seed is None else f", seed {row.eval_seed}"
        known = [value for value in row.logprobs if value is not None]
        mean = f", mean log-probability {sum(known) / len(known):.3f}" if known else ""
        cut = ", truncated" if row.is_truncated else ""
        lines.append(f"--- {labels[row.policy]} ({row.decoding}{seed}{mean}{cut})")
        lines.append(row.completion if row.error is None else f"no completion: {row.error}")
    return "\n".join(lines)
