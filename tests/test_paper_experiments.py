"""`experiments/paper`: documents that are sound, say where each value comes from, and print the paper's numbers."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lco
from api.bodies import SubmittedExperiment, experiment_of
from api.parsers.experiments import DEVICES as PARSED_DEVICES
from lco.algorithms import LcoConfig
from store.document_parts import check_assumed
from store.errors import Invalid
from store.pricing import DEVICES, price
from store.specs import EvaluationSpec, TrainingSpec

ROOT = Path(__file__).parent.parent
FILES = {path.stem: path for path in sorted((ROOT / "experiments" / "paper").glob("*.toml"))}
DOCUMENTS = {name: tomllib.loads(path.read_text()) for name, path in FILES.items()}
STATED = re.compile(
    r"/jobs/[^/]+/(kind|each|name|method|seeds)(/.*)?"  # how the document itself is built
    r"|/axes/(lco|grouped|arm)(/.*)?|/axes/(model|single|source)/[^/]+/(name|label|reward_model)"  # 5
    r"|/jobs/[^/]+/config/(policy|pairs|prompts)(/.*)?"  # data: 5, "training data"; who is trained on what
    r"|/jobs/[^/]+/config/(epochs|group_size)"  # one epoch of the reward model; four responses, else one
    r"|/jobs/[^/]+/config/sampling/(temperature|top_p)"  # 0.6 and 0.95
    r"|/jobs/(rm|lco)[^/]*/config/optimizer/learning_rate"  # 1e-6; 5e-6 for LCO
    r"|/jobs/[^/]+rule[^/]*/config/algorithm.*|/jobs/\{lco\}[^/]*/config/(algorithm|optimizer/learning_rate).*"  # 6
    r"|/jobs/lco[^/]*/config/algorithm/(name|support|center|advantage)(/.*)?"  # equations 7 to 10 and 13, 4.4
)
"""What the paper states, in section 5 unless said otherwise."""


@pytest.fixture(params=FILES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def leaves(value: Any, path: str = "") -> Iterator[str]:
    """Places of all plain values, items of lists by their name; what an axis gives is judged there."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}/{key}")
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        for position, item in enumerate(value):
            yield from leaves(item, f"{path}/{item.get('name', position)}")
    elif not (isinstance(value, str) and re.fullmatch(r"\{[^{}]+\}", value)):
        yield path


def submitted(name: str) -> SubmittedExperiment:
    return experiment_of(DOCUMENTS[name])


def test_each_table_and_each_figure_that_needs_training_has_a_document() -> None:
    assert set(FILES) == {f"table-{n}" for n in range(1, 7)} | {f"figure-{n}" for n in (1, 2, 6, 7)} | {"math-pairs"}


def test_a_document_is_sound_and_every_job_has_a_price(name: str) -> None:
    found = price(submitted(name).spec)
    assert not [job.problem for job in found.jobs if job.problem]
    assert 0 < found.hours.low < found.hours.high


def test_a_value_is_stated_by_the_paper_or_marked_as_assumed_with_a_reason(name: str) -> None:
    document = DOCUMENTS[name]
    assumed = [re.compile(re.escape(path).replace(r"\*", "[^/]+") + "(/.*)?") for path in document["assumed"]]
    for path in leaves({key: document[key] for key in ("seeds", "axes", "jobs")}):
        assert STATED.fullmatch(path) or any(one.fullmatch(path) for one in assumed), path
    assert all(len(reason) > 9 for reason in document["assumed"].values())


def test_only_pi_star_and_the_samplers_of_pairs_need_more_than_a_device_of_80_gb(name: str) -> None:
    too_large = {job.name for job in price(submitted(name).spec).jobs if job.fits is False}
    assert all(job.startswith(("eval-optimal", "pairs-")) for job in too_large)


def test_the_objectives_are_those_of_the_preset(name: str) -> None:
    preset = tomllib.loads((Path(lco.__file__).parent / "presets" / "paper.toml").read_text())
    for job in submitted(name).spec.jobs:
        if not isinstance(job, TrainingSpec) or not isinstance(job.config.algorithm, LcoConfig):
            continue
        algorithm = job.config.algorithm
        table = dict(preset[algorithm.name if algorithm.advantage.name == "dpo" else f"{algorithm.name}-rule"])
        if algorithm.advantage.name == "dpo-ratio":  # table 5's rows with a reward model: the preset has the rule's
            table |= {"advantage": algorithm.advantage.model_dump(), "scale": "global"}
        elif algorithm.advantage.name == "dpo":
            table["advantage"] = {**table["advantage"], "reward_model": algorithm.advantage.reward_model}
        assert type(algorithm).model_validate(table) == algorithm


def test_every_printed_number_stands_beside_a_row_of_ours() -> None:
    numbers = {"table-1": 66, "table-2": 88, "table-3": 66, "table-4": 18, "table-5": 48, "table-6": 28}
    for name, count in numbers.items():
        spec = submitted(name).spec
        ours = {
            (job.method, benchmark.name)
            for job in spec.jobs
            if isinstance(job, EvaluationSpec)
            for benchmark in job.config.benchmarks
        }
        assert {(one.method, one.benchmark) for one in spec.published} == ours
        keys = {(one.method, one.benchmark, one.metric, one.decoding) for one in spec.published}
        assert len(keys) == len(spec.published) == count
        assert spec.published_source.endswith(f"table {name[-1]}")


@pytest.mark.parametrize(
    ("table", "method", "benchmark", "metric", "value"),
    [
        ("table-1", "Qwen2.5-3B LCO-LCH", "math-500", "pass@1", (0.614, 0.0201)),
        ("table-1", "Qwen2.5-3B LCO-KLD", "minerva-math", "pass@1", (0.1671, 0.0097)),
        ("table-1", "Qwen3-4B LCO-KLD", "amc-23", "pass@1", (0.555, 0.0188)),
        ("table-1", "Qwen3-4B RM", "minerva-math", "pass@1", (0.1654, 0.0134)),
        ("table-2", "Llama-3.2-3B LCO-KLD", "qa-feedback", "factuality", (0.817, None)),
        ("table-2", "Ministral-3-3B RM", "qa-feedback", "average", (0.556, 0.013)),
        ("table-3", "Qwen3-4B LCO-KLD", "alpaca-eval-2", "length_controlled_winrate", (32.93, 0.03)),
        ("table-3", "Ministral-3-3B LCO-KLD", "alpaca-eval-2", "win_rate", (26.81, 1.23)),
        ("table-4", "Qwen2.5-3B GKD", "amc-23", "pass@1", (0.3495, 0.0145)),
        ("table-5", "Qwen3-1.7B DPO-RM: LCO-LCH", "math-500", "pass@1", (0.647, 0.0193)),
        ("table-5", "Qwen2.5-1.5B rule RM: GRPO", "minerva-math", "pass@1", (0.0865, 0.0083)),
        ("table-6", "Qwen2.5-3B DAPO", "mmlu-redux", "accuracy", (0.5249, 0.0134)),
    ],
)
def test_the_numbers_are_the_papers(
    table: str, method: str, benchmark: str, metric: str, value: tuple[float, float | None]
) -> None:
    """Those that the paper's prose repeats, and some at the tables' edges."""
    (found,) = [
        one
        for one in submitted(table).spec.published
        if (one.method, one.benchmark, one.metric) == (method, benchmark, metric)
    ]
    assert (found.value, found.std) == value


def test_the_parser_knows_the_devices_that_are_priced() -> None:
    assert set(PARSED_DEVICES) == set(DEVICES)


def test_a_place_that_is_assumed_must_exist() -> None:
    document = {"jobs": [{"name": "sft", "config": {"steps": 3}}], "assumed": {"/jobs/sft/config/steps": "why not"}}
    check_assumed(document)
    check_assumed(document | {"assumed": {"/jobs/*/config": "all of it"}})
    with pytest.raises(Invalid) as wrong:
        check_assumed(document | {"assumed": {"/jobs/sft/config/stepz": "a slip"}})
    assert wrong.value.pointer == "/assumed/~1jobs~1sft~1config~1stepz"
