"""Evaluates one policy: complete, score, aggregate. `python -m evaluation.run CONFIG.json RUN_DIR`.

Completions are appended to `completions.jsonl` batch by batch in a fixed order (benchmark, decoding, eval seed,
example), so a resumed run keeps every whole batch and samples only what is missing. `results.json` is made of the
completions alone.
"""

import dataclasses
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from evaluation.benchmarks import BENCHMARKS, Benchmark
from evaluation.config import EvalConfig, parse_decoding
from evaluation.graders import Graders
from evaluation.types import Completion, Example, Item, Result
from lco.config import Sampling
from lco.manifest import write_manifest
from lco.optimal_policy import load_decodable
from lco.policy import Policy
from lco.rollout import sample
from lco.seeds import derived_seed
from lco.stage import Stage, run_stage

COMPLETIONS = "completions.jsonl"
RESULTS = "results.json"


@dataclass(frozen=True, slots=True)
class Pass:
    """One benchmark in one decoding with one eval seed: what one row of results is made of."""

    benchmark: Benchmark[Any]
    examples: list[Example]
    decoding: str
    eval_seed: int | None


def evaluate(config: EvalConfig, stage: Stage) -> None:
    """Writes `completions.jsonl` and `results.json`.

    Raises:
        Stopped: asked to stop; whole batches of completions are kept.
        ValueError: an input is wrong.
    """
    torch.set_num_threads(config.threads)
    policy = load_decodable(config.policy, config)
    passes = list(_passes(config))
    total = sum(len(one.examples) for one in passes)
    path = stage.run_dir / COMPLETIONS
    kept = _resumed(stage, config, passes, path)
    done = 0
    with path.open("a", encoding="utf-8") as stream, Graders(stage.run_dir, stage.earlier[1:]) as graders:
        for one in passes:
            for start in range(0, len(one.examples), config.batch_size):
                examples = one.examples[start : start + config.batch_size]
                done += len(examples)
                if done <= kept:
                    continue
                stage.check()
                for completion in _complete(config, policy, one, examples, graders):
                    stream.write(json.dumps(dataclasses.asdict(completion)) + "\n")
                stream.flush()
                stage.progress(done, total, f"{one.benchmark.name} {one.decoding}")
    results = _results(passes, path)
    (stage.run_dir / RESULTS).write_text(json.dumps({"rows": [row.document() for row in results]}, indent=1))
    for step, row in enumerate((r for r in results if r.metric == "pass@1"), start=1):
        if row.value is not None:
            stage.metrics(step, {f"eval/{row.benchmark}/{row.metric}/{row.decoding}": row.value})
    versions = {one.benchmark.name: one.benchmark.version for one in passes}
    write_manifest(
        stage.run_dir,
        step=total,
        outputs={"results": RESULTS, "completions": COMPLETIONS},
        include=[COMPLETIONS, RESULTS],
        benchmark_versions=versions,
    )


def _passes(config: EvalConfig) -> Iterator[Pass]:
    for benchmark_config in config.benchmarks:
        benchmark = BENCHMARKS[benchmark_config.name](benchmark_config)
        examples = benchmark.load()
        for decoding in config.decodings:
            for eval_seed in [None] if decoding == "greedy" else config.eval_seeds:
                yield Pass(benchmark, examples, decoding, eval_seed)


def _complete(
    config: EvalConfig, policy: Policy, one: Pass, examples: list[Example], graders: Graders
) -> Iterator[Completion]:
    """Samples and scores some examples of a pass; each completion's seed is named by eval seed and example."""
    decoding = parse_decoding(one.decoding)
    sampling = Sampling(
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        max_tokens=one.benchmark.config.max_tokens,
        batch_size=config.batch_size,
    )
    seeds = [derived_seed("eval", one.eval_seed or 0, example.id, 0) for example in examples]
    prompts = [policy.encode_prompt(example.prompt) for example in examples]
    sampled = sample(policy, prompts, seeds, sampling)
    items = [
        Item(position=i, example=example, completion=policy.decode(ids))
        for i, (example, ids) in enumerate(zip(examples, sampled, strict=True))
    ]
    scores = dict(one.benchmark.score_all(items, graders))
    for item, ids in zip(items, sampled, strict=True):
        example, text, score = item.example, item.completion, scores[item.position]
        yield Completion(
            benchmark=one.benchmark.name,
            example_id=example.id,
            decoding=one.decoding,
            train_seed=config.seed,
            eval_seed=one.eval_seed,
            prompt=example.prompt,
            completion=text,
            reference=example.reference,
            extracted=score.extracted,
            verdict=score.verdict,
            correct=None if score.value is None else score.value == 1,
            value=score.value,
            reason=score.reason,
            truncated=ids[-1] != policy.eos_id,
            num_tokens=len(ids),
            values=dict(score.values),
            details=dict(score.details),
        )


def _resumed(stage: Stage, config: EvalConfig, passes: list[Pass], path: Path) -> int:
    """Copies the whole batches that an earlier attempt completed into this one's file; returns how many completions."""
    boundaries = [0]
    for one in passes:
        for start in range(0, len(one.examples), config.batch_size):
            boundaries.append(boundaries[-1] + min(config.batch_size, len(one.examples) - start))
    best: list[str] = []
    for directory in stage.earlier:
        lines = _whole_lines(directory / COMPLETIONS)
        if len(lines) > len(best):
            best = lines
    kept = max(boundary for boundary in boundaries if boundary <= len(best))
    path.write_text("".join(best[:kept]), encoding="utf-8")
    if kept:
        stage.event("info", f"resumed with {kept} completions")
    return kept


def _whole_lines(path: Path) -> list[str]:
    """The lines of a file up to the first that is not whole JSON: what a killed writer left."""
    lines: list[str] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
            try:
                json.loads(line)
            except ValueError:
                break
            if not line.endswith("\n"):
                break
            lines.append(line)
    return lines


def _results(passes: list[Pass], path: Path) -> list[Result]:
    """The metrics of every pass, from the stored completions alone."""
    results = []
    with path.open(encoding="utf-8") as stream:
        for one in passes:
            completions = [Completion(**json.loads(stream.readline())) for _ in one.examples]
            num_unscored = sum(completion.correct is None for completion in completions)
            for metric, value in one.benchmark.aggregate(completions).items():
                results.append(
                    Result(
                        benchmark=one.benchmark.name,
                        metric=metric,
                        decoding=one.decoding,
                        eval_seed=one.eval_seed,
                        value=value,
                        num_examples=len(one.examples),
                        num_unscored=num_unscored,
                    )
                )
    return results


if __name__ == "__main__":
    sys.exit(run_stage(EvalConfig, evaluate))
