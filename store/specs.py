"""What is submitted: a `JobSpec` per kind of job, and an experiment that names several jobs.

An input of a job is a string with a scheme, never a path: `job:NAME` (a job of the same experiment), `job_...` (any
job), `ckpt_...` (a checkpoint), `alias:NAME` (the checkpoint that has the name at submission), `model:NAME` (an
imported model), `dataset:NAME` or `dataset:NAME@VERSION` (uploaded rows; without a version the newest at submission) or
`data:RELATIVE/PATH` (below the operator's data root).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeInt, model_validator

from evaluation.config import EvalConfig
from evaluation.sample_config import SampleConfig, SampleTask
from evaluation.score_config import ScoreConfig, Scoring
from lco.algorithms import TrainConfig
from lco.config import Config, DpoConfig, PairsConfig, SftConfig, Source, sources
from lco.hub_config import ImportConfig
from store.document_parts import Assumed, Budget, PriceHints, PublishedResult
from store.search_spec import SearchSpec

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]

_ID = r"[0-9a-hjkmnp-tv-z]{26}"
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_REFERENCES = {
    "job-name": re.compile(r"job:(?P<value>[a-z0-9][a-z0-9._-]{0,63})"),
    "job-id": re.compile(rf"(?P<value>job_{_ID})"),
    "checkpoint-id": re.compile(rf"(?P<value>ckpt_{_ID})"),
    "alias": re.compile(r"alias:(?P<value>[a-z0-9][a-z0-9._-]{0,63})"),
    "dataset": re.compile(r"dataset:(?P<value>[a-z0-9][a-z0-9._-]{0,63}(@[1-9][0-9]{0,8})?)"),
    "model": re.compile(rf"model:(?P<value>{_SEGMENT})"),
    "data": re.compile(rf"data:(?P<value>{_SEGMENT}(/{_SEGMENT}){{0,7}})"),
}
_FORMS = {
    "job-name": "job:NAME",
    "job-id": "job_...",
    "checkpoint-id": "ckpt_...",
    "alias": "alias:NAME",
    "dataset": "dataset:NAME[@VERSION]",
    "model": "model:NAME",
    "data": "data:RELATIVE/PATH",
}
_ALLOWED = {
    "model": ("job-name", "job-id", "checkpoint-id", "alias", "model"),
    "reward-model": ("job-name", "job-id", "checkpoint-id", "alias"),
    "data": ("job-name", "job-id", "dataset", "data"),
    "completions": ("job-name", "job-id", "dataset", "data"),
}


@dataclass(frozen=True, slots=True)
class Reference:
    """One input of a spec."""

    pointer: tuple[str, ...]
    """Where it stands in the config: keys from the top."""
    source: Literal["model", "reward-model", "data", "completions"]
    """What the stage needs."""
    scheme: str
    """`job-name`, `job-id`, `checkpoint-id`, `alias`, `model`, `dataset` or `data`."""
    value: str
    """The name, id or relative path, without the scheme."""


def parse_reference(pointer: tuple[str, ...], source: Source, text: str) -> Reference:
    """What an input string refers to.

    Raises:
        ValueError: no known scheme, or one that cannot give what the stage needs. A bare path is never accepted.
    """
    for scheme in _ALLOWED[source.kind]:
        if match := _REFERENCES[scheme].fullmatch(text):
            return Reference(pointer, source.kind, scheme, match["value"])
    forms = ", ".join(_FORMS[scheme] for scheme in _ALLOWED[source.kind])
    raise ValueError(f"{'.'.join(pointer)}: {text[:80]!r} is none of {forms}")


def references(config: Config) -> Iterator[Reference]:
    """Every input of a config, found by the `Source` marks of its fields, in their order."""
    for pointer, source, text in sources(config):
        yield parse_reference(pointer, source, text)


def replaced(document: dict[str, Any], pointer: tuple[str, ...], value: Any) -> None:
    """Sets the value at a pointer of a JSON document, in place."""
    place: Any = document
    for key in pointer[:-1]:
        place = place[int(key)] if isinstance(place, list) else place[key]
    place[pointer[-1]] = value


class Resources(Config):
    """What a run needs of the worker that takes it."""

    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    """GPUs; the run sees exactly these, with one process each. An evaluation runs on one at most."""
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that share the run's work on the CPU, where `gpus` is 0."""
    labels: Annotated[list[Name], Field(max_length=16)] = []
    """Labels that the worker must offer."""

    @property
    def num_processes(self) -> int:
        """Processes that the run is started as."""
        return max(self.gpus, self.processes)

    @model_validator(mode="after")
    def _a_gpu_has_one_process(self) -> Self:
        if self.gpus and self.processes > 1:
            raise ValueError("processes: with `gpus` there is one process for each; leave it out")
        return self


def _reject_seed(config: Config) -> Config:
    if "seed" in config.model_fields_set:
        raise ValueError("seed: train seeds belong to the job's `seeds`")
    return config


_NoSeed = AfterValidator(_reject_seed)


class _JobSpec(Config):
    """What every kind of job has."""

    name: Name
    """Name of the job; unique in its experiment."""
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1, max_length=64)] = [0]
    """Train seeds: one run each."""
    method: Annotated[str, Field(max_length=64)] = ""
    """The name under which results are tabled; empty takes the job that made the evaluated policy."""
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    """Runs with a higher priority are claimed first."""
    after: Annotated[list[Name], Field(max_length=64)] = []
    """Jobs of the same experiment to wait for although no input comes from them."""
    resources: Resources = Resources()
    """What a run needs of the worker."""
    budget: Budget | None = None
    """What each of its runs may spend; null for no limit."""
    metadata: Metadata = {}
    """Labels of one's own."""

    @model_validator(mode="after")
    def _inputs_and_seeds_are_sound(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: a seed stands twice")
        list(references(self.config))  # type: ignore[attr-defined]
        return self


class SftSpec(_JobSpec):
    """Supervised warm-up."""

    kind: Literal["sft"]
    config: Annotated[SftConfig, _NoSeed]
    """The stage's configuration."""


class PairsSpec(_JobSpec):
    """Preference pairs from a policy's own completions."""

    kind: Literal["pairs"]
    config: Annotated[PairsConfig, _NoSeed]
    """The stage's configuration."""


class DpoSpec(_JobSpec):
    """DPO reward model."""

    kind: Literal["dpo"]
    config: Annotated[DpoConfig, _NoSeed]
    """The stage's configuration."""


class TrainingSpec(_JobSpec):
    """The RL loop."""

    kind: Literal["train"]
    config: Annotated[TrainConfig, _NoSeed]
    """The stage's configuration."""


class EvaluationSpec(_JobSpec):
    """Benchmarks of one policy."""

    kind: Literal["evaluation"]
    config: Annotated[EvalConfig, _NoSeed]
    """The stage's configuration."""

    @model_validator(mode="after")
    def _is_one_process(self) -> Self:
        if self.resources.num_processes > 1:
            raise ValueError("resources: an evaluation is one process; ask for one GPU at most")
        return self


class ScoreSpec(_JobSpec):
    """Outputs that exist already, graded."""

    kind: Literal["score"]
    config: Annotated[ScoreConfig, _NoSeed]
    """The stage's configuration."""


class ImportSpec(_JobSpec):
    """A model from the hub."""

    kind: Literal["import"]
    config: Annotated[ImportConfig, _NoSeed]
    """What is fetched."""


class ScoreRequest(Config):
    """Outputs to be graded, as `POST /v1/scores` takes them."""

    scoring: Scoring
    """What is graded, and how."""
    name: Name = "score"
    """Name of the job."""
    method: Annotated[str, Field(max_length=64)] = ""
    """The name under which the figures are tabled; empty takes the job's."""
    metadata: Metadata = {}
    """Labels of one's own."""

    @model_validator(mode="after")
    def _inputs_are_sound(self) -> Self:
        list(references(ScoreConfig(scoring=self.scoring)))
        return self

    def spec(self) -> ScoreSpec:
        """The job that grades them."""
        config = ScoreConfig(scoring=self.scoring)
        return ScoreSpec(kind="score", name=self.name, method=self.method, metadata=self.metadata, config=config)


class SampleSpec(_JobSpec):
    """Completions of a few prompts by a few policies, to be read side by side."""

    kind: Literal["sample"]
    config: Annotated[SampleConfig, _NoSeed]
    """The stage's configuration."""
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1, max_length=1)] = [0]
    """The train seed whose run is taken where a policy is a job."""

    @model_validator(mode="after")
    def _is_one_process(self) -> Self:
        if self.resources.num_processes > 1:
            raise ValueError("resources: a sampling is one process; ask for one GPU at most")
        return self


class SampleRequest(SampleTask):
    """Prompts to be completed, as `POST /v1/samples` takes them."""

    system_prompt: Annotated[str, Field(max_length=16_384)] = ""
    """What the chat template says before every prompt; empty for nothing."""
    train_seed: NonNegativeInt = 0
    """The run that is taken where a policy is a job with several."""
    gpus: Annotated[int, Field(ge=0, le=1)] = 0
    """GPUs that the sampling needs."""
    name: Name = "sample"
    """Name of the job."""
    metadata: Metadata = {}
    """Labels of one's own."""

    @model_validator(mode="after")
    def _policies_are_named(self) -> Self:
        list(references(self))
        return self

    def spec(self) -> SampleSpec:
        """The job that samples; somebody waits for it, so that it is claimed before others."""
        return SampleSpec(
            kind="sample",
            name=self.name,
            metadata=self.metadata,
            seeds=[self.train_seed],
            priority=50,
            resources=Resources(gpus=self.gpus),
            config=SampleConfig(**{name: getattr(self, name) for name in (*SampleTask.model_fields, "system_prompt")}),
        )


JobSpec = Annotated[
    SftSpec | PairsSpec | DpoSpec | TrainingSpec | EvaluationSpec | ScoreSpec | SampleSpec | ImportSpec,
    Field(discriminator="kind"),
]


class ExperimentSpec(Config):
    """Several jobs and how they depend on each other, run by run of one seed: by `job:NAME` inputs and `after`."""

    name: Name
    """Name of the experiment."""
    description: Annotated[str, Field(max_length=2000)] = ""
    """What it is for."""
    jobs: Annotated[list[JobSpec], Field(min_length=1, max_length=1000)]
    """The jobs, in any order."""
    metadata: Metadata = {}
    """Labels of one's own."""
    reuse: bool = True
    """Take over the outputs of runs that did the same already: equal configuration, train seed, inputs and program."""
    budget: Budget | None = None
    """What all runs together may spend; null for no limit. When it is spent, nothing more is started."""
    search: SearchSpec | None = None
    """Values that are searched for: an axis `trial`, whose jobs compete by a validation metric; null for none."""
    published: Annotated[list[PublishedResult], Field(max_length=2000)] = []
    """Numbers that others printed, shown beside ours in the table of results."""
    published_source: Annotated[str, Field(max_length=128)] = ""
    """Where those are printed that name no source of their own."""
    assumed: Assumed = {}
    """Values that whoever is reproduced does not state: place in the document -> reason."""
    pricing: PriceHints = PriceHints()
    """What the price needs to know beside the configurations; it changes no run."""

    @model_validator(mode="after")
    def _graph_is_sound(self) -> Self:
        by_name = {job.name: job for job in self.jobs}
        if len(by_name) != len(self.jobs):
            raise ValueError("jobs: two jobs have one name")
        for job in self.jobs:
            for dependency in dependencies(job):
                if dependency not in by_name:
                    raise ValueError(f"jobs.{job.name}: depends on {dependency!r}, which this experiment does not have")
                if missing := sorted(set(job.seeds) - set(by_name[dependency].seeds)):
                    raise ValueError(f"jobs.{job.name}.seeds: {missing} are not among those of {dependency!r}")
        in_order(self.jobs)
        return self


def dependencies(job: _JobSpec) -> list[str]:
    """Names of the jobs of the same experiment that a job waits for, each once, in order of mention."""
    inputs = [reference.value for reference in references(job.config) if reference.scheme == "job-name"]  # type: ignore[attr-defined]
    return list(dict.fromkeys([*inputs, *job.after]))


def in_order(jobs: list[Any]) -> list[Any]:
    """The jobs sorted so that each stands after those it depends on.

    Raises:
        ValueError: they depend on each other in a circle.
    """
    waiting = {job.name: set(dependencies(job)) for job in jobs}
    by_name = {job.name: job for job in jobs}
    ordered = []
    while waiting:
        ready = [name for name, needs in waiting.items() if not needs & waiting.keys()]
        if not ready:
            raise ValueError(f"jobs: {', '.join(sorted(waiting))} depend on each other in a circle")
        for name in ready:
            ordered.append(by_name[name])
            del waiting[name]
    return ordered


def method_of(job: _JobSpec) -> str:
    """The method under which results are tabled: as stated, else the job that made the policy, else the job itself."""
    if job.method:
        return job.method
    policies = [r.value for r in references(job.config) if r.pointer == ("policy",)]  # type: ignore[attr-defined]
    return policies[0] if isinstance(job, EvaluationSpec) and policies else job.name
