"""Rollouts that a training run keeps for people to read: `rollouts.jsonl`, some of every few iterations. No torch.

A line is one completion with its tokens. Nothing is drawn at random, so that a run keeps the same ones with and without
an interruption, and trains the same with and without the file.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, NonNegativeInt

from lco.config import Config

if TYPE_CHECKING:
    from lco.policy import Policy
    from lco.rollout import Batch, Rollout

ROLLOUTS = "rollouts.jsonl"
MAX_PROMPT_CHARACTERS = 20_000
MAX_LINE_BYTES = 200_000
"""What a supervisor reads at a time is a little more."""
MAX_FILE_BYTES = 1 << 25


class RolloutSamples(Config):
    """Which rollouts a run keeps for people to read; they change no number of the run."""

    every_iterations: NonNegativeInt = 10
    """Iterations between two whose rollouts are kept, beside the first and the last; 0 keeps none."""
    prompts: Annotated[int, Field(ge=1, le=64)] = 2
    """Prompts of such an iteration: its first ones."""
    completions: Annotated[int, Field(ge=1, le=64)] = 4
    """Completions of each prompt, at most: its first ones."""
    max_tokens: Annotated[int, Field(ge=1, le=2048)] = 512
    """Tokens of a completion that are kept; the others are only counted."""

    def are_kept(self, iteration: int, num_iterations: int) -> bool:
        """Whether some of an iteration's rollouts are kept; iterations count from 0."""
        every = self.every_iterations
        return every > 0 and (iteration % every == 0 or iteration == num_iterations - 1)


class RolloutLog:
    """Appends to a run's `rollouts.jsonl`."""

    def __init__(self, run_dir: Path, samples: RolloutSamples, num_iterations: int, start: int) -> None:
        """Opens the file in a run directory, which may hold an earlier start's.

        Args:
            start: the first iteration that is still to be sampled; what stands there of later ones is sampled again.
        """
        self._path = run_dir / ROLLOUTS
        self._samples = samples
        self._num_iterations = num_iterations
        if self._path.exists():
            _forget(self._path, start)

    def keep(self, iteration: int, rollouts: "Sequence[Rollout]", batch: "Batch", policy: "Policy", size: int) -> None:
        """Writes some of an iteration's rollouts down, if it is one whose rollouts are kept.

        Args:
            size: completions of a prompt, which stand side by side.
        """
        if not self._samples.are_kept(iteration, self._num_iterations):
            return
        ends = batch.num_tokens_B.cumsum(0).tolist()
        lines = []
        for position, rollout in enumerate(rollouts):
            prompt_index, sample_index = divmod(position, size)
            if prompt_index >= self._samples.prompts or sample_index >= self._samples.completions:
                continue
            start = ends[position] - len(rollout.completion_ids)
            tokens = slice(start, min(ends[position], start + self._samples.max_tokens))
            record = {
                "iteration": iteration,
                "position": position,
                "prompt_id": rollout.prompt.id,
                "prompt": rollout.prompt.text[:MAX_PROMPT_CHARACTERS],
                "reference": rollout.prompt.reference[:MAX_PROMPT_CHARACTERS],
                "num_tokens": len(rollout.completion_ids),
                "is_truncated": rollout.is_truncated,
                "reward": _rounded(rollout.reward),
                "is_correct": rollout.is_correct,
                "parts": {name: _rounded(value) for name, value in rollout.reward_parts},
                "pieces": policy.pieces(rollout.completion_ids[: self._samples.max_tokens]),
                "advantages": [_rounded(value) for value in batch.advantages_N[tokens].tolist()],
                "logprobs": [_rounded(value) for value in batch.behaviour_logprobs_N[tokens].tolist()],
            }
            line = json.dumps(record, allow_nan=False).encode() + b"\n"
            if len(line) <= MAX_LINE_BYTES:
                lines.append(line)
        content = b"".join(lines)
        with self._path.open("ab") as stream:
            if stream.tell() + len(content) <= MAX_FILE_BYTES:
                stream.write(content)


def _rounded(value: float | None) -> float | None:
    """Five significant digits, which is more than a person reads; null where the number is not finite."""
    return float(f"{value:.5g}") if value is not None and math.isfinite(value) else None


def _forget(path: Path, start: int) -> None:
    """Takes the iterations from `start` on, and a line that was cut short, out of a file of an earlier start."""
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith(b"\n") and _iteration(line) < start]
    if kept == lines:
        return
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(b"".join(kept))
    temporary.replace(path)


def _iteration(line: bytes) -> float:
    """The iteration of a line; endless for a damaged one."""
    try:
        record: dict[str, Any] = json.loads(line)
        return int(record["iteration"])
    except (ValueError, KeyError, TypeError):
        return math.inf
