"""What an experiment costs before anything is run: memory of every stage, operations, hours on one kind of GPU.

Operations are `lco.pricing`'s. Hours are a range: work bound by arithmetic takes operations / (peak x utilisation),
decoding the time to move weights and caches, bytes / (bandwidth x utilisation), if that is longer, and at least
`LAYER_SECONDS` a layer and token, which is what plain PyTorch takes to start one; the utilisations are `UTILISATION`.
What is not said in the configurations, such as how long completions turn out, comes from the document's `pricing`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil

from evaluation.benchmark_config import BenchmarkBase
from evaluation.config import EndpointPolicy, EvalConfig, parse_decoding
from evaluation.judge_config import AlpacaEval2Benchmark
from lco.advantage_config import DpoAdvantage, DpoRatioAdvantage, LogprobAdvantage
from lco.algorithms import TrainConfig
from lco.architectures import ARCHITECTURES, Architecture, of_new_llama
from lco.config import DpoConfig, LlamaInit, OptimalPolicySource, PairsConfig, SftConfig
from lco.pricing import (
    GIB,
    Batches,
    Frozen,
    Lengths,
    Memory,
    Work,
    add_rollouts,
    dpo_work,
    forward,
    frozen_of,
    inference_memory,
    pairs_work,
    sampled,
    sft_work,
    train_work,
    training_memory,
)
from store.document_parts import PriceHints
from store.specs import ExperimentSpec, JobSpec, references

UTILISATION = (0.15, 0.45)
"""Share of a device's peak that is reached, at worst and at best. Published training runs lie at 0.3 to 0.45; small
micro-batches, recomputation and this project's plain PyTorch loops cost the rest."""
LAYER_SECONDS = (8e-4, 2e-4)
"""Time to start one layer for one token of a batch, at worst and at best: about ten kernels, without CUDA graphs."""
_EXAMPLES = {
    "math-500": 500,
    "amc-23": 40,
    "minerva-math": 272,
    "aime-24": 30,
    "gsm8k": 1319,
    "mmlu": 14_042,
    "mmlu-redux": 5700,
    "qa-feedback": 948,
    "alpaca-eval-2": 805,
}
"""Examples of the benchmarks, whole."""
_SHOTS_TOKENS = 700.0
"""Five answered questions before one of MMLU."""
_JUDGE_TOKENS = 250.0
"""Of AlpacaEval's instructions to its judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One accelerator."""

    label: str
    half_rate: float
    """Operations per second in bfloat16, dense."""
    single_rate: float
    """Operations per second in float32."""
    bandwidth: float
    """Bytes per second from its memory."""
    memory_bytes: float


DEVICES = {
    "h100": Device(label="H100 80 GB", half_rate=989e12, single_rate=67e12, bandwidth=3.35e12, memory_bytes=80e9),
    "h200": Device(label="H200 141 GB", half_rate=989e12, single_rate=67e12, bandwidth=4.8e12, memory_bytes=141e9),
    "a100": Device(label="A100 80 GB", half_rate=312e12, single_rate=19.5e12, bandwidth=2.04e12, memory_bytes=80e9),
}
"""By the makers' data sheets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """Device hours, from the best utilisation to the worst."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPrice:
    """What all runs of one job cost."""

    name: str
    kind: str
    runs: int
    processes: int
    """Processes of one run, each on a device of its own."""
    memory: Memory | None
    """Of one process; None where nothing is computed here, or the model's sizes are not known."""
    fits: bool | None
    """Whether that is within the device's memory."""
    operations: float
    tokens: float
    """Generated and trained on."""
    hours: Hours
    """Device hours."""
    judge_price: float
    """At the endpoint's `prices`."""
    problem: str
    """Why there is no price; empty where there is one."""
    content: str
    """Equal for jobs that do the same: the second one takes over the first one's outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What an experiment costs."""

    device: Device
    jobs: list[JobPrice]

    @property
    def hours(self) -> Hours:
        """Device hours of everything that is priced, equal jobs once."""
        return total_hours(self.jobs)

    @property
    def operations(self) -> float:
        """Of everything, equal jobs once."""
        return sum(job.operations for job in _distinct(self.jobs))

    @property
    def judge_price(self) -> float:
        """Of everything, equal jobs once."""
        return sum(job.judge_price for job in _distinct(self.jobs))

    @property
    def largest(self) -> JobPrice | None:
        """The job that needs the most memory in one process."""
        known = [job for job in self.jobs if job.memory is not None]
        return max(known, key=lambda job: job.memory.total if job.memory else 0.0, default=None)


def total_hours(jobs: list[JobPrice]) -> Hours:
    """Device hours of several jobs, equal ones once: of several documents together, too."""
    distinct = _distinct(jobs)
    return Hours(low=sum(job.hours.low for job in distinct), high=sum(job.hours.high for job in distinct))


def _distinct(jobs: list[JobPrice]) -> list[JobPrice]:
    return list({job.content: job for job in jobs}.values())


class _Unpriced(Exception):
    """Something has no price; says what."""


@dataclass(slots=True)
class _Pricer:
    jobs: Mapping[str, JobSpec]
    hints: PriceHints
    device: Device
    contents: dict[str, str] = field(default_factory=dict)

    @property
    def lengths(self) -> Lengths:
        return Lengths(self.hints.prompt_tokens, self.hints.completion_tokens)

    def price(self, job: JobSpec) -> JobPrice:
        memory, work, judge, problem = None, Work(), 0.0, ""
        try:
            work, memory, judge = self._stage(job)
        except _Unpriced as reason:
            problem = str(reason)
        runs = len(job.seeds)
        worst, best = (self._hours(job, work, case) for case in (0, 1))
        return JobPrice(
            name=job.name,
            kind=job.kind,
            runs=runs,
            processes=job.resources.num_processes,
            memory=memory,
            fits=None if memory is None else memory.total <= self.device.memory_bytes,
            operations=runs * work.operations,
            tokens=runs * work.tokens,
            hours=Hours(low=runs * best, high=runs * worst),
            judge_price=runs * judge,
            problem=problem,
            content=self.content(job),
        )

    def _hours(self, job: JobSpec, work: Work, case: int) -> float:
        """Device hours of one run, at worst (0) or at best (1)."""
        is_half = getattr(job.config, "precision", "") == "bfloat16"
        rate = UTILISATION[case] * (self.device.half_rate if is_half else self.device.single_rate)
        moving = work.decoded_bytes / (UTILISATION[case] * self.device.bandwidth)
        starting = work.decoded_layers * LAYER_SECONDS[case]
        return ((work.fitting + work.scoring) / rate + max(work.sampling / rate, moving, starting)) / 3600

    def content(self, job: JobSpec) -> str:
        """Hash of what a job does: kind, configuration, seeds, and the same of the jobs that its inputs come from."""
        if job.name not in self.contents:
            inputs = [
                self.content(self.jobs[reference.value])
                for reference in references(job.config)
                if reference.scheme == "job-name" and reference.value in self.jobs
            ]
            text = json.dumps([job.kind, job.config.model_dump(mode="json"), sorted(job.seeds), inputs])
            for reference in references(job.config):
                if reference.scheme == "job-name":  # what a job is called does not matter
                    text = text.replace(json.dumps(f"job:{reference.value}"), '"job"')
            self.contents[job.name] = hashlib.sha256(text.encode()).hexdigest()
        return self.contents[job.name]

    def model(self, source: str | LlamaInit) -> Architecture:
        """The sizes of what a source names: an imported model of a known name, or what a job starts from."""
        if isinstance(source, LlamaInit):
            return of_new_llama(source)
        scheme, _, name = source.partition(":")
        if scheme == "model":
            if name not in ARCHITECTURES:
                raise _Unpriced(f"the sizes of model:{name} are not known; lco/architectures.py has those that are")
            return ARCHITECTURES[name]
        job = self.jobs.get(name) if scheme == "job" else None
        config = job.config if job is not None else None
        if not isinstance(config, SftConfig | DpoConfig | TrainConfig):
            raise _Unpriced(f"{source} names no model of this document")
        return self.model(config.policy)

    def rows(self, source: str) -> float | None:
        """Rows of a file, where the document says them."""
        found = self.hints.rows.get(source)
        return None if found is None else float(found)

    def _stage(self, job: JobSpec) -> tuple[Work, Memory | None, float]:
        config, processes = job.config, job.resources.num_processes
        longest = self.hints.longest_tokens
        completion = int(longest - min(self.hints.prompt_tokens, longest / 2))
        match config:
            case SftConfig():
                model = self.model(config.policy)
                memory = training_memory(
                    config, model, Frozen(), processes=processes, sequence=longest, completion=completion
                )
                return sft_work(config, model, self.lengths, processes), memory, 0.0
            case DpoConfig():
                model = self.model(config.policy)
                memory = training_memory(
                    config, model, Frozen(), processes=processes, sequence=2 * longest, completion=2 * completion
                )
                return dpo_work(config, model, self.lengths, self._pairs(config.pairs)), memory, 0.0
            case PairsConfig():
                model = self.model(config.policy)
                rows = self.rows(getattr(config.prompts, "path", ""))
                batch = ceil(config.sampling.batch_size / processes)
                tokens = config.sampling.max_tokens + int(2 * self.hints.prompt_tokens)
                memory = inference_memory([model], batch_size=batch, tokens=tokens, width=_width(config.precision))
                return pairs_work(config, model, self.lengths, rows, processes), memory, 0.0
            case TrainConfig():
                return *self._train(config, processes), 0.0
            case EvalConfig():
                return self._evaluation(config)
            case _:
                return Work(), None, 0.0

    def _train(self, config: TrainConfig, processes: int) -> tuple[Work, Memory]:
        model = self.model(config.policy)
        advantage = config.algorithm.advantage
        reward_model = None
        if isinstance(advantage, DpoAdvantage | DpoRatioAdvantage | LogprobAdvantage):
            reward_model = self.model(advantage.reward_model)
        frozen = frozen_of(config, model, reward_model)
        longest = config.sampling.max_tokens
        sequence = longest + int(2 * self.hints.prompt_tokens)
        memory = training_memory(config, model, frozen, processes=processes, sequence=sequence, completion=longest)
        add_rollouts(memory, config, model, frozen, processes)
        return train_work(config, model, frozen, self.lengths, processes), memory

    def _pairs(self, source: str) -> float:
        if (rows := self.rows(source)) is not None:
            return rows
        job = self.jobs.get(source.partition(":")[2])
        if job is not None and isinstance(job.config, PairsConfig):
            return float(job.config.prompts.num_problems * job.config.pairs_per_prompt)
        raise _Unpriced(f"how many pairs {source} has is not known; say so in the document's `pricing.rows`")

    def _evaluation(self, config: EvalConfig) -> tuple[Work, Memory | None, float]:
        work, judge = Work(), 0.0
        passes = sum(
            1 if parse_decoding(label).temperature == 0 else len(config.eval_seeds) * config.samples_per_example
            for label in config.decodings
        )
        models: list[Architecture] = []
        if isinstance(config.policy, OptimalPolicySource):
            reward_model = self.model(config.policy.reward_model)
            models = [self.model(config.policy.policy), reward_model, reward_model]
        elif not isinstance(config.policy, EndpointPolicy):
            models = [self.model(config.policy)]
        longest = 0
        for benchmark in config.benchmarks:
            count = self._examples(benchmark)
            longest = max(longest, benchmark.max_tokens)
            completion = min(self.hints.completion_tokens, float(benchmark.max_tokens))
            lengths = Lengths(self.hints.prompt_tokens, completion)
            form = getattr(getattr(benchmark, "form", None), "name", "generate")
            for model in models:
                if form == "likelihood":
                    work.scoring += count * forward(model, Lengths(_SHOTS_TOKENS, 1.0))
                else:
                    width = _width(config.precision)
                    work.add(
                        sampled(model, lengths, passes * count, Batches(config.batch_size), benchmark.max_tokens, width)
                    )
            if isinstance(benchmark, AlpacaEval2Benchmark):
                asked = self.hints.prompt_tokens + 2 * completion + _JUDGE_TOKENS
                judge += passes * count * benchmark.judge.endpoint.prices.of(asked, benchmark.judge.max_tokens)
        if not models:
            return work, None, judge
        tokens = longest + int(2 * self.hints.prompt_tokens)
        memory = inference_memory(models, batch_size=config.batch_size, tokens=tokens, width=_width(config.precision))
        return work, memory, judge

    def _examples(self, benchmark: BenchmarkBase) -> float:
        limits = [
            getattr(benchmark, name)
            for name in ("num_problems", "num_questions", "num_examples")
            if hasattr(benchmark, name)
        ]
        if problems := getattr(benchmark, "problems", None):
            limits.append(problems.num_problems)
        return float(min([*limits, _EXAMPLES.get(getattr(benchmark, "name", ""), 1_000_000)]))


def _width(precision: str) -> int:
    return 2 if precision == "bfloat16" else 4


def price(spec: ExperimentSpec, device: str = "h100") -> Price:
    """What an experiment costs on one kind of device; nothing is run, loaded or looked up."""
    pricer = _Pricer({job.name: job for job in spec.jobs}, spec.pricing, DEVICES[device])
    return Price(device=DEVICES[device], jobs=[pricer.price(job) for job in spec.jobs])


def gibibytes(memory: Memory) -> float:
    """Memory in GiB."""
    return memory.total / GIB
