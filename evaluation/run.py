"""Evaluates one policy: complete, score, aggregate. `python -m evaluation.run CONFIG.json RUN_DIR`.

Every completion is recorded in `generations.jsonl` as soon as it is made, every score in `scores.jsonl`, each under the
hash of all that decides it. A resumed evaluation looks there first, so that it makes and scores only what is missing.
`completions.jsonl` and `results.json` are made of the records alone, in a fixed order, at the end.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Generator as PythonGenerator
from contextlib import ExitStack, closing
from typing import Any, TypeVar

from evaluation.benchmarks import Benchmark
from evaluation.config import EndpointPolicy, EvalConfig
from evaluation.generation import Generation, Generator, Request, generation_of
from evaluation.graders import Graders
from evaluation.passes import LIKELIHOOD, Pass, Sample, passes_of
from evaluation.records import Journal, fields_of, sound
from evaluation.results import COMPLETIONS, RESULTS, Results, completion_line, results_of
from evaluation.types import Completion, Item, Result, Score
from lco.manifest import write_manifest
from lco.stage import Stage, run_stage

GENERATIONS = "generations.jsonl"
SCORES = "scores.jsonl"
DOCUMENTS = "documents"
"""Directory of a run for passes in the formats of others."""
LOCAL_SYNC_SECONDS = 1.0
"""Longest time that a completion made on this machine waits for the disk: it could be made again."""
PROGRESS_SECONDS = 0.5

ValueT = TypeVar("ValueT")


class TooManyErrors(Exception):
    """Our side failed to make or to score more completions than the configuration allows."""


def evaluate(config: EvalConfig, stage: Stage) -> None:
    """Writes `completions.jsonl` and `results.json`.

    Raises:
        Stopped: asked to stop; everything made or scored so far is kept.
        TooManyErrors: see `max_error_rate`; what failed is tried again by a resumed evaluation.
        ValueError: an input is wrong.
    """
    passes = list(passes_of(config))
    benchmarks = list(dict.fromkeys(one.benchmark for one in passes))
    with ExitStack() as stack:
        graders = stack.enter_context(Graders(stage.run_dir, stage.earlier[1:]))
        stack.callback(lambda: stage.spending(graders.price))  # also of an evaluation that fails
        for benchmark in benchmarks:
            benchmark.prepare(graders)
        generator = stack.enter_context(closing(open_generator(config, passes, graders)))
        work = _Work(config, stage, passes, generator, graders)
        stack.callback(work.close)
        work.generate()
        generator.close()  # its memory is free for graders
        work.score(benchmarks)
        results = work.write()
    for step, row in enumerate((row for row in results.rows if row.metric == _headline(row, benchmarks)), start=1):
        if row.value is not None:
            stage.metrics(step, {f"eval/{row.benchmark}/{row.metric}/{row.decoding}": row.value})
    write_manifest(
        stage.run_dir,
        step=len(work.samples),
        outputs={"results": RESULTS, "completions": COMPLETIONS},
        include=[COMPLETIONS, RESULTS, *work.documents],
        benchmark_versions={benchmark.name: benchmark.version for benchmark in benchmarks},
    )


def open_generator(config: EvalConfig, passes: Sequence[Pass], graders: Graders) -> Generator:
    """What completes for the policy of an evaluation.

    Raises:
        ValueError: there is no such policy, or a benchmark needs more of it than it can do.
    """
    if isinstance(config.policy, EndpointPolicy):
        from evaluation.endpoint_policy import EndpointGenerator  # here: a policy of this machine needs no HTTP

        for one in passes:
            if one.decoding == LIKELIHOOD or any(example.is_raw for example in one.benchmark.examples):
                raise ValueError(
                    f"benchmarks: {one.benchmark.name} needs likelihoods or raw prompts, and so the policy's weights; "
                    "an endpoint answers chat completions alone"
                )
        policy = config.policy
        return graders.opened(
            "policy",
            lambda: EndpointGenerator(policy, journal=graders.journal),
            price=lambda generator: generator.price,
        )
    from evaluation.policies import open_policy  # here: an endpoint needs no torch

    return open_policy(config.policy, config)


def _headline(row: Result, benchmarks: Sequence[Benchmark[Any]]) -> str:
    return next(benchmark.metrics[0] for benchmark in benchmarks if benchmark.name == row.benchmark)


class _Work:
    """The samples of an evaluation on their way from requests to records."""

    def __init__(
        self, config: EvalConfig, stage: Stage, passes: Sequence[Pass], generator: Generator, graders: Graders
    ) -> None:
        self._config = config
        self._stage = stage
        self._generator = generator
        self._graders = graders
        self._passes = passes
        self.samples = [sample for one in passes for sample in one.samples()]
        self._keys = [sample.request.key(generator.fingerprint) for sample in self.samples]
        self._totals = Counter(sample.owner.benchmark.name for sample in self.samples)
        self.documents: list[str] = []
        """Files written in the formats of others, below the run directory."""
        earlier = stage.earlier[1:]
        self._generations = Journal(
            stage.run_dir / GENERATIONS,
            [place / GENERATIONS for place in earlier],
            sync_seconds=0.0 if isinstance(config.policy, EndpointPolicy) else LOCAL_SYNC_SECONDS,
        )
        self._scores = Journal(
            stage.run_dir / SCORES, [place / SCORES for place in earlier], sync_seconds=LOCAL_SYNC_SECONDS
        )

    def close(self) -> None:
        """Closes the journals."""
        self._generations.close()
        self._scores.close()

    def generate(self) -> None:
        """Makes every completion that no record has."""
        missing: dict[str, Sample] = {}
        errors = _Errors(self._config, self._totals)
        for sample, key in zip(self.samples, self._keys, strict=True):
            record = self._generations.get(key)
            if record is None or record["is_transient"]:
                missing[key] = sample
            elif record["error"] is not None:
                errors.add(sample.owner.benchmark.name, record["error"], is_ours=False)
        num_kept = len(self.samples) - len(missing)
        if num_kept:
            self._stage.event("info", f"resumed with {num_kept} completions")
        progress = _Progress(self._stage, "completed", num_kept, len(self.samples), 0, self._spent)
        for batch in self._made(missing):
            self._generations.put_all((key, fields_of(generation)) for key, generation in batch)
            for key, generation in batch:
                owner = missing[key].owner
                if generation.error is not None:
                    errors.add(owner.benchmark.name, generation.error, is_ours=generation.is_transient)
                progress.advance(owner)
            self._stage.check()
        progress.close()

    def _made(self, missing: dict[str, Sample]) -> Iterator[list[tuple[str, Generation]]]:
        forms: dict[bool, dict[str, Request]] = {False: {}, True: {}}
        for key, sample in missing.items():
            forms[sample.owner.decoding == LIKELIHOOD][key] = sample.request
        for is_likelihood, wanted in forms.items():
            if wanted:
                make = self._generator.choice_logprobs if is_likelihood else self._generator.complete
                keys = list(wanted)
                with closing(_closable(make(list(wanted.values())))) as batches:
                    for batch in batches:
                        yield [(keys[place], generation) for place, generation in batch]

    def _generation(self, key: str) -> Generation:
        record = self._generations.get(key)
        assert record is not None, key
        return generation_of(record)

    def score(self, benchmarks: Sequence[Benchmark[Any]]) -> None:
        """Scores every completion that no record has; what failed in an earlier attempt is tried again."""
        count = len(self.samples)
        missing: dict[Benchmark[Any], dict[str, Item]] = {benchmark: {} for benchmark in benchmarks}
        for position, (sample, key) in enumerate(zip(self.samples, self._keys, strict=True)):
            generation = self._generation(key)
            if generation.error is not None:
                continue
            score_key = sample.score_key(generation)
            record = self._scores.get(score_key)
            if record is None or record["value"] is None:
                missing[sample.owner.benchmark][score_key] = Item(
                    position=position,
                    example=sample.example,
                    completion=generation.text,
                    is_truncated=generation.is_truncated,
                    choice_logprobs=generation.choice_logprobs,
                )
        num_kept = count - sum(map(len, missing.values()))
        progress = _Progress(self._stage, "scored", num_kept, count, count, self._spent)
        errors = _Errors(self._config, self._totals)
        for benchmark, wanted in missing.items():
            keys = {item.position: key for key, item in wanted.items()}
            with closing(_closable(benchmark.score_all(wanted.values(), self._graders))) as scores:
                for position, score in scores:
                    self._scores.put(keys.pop(position), fields_of(score))
                    if score.value is None:
                        errors.add(benchmark.name, score.reason or score.verdict, is_ours=True)
                    progress.advance(self.samples[position].owner)
                    self._stage.check()
            assert not keys, f"{benchmark.name} left {len(keys)} completions without a score"
        progress.close()

    def write(self) -> Results:
        """Makes `completions.jsonl` and `results.json` of the records.

        Raises:
            TooManyErrors: our side failed too often; both files are there to be read.
        """
        errors = _Errors(self._config, self._totals)
        failure: Exception | None = None
        rows: list[Result] = []
        samples = iter(zip(self.samples, self._keys, strict=True))
        with (self._stage.run_dir / COMPLETIONS).open("w", encoding="utf-8") as stream:
            for one in self._passes:
                completions = []
                for _ in range(len(one.benchmark.examples) * one.samples_per_example):
                    completion = self._completion(*next(samples))
                    stream.write(completion_line(completion))
                    completions.append(completion)
                    if completion.value is None and failure is None:
                        try:
                            errors.add(one.benchmark.name, completion.reason or completion.verdict, is_ours=True)
                        except TooManyErrors as error:
                            failure = error
                rows += results_of(one, completions, self._config.pass_at)
                self._tell(one, completions)
        results = Results(
            rows=rows,
            configurations={one.configuration_hash: one.configuration for one in self._passes},
            policy={
                "source": self._config.model_dump(mode="json")["policy"],
                "fingerprint": self._generator.fingerprint,
            },
        )
        (self._stage.run_dir / RESULTS).write_text(json.dumps(results.document(), indent=1, allow_nan=False))
        if failure is not None:
            raise failure
        return results

    def _tell(self, one: Pass, completions: Sequence[Completion]) -> None:
        """Writes a pass in the formats of others, and says what a reader of its metrics should know."""
        for message in one.benchmark.warnings(completions):
            self._stage.event("warning", f"{one.benchmark.name} {one.decoding}: {message}")
        policy = self._config.policy if isinstance(self._config.policy, str) else self._generator.fingerprint
        for name, document in one.benchmark.documents(completions, policy).items():
            place = f"{one.decoding}-seed{one.eval_seed}" if one.eval_seed is not None else one.decoding
            path = self._stage.run_dir / DOCUMENTS / one.benchmark.name / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(sound(document), indent=1, allow_nan=False), encoding="utf-8")
            self.documents.append(path.relative_to(self._stage.run_dir).as_posix())

    def _completion(self, sample: Sample, key: str) -> Completion:
        generation = self._generation(key)
        if generation.error is not None:
            score = Score(None, "error", reason=generation.error)
        else:
            record = self._scores.get(sample.score_key(generation))
            assert record is not None, sample.request
            score = Score(**record)
        is_graded = score.value is not None and score.verdict != "scored"
        return Completion(
            benchmark=sample.owner.benchmark.name,
            example_id=sample.example.id,
            decoding=sample.owner.decoding,
            train_seed=self._config.seed,
            eval_seed=sample.owner.eval_seed,
            sample_index=sample.request.sample_index,
            prompt=sample.example.prompt,
            completion=generation.text,
            reference=sample.example.reference,
            extracted=score.extracted,
            verdict=score.verdict,
            correct=score.value == 1 if is_graded else None,
            value=score.value,
            reason=score.reason,
            truncated=generation.is_truncated,
            num_tokens=generation.num_tokens,
            choice_logprobs=generation.choice_logprobs,
            values=score.values,
            details=score.details,
        )

    def _spent(self) -> float:
        return self._graders.price


def _closable(values: Iterator[ValueT]) -> PythonGenerator[ValueT, None, None]:
    """The values, from what is told at once when nobody wants more of them."""
    yield from values


class _Errors:
    """Counts what our side failed at, and ends the evaluation when it is too much."""

    def __init__(self, config: EvalConfig, totals: Counter[str]) -> None:
        self._rate = config.max_error_rate
        self._totals = totals
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, benchmark: str, reason: str, *, is_ours: bool) -> None:
        """Notes one.

        Args:
            is_ours: trying again may help; else the configuration asks for what cannot be.

        Raises:
            TooManyErrors: more than `max_error_rate` of the benchmark's completions.
            ValueError: the same, where trying again cannot help.
        """
        self._counts[benchmark] += 1
        first = self._first.setdefault(benchmark, reason)
        count, total = self._counts[benchmark], self._totals[benchmark]
        if count > self._rate * total:
            message = (
                f"{benchmark}: {count} of {total} completions could not be made or scored, more than max_error_rate "
                f"{self._rate:g} allows; the first: {first}"
            )
            raise TooManyErrors(message) if is_ours else ValueError(message)


class _Progress:
    """Tells how far a phase is, how fast it goes, how long it takes and what was spent, twice a second."""

    def __init__(self, stage: Stage, verb: str, done: int, total: int, before: int, spent: Callable[[], float]) -> None:
        self._stage = stage
        self._verb = verb
        self._done = done
        self._total = total
        self._before = before
        self._spent = spent
        self._num_kept = done
        self._started = time.monotonic()
        self._told_at = -float("inf")

    def advance(self, one: Pass) -> None:
        """One more is done."""
        self._done += 1
        if time.monotonic() - self._told_at >= PROGRESS_SECONDS:
            self._tell(f"{one.benchmark.name} {one.decoding}")

    def close(self) -> None:
        """All are done."""
        self._tell("all")

    def _tell(self, what: str) -> None:
        self._told_at = time.monotonic()
        rate = (self._done - self._num_kept) / max(self._told_at - self._started, 1e-9)
        message = f"{what}: {self._done} of {self._total} {self._verb}"
        if rate > 0 and self._done < self._total:
            message += f", {rate:.3g} a second, {_duration((self._total - self._done) / rate)} left"
        if spent := self._spent():
            message += f", ${spent:.2f} spent"
            self._stage.spending(spent)
        self._stage.progress(self._before + self._done, 2 * self._total, message)


def _duration(seconds: float) -> str:
    """A time for a person: `40 s`, `3 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    sys.exit(run_stage(EvalConfig, evaluate))
