"""Samples a few completions of a few policies, to be read side by side. `python -m evaluation.sample CONFIG RUN_DIR`.

Writes `samples.jsonl`: a line a completion, as soon as it is there, with each token's text and log-probability.
"""

import gc
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from evaluation.config import parse_decoding
from evaluation.records import sound
from evaluation.sample_config import SAMPLES, SampleConfig
from lco.config import Sampling
from lco.log_probs import action_log_probs
from lco.manifest import write_manifest
from lco.optimal_policy import load_decodable
from lco.policy import Policy
from lco.rollout import sample, sequence_tensors
from lco.seeds import derived_seed
from lco.stage import Stage, run_stage

_AT_A_TIME = 8
"""Completions sampled together: few, so that the first ones are there soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRow:
    """One completion."""

    policy: int
    """Which of the policies, from 0."""
    prompt: int
    """Which of the prompts, from 0."""
    decoding: str
    eval_seed: int | None
    """null for greedy decoding."""
    completion: str = ""
    pieces: tuple[str, ...] = ()
    """Text of each token; special tokens have none."""
    logprobs: tuple[float, ...] = ()
    """Natural log-probability of each token at temperature 1."""
    is_truncated: bool = False
    """It reached `max_tokens` without an end."""
    error: str | None = None
    """Why there is no completion."""

    @property
    def place(self) -> tuple[int, int, str, int | None]:
        """What the completion is of."""
        return self.policy, self.prompt, self.decoding, self.eval_seed


def sample_policies(config: SampleConfig, stage: Stage) -> None:
    """The stage: samples what is missing, and lists the file in the manifest.

    Raises:
        Stopped: asked to stop; what was sampled is kept.
        ValueError: a policy cannot be loaded.
    """
    torch.set_num_threads(config.threads)
    path = stage.run_dir / SAMPLES
    done = _earlier_rows([directory / SAMPLES for directory in reversed(stage.earlier)])
    path.write_text("".join(_line(row) for row in done.values()), encoding="utf-8")
    total = config.num_completions
    with path.open("a", encoding="utf-8") as stream:
        for number in range(len(config.policies)):
            missing = [place for place in places(config, number) if place not in done]
            if not missing:
                continue
            stage.check()
            stage.progress(len(done), total, f"loading policy {number + 1} of {len(config.policies)}")
            policy = load_decodable(config.policies[number].policy, config)
            for rows in completed(policy, config, missing):
                for row in rows:
                    done[row.place] = row
                    stream.write(_line(row))
                stream.flush()
                stage.progress(len(done), total, f"sampling policy {number + 1} of {len(config.policies)}")
                stage.check()
            del policy
            gc.collect()
    write_manifest(stage.run_dir, step=total, outputs={"samples": SAMPLES}, include=[SAMPLES])


def places(config: SampleConfig, number: int) -> Iterator[tuple[int, int, str, int | None]]:
    """Every completion of a policy, prompt by prompt."""
    for prompt in range(len(config.prompts)):
        for decoding in config.decodings:
            for seed in [None] if decoding == "greedy" else config.eval_seeds:
                yield number, prompt, decoding, seed


def completed(
    policy: Policy, config: SampleConfig, missing: list[tuple[int, int, str, int | None]]
) -> Iterator[list[SampleRow]]:
    """Completions of a policy, a few at a time; shorter than `max_tokens` where its positions end before."""
    max_tokens = _room(policy, config)
    for decoding in config.decodings:
        wanted = [place for place in missing if place[2] == decoding]
        for start in range(0, len(wanted), _AT_A_TIME):
            yield _sampled(policy, config, decoding, wanted[start : start + _AT_A_TIME], max_tokens)


def _room(policy: Policy, config: SampleConfig) -> int:
    """Tokens that every completion may have: the same for all, whichever of them are sampled together."""
    lengths = []
    for text in config.prompts:
        with suppress(ValueError, TypeError):  # told where it is sampled
            length = len(policy.encode_prompt(text))
            if length < policy.max_positions:
                lengths.append(length)
    return min(config.max_tokens, policy.max_positions - max(lengths, default=0))


@torch.no_grad()
def _sampled(
    policy: Policy, config: SampleConfig, decoding: str, some: list[tuple[int, int, str, int | None]], max_tokens: int
) -> list[SampleRow]:
    how = parse_decoding(decoding)
    rows, kept, prompts, seeds = [], [], [], []
    for place in some:
        number, prompt, _, seed = place
        text = config.prompts[prompt]
        try:
            ids = policy.encode_prompt(text)
            policy.check_fits(ids, [0], "the prompt and one token more")
        except (ValueError, TypeError) as error:  # the second: a lone surrogate
            error_text = str(error)[:500]
            rows.append(SampleRow(policy=number, prompt=prompt, decoding=decoding, eval_seed=seed, error=error_text))
            continue
        kept.append(place)
        prompts.append(ids)
        seeds.append(derived_seed("sample", seed or 0, text))
    if not kept:
        return rows
    sampling = Sampling(temperature=how.temperature, top_p=how.top_p, max_tokens=max_tokens)
    completions = sample(policy, prompts, seeds, sampling)
    *inputs, actions_N = sequence_tensors(prompts, completions, policy.device)
    logprobs_N = action_log_probs(policy.token_logits(*inputs), actions_N).tolist()
    start = 0
    for (number, prompt, _, seed), ids in zip(kept, completions, strict=True):
        rows.append(
            SampleRow(
                policy=number,
                prompt=prompt,
                decoding=decoding,
                eval_seed=seed,
                completion=policy.decode(ids),
                pieces=tuple(policy.pieces(ids)),
                logprobs=tuple(round(value, 5) for value in logprobs_N[start : start + len(ids)]),
                is_truncated=ids[-1] != policy.eos_id,
            )
        )
        start += len(ids)
    return rows


def _line(row: SampleRow) -> str:
    return json.dumps(sound(asdict(row))) + "\n"


def _earlier_rows(paths: list[Path]) -> dict[tuple[int, int, str, int | None], SampleRow]:
    """Completions of earlier attempts by their place; those that failed are tried again."""
    found: dict[tuple[int, int, str, int | None], SampleRow] = {}
    for path in paths:
        for line in path.read_bytes().splitlines() if path.exists() else []:
            try:
                record: dict[str, Any] = json.loads(line)
                row = SampleRow(**record)
            except (ValueError, TypeError):
                continue  # the end of a line was lost with its process
            if row.error is None:
                found[row.place] = row
    return found


if __name__ == "__main__":
    sys.exit(run_stage(SampleConfig, sample_policies))
