"""Preference pairs from a policy's own completions, by correctness. `python -m lco.pairs CONFIG.json RUN_DIR`."""

import json
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lco import distributed
from lco.answers import grade
from lco.config import PairsConfig
from lco.manifest import write_manifest
from lco.policy import Policy, load_policy
from lco.prompts import Prompt, load_prompts
from lco.rollout import sample
from lco.seeds import derived_seed
from lco.stage import Stage, Stopped, run_stage


def make_pairs(config: PairsConfig, stage: Stage) -> None:
    """Samples, labels and pairs; the output is `pairs.jsonl` (`prompt`, `chosen`, `rejected` and their token ids).

    Raises:
        Stopped: asked to stop; sampling starts again when resumed, with the same completions.
        ValueError: an input is wrong, or no prompt has both a correct and an incorrect completion.
    """
    distributed.join(config)
    policy = load_policy(Path(config.policy), config)
    prompts = load_prompts(config.prompts, config.seed)
    rows: list[dict[str, Any]] = []
    num_correct = 0
    chunk = max(1, config.sampling.batch_size * distributed.count() // config.samples_per_prompt)
    for start in range(0, len(prompts), chunk):
        if distributed.any_of(stage.is_stopping):
            raise Stopped
        stage.progress(start, len(prompts), "sampling")
        some = prompts[start : start + chunk]
        for prompt, labelled in zip(some, _labelled(config, policy, some), strict=True):
            num_correct += labelled.num_correct
            rows += _paired(config, policy, prompt, labelled)
    if not rows:
        raise ValueError("prompts: none of them has both a correct and an incorrect completion")
    num_sampled = len(prompts) * config.samples_per_prompt
    stage.progress(len(prompts), len(prompts), "done")
    stage.metrics(1, {"train/accuracy": num_correct / num_sampled, "train/num_pairs": float(len(rows))})
    if stage.is_writer:
        path = stage.run_dir / "pairs.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        write_manifest(
            stage.run_dir, step=len(rows), outputs={"pairs": path.name}, include=[path.name], num_pairs=len(rows)
        )
    distributed.wait()


@dataclass(slots=True)
class Labelled:
    """One prompt's distinct completions, in the order of sampling."""

    correct: list[list[int]] = field(default_factory=list)
    incorrect: list[list[int]] = field(default_factory=list)
    num_correct: int = 0
    """Correct samples, repetitions counted."""


def _labelled(config: PairsConfig, policy: Policy, prompts: list[Prompt]) -> list[Labelled]:
    """Samples every prompt and labels its completions by correctness."""
    repeated = [prompt for prompt in prompts for _ in range(config.samples_per_prompt)]
    seeds = [
        derived_seed(config.seed, "pairs", prompt.id, number)
        for prompt in prompts
        for number in range(config.samples_per_prompt)
    ]
    completions = sample(policy, [policy.encode_prompt(p.text) for p in repeated], seeds, config.sampling)
    labelled = [Labelled() for _ in prompts]
    for position, (prompt, ids) in enumerate(zip(repeated, completions, strict=True)):
        of_prompt = labelled[position // config.samples_per_prompt]
        is_correct = grade(policy.decode(ids), prompt.reference, config.extraction, config.comparison).is_correct
        of_prompt.num_correct += is_correct
        bucket = of_prompt.correct if is_correct else of_prompt.incorrect
        if ids not in bucket:
            bucket.append(ids)
    return labelled


def _paired(config: PairsConfig, policy: Policy, prompt: Prompt, labelled: Labelled) -> list[dict[str, Any]]:
    draw = random.Random(derived_seed(config.seed, "pairing", prompt.id))
    couples = [(good, bad) for good in labelled.correct for bad in labelled.incorrect]
    rows = []
    for good, bad in draw.sample(couples, min(config.pairs_per_prompt, len(couples))):
        if config.shuffle_preferences and draw.random() < 0.5:
            good, bad = bad, good
        rows.append(
            {
                "prompt_id": prompt.id,
                "prompt": prompt.text,
                "chosen": policy.decode(good),
                "rejected": policy.decode(bad),
                "chosen_ids": good,
                "rejected_ids": bad,
            }
        )
    return rows


if __name__ == "__main__":
    sys.exit(run_stage(PairsConfig, make_pairs, is_shared=True))
