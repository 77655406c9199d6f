"""Each kind of scoring from `Client` to its figures, a sampling to its completions, a declared reward to its rollouts:
through real processes of an embedded platform.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

from api.client import Client
from api.local_platform import LocalPlatform
from api.rollout_schemas import RolloutRead
from api.sample_schemas import SampleRead
from api.schemas import RunRead
from api.service_schemas import ScoreRead
from lco.config import LlamaInit, StageConfig
from lco.initial import initial_policy
from store.settings import Settings
from store.specs import Scoring
from tests.lco.longformers import save_qa_feedback

pytestmark = pytest.mark.timeout(300)

SUMS = {"name": "sums", "problems": {"name": "sums", "split": "test", "num_problems": 5}, "max_tokens": 4}
TINY = LlamaInit(hidden_size=16, intermediate_size=32, num_layers=1, num_heads=2, max_positions=64)
MATH = [{"id": "a", "answer": "0.5", "reference": r"\frac12"}, {"id": "a", "completion": "dunno", "reference": "0.5"}]
MMLU = [
    {"subject": "law", "id": 1, "prediction": "A", "answer": "A"},
    {"subject": "law", "id": 2, "prediction": None, "answer": "B"},
    {"subject": "art", "id": 1, "prediction": "C", "answer": "C"},
]
OUTPUTS = {"output_1": "a", "output_2": "b", "generator_1": "base", "generator_2": "mine"}
ANNOTATIONS = [{"instruction": f"i{n}", **OUTPUTS, "preference": p} for n, p in enumerate((1.0, 2.0, 1.5, 2.0))]
QUESTION = "question: who? context: wikipage: Tower text: It was built in 1999."
RESPONSES = [{"id": 0, "question": "who?", "prompt": QUESTION, "response": "Two men built it, it is said, in 1999."}]


def training(function: str) -> dict[str, Any]:
    """A short training job, rewarded by its answers and by a declared function."""
    parts = [
        {"name": "answer", "reward": {"extraction": "last-equals"}},
        {"name": "own", "weight": 0.1, "reward": {"name": "python", "function": function}},
    ]
    config = {
        "algorithm": {"name": "grpo"},
        "policy": "model:tiny",
        "prompts": {"name": "sums", "num_problems": 8, "num_terms": 2},
        "reward": {"name": "weighted", "parts": parts},
        "sampling": {"max_tokens": 5},
        "group_size": 2,
        "prompts_per_iteration": 4,
        "iterations": 2,
    }
    return {"kind": "train", "name": f"train-{function}", "config": config}


@dataclass(frozen=True, slots=True)
class Played:
    """What became of the score jobs."""

    sample: SampleRead
    """A question to two policies."""
    runs: dict[str, RunRead]
    """Trained with a function that the operator declared, by its name."""
    rollouts: list[RolloutRead]
    """Of the run that is rewarded by `length`."""
    scores: dict[str, ScoreRead]
    rows: dict[str, list[dict[str, Any]]]
    results: dict[str, dict[str, float | None]]
    """Kind -> metric -> value."""


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """All of them on one platform."""
    directory = tmp_path_factory.mktemp("scores")
    settings = Settings(data_dir=directory / "var")
    save_qa_feedback(settings.models)
    initial_policy(TINY, StageConfig(device="cpu")).save(settings.models / "tiny")
    settings.data.mkdir(parents=True)
    (settings.data / "mmlu.jsonl").write_text("".join(json.dumps(row) + "\n" for row in MMLU))
    environment = {"LCO_PORT": "0", "LCO_POLL_SECONDS": "0.05", "PYTHONPATH": str(Path(__file__).parents[1])}
    environment["LCO_REWARDS"] = "length=tests.lco.declared_rewards:length,raises=tests.lco.declared_rewards:raises"
    with (
        LocalPlatform(settings.data_dir, environment=environment) as platform,
        Client(platform.url, settings=settings) as client,
    ):
        config = {"policy": "model:tiny", "benchmarks": [SUMS], "decodings": ["greedy"]}
        evaluation = client.submit({"kind": "evaluation", "name": "evaluation", "config": config})
        models = {name: f"model:{name}" for name in ("relevance", "factuality", "completeness")}
        scorings: dict[str, dict[str, Any]] = {
            "math": {"rows": MATH},
            "mmlu": {"rows": "data:mmlu.jsonl"},
            "alpaca-eval": {"annotations": ANNOTATIONS},
            "qa-feedback": {"rows": RESPONSES, **models},
            "completions": {"completions": evaluation.id, "benchmark": SUMS},
        }
        jobs = {
            name: client.submit_score({"name": name, "scoring": {"name": name, **scoring}})
            for name, scoring in scorings.items()
        }
        for job in (evaluation, *jobs.values()):
            ended = client.wait(job.id, timeout_seconds=200, poll_seconds=0.1)
            assert ended.status == "succeeded", (job.name, [run.error for run in client.runs(job=job.id)])
        policies = [{"policy": "model:tiny", "label": name} for name in ("one", "other")]
        ask = {"policies": policies, "prompts": ["1+1=", "9" * 99], "eval_seeds": [0, 1], "max_tokens": 5}
        asked = client.submit_sample(ask)
        trained = {name: client.submit(training(name)) for name in ("length", "raises")}
        for job in (asked, *trained.values()):
            client.wait(job.id, timeout_seconds=200, poll_seconds=0.1)
        runs = {name: next(client.runs(job=job.id)) for name, job in trained.items()}
        scores = {name: client.score(job.id) for name, job in jobs.items()}
        rows = {name: client.output(score.runs[0].id, "rows") for name, score in scores.items()}
        yield Played(
            sample=client.sample(asked.id),
            runs=runs,
            rollouts=list(client.rollouts(runs["length"].id)),
            scores=scores,
            rows={name: [json.loads(line) for line in content.splitlines()] for name, content in rows.items()},
            results={
                name: {row.metric: row.value for row in client.results(run=score.runs[0].id)}
                for name, score in scores.items()
            },
        )


def test_math_has_its_figures_rows_and_results(played: Played) -> None:
    figures = played.scores["math"].figures
    assert figures is not None
    assert (figures["pass@1"], figures["num_problems"], figures["num_rows"]) == (0.5, 1, 2)
    assert [row["verdict"] for row in played.rows["math"]] == ["correct", "no_answer"]
    assert played.results["math"]["pass@1"] == 0.5


def test_mmlu_is_read_from_the_operators_data(played: Played) -> None:
    figures = played.scores["mmlu"].figures
    assert figures is not None
    assert (figures["micro"], figures["macro"]) == (pytest.approx(2 / 3), 0.75)
    assert figures["answered_only"] == {"micro": 1.0, "macro": 1.0, "n": 2}
    assert len(played.rows["mmlu"]) == 3
    assert played.results["mmlu"]["answered_only/micro"] == 1.0


def test_annotations_have_their_win_rates_in_percent(played: Played) -> None:
    figures = played.scores["alpaca-eval"].figures
    assert figures is not None
    assert (figures["win_rate"], figures["discrete_win_rate"], figures["n_total"]) == (62.5, 62.5, 4)
    assert figures["length_controlled_winrate"] is None and figures["reason"]
    assert played.results["alpaca-eval"]["win_rate"] == 62.5


def test_responses_are_scored_by_imported_models(played: Played) -> None:
    figures = played.scores["qa-feedback"].figures
    assert figures is not None
    [row] = played.rows["qa-feedback"]
    assert row["id"] == 0
    assert played.results["qa-feedback"]


def test_completions_of_an_evaluation_are_scored_again_with_the_same_verdicts(played: Played) -> None:
    figures = played.scores["completions"].figures
    assert figures is not None
    assert (figures["benchmark"], figures["n"], figures["num_changed"]) == ("sums", 5, 0)
    assert [row["verdict"] == row["verdict_before"] for row in played.rows["completions"]] == [True] * 5
    [pass_at_1] = [row for row in figures["results"] if row["metric"] == "pass@1"]
    assert played.results["completions"]["pass@1"] == pass_at_1["value"]


def test_every_kind_of_scoring_is_played(played: Played) -> None:
    kinds = {member.model_fields["name"].default for member in get_args(get_args(Scoring)[0])}
    assert played.scores.keys() == kinds


def test_a_question_is_answered_by_each_policy(played: Played) -> None:
    found = played.sample
    assert (found.status, found.error, len(found.rows)) == ("succeeded", None, 8)
    said = {(row.policy, row.eval_seed): row for row in found.rows if row.prompt == 0}
    assert said[0, 0].completion == said[1, 0].completion, "one model asked twice"
    assert all(len(row.pieces) == len(row.logprobs) > 0 for row in said.values())
    assert all("positions" in str(row.error) for row in found.rows if row.prompt == 1)


def test_a_declared_function_rewards_a_run_whose_rollouts_are_kept(played: Played) -> None:
    run = played.runs["length"]
    assert (run.state, run.attempt) == ("succeeded", 1), run.error
    assert {(one.iteration, one.position) for one in played.rollouts} == {(i, p) for i in (0, 1) for p in range(4)}
    for one in played.rollouts:
        assert one.parts["own"] == len(one.completion)
        assert one.reward == pytest.approx((one.parts["answer"] or 0) + 0.1 * len(one.completion), abs=1e-4)
        assert len(one.pieces) == len(one.advantages) == len(one.logprobs) == one.num_tokens


def test_a_function_that_always_raises_ends_its_run_at_the_start(played: Played) -> None:
    run = played.runs["raises"]
    assert (run.state, run.attempt) == ("failed", 1)
    assert run.error is not None and "the function raises raised RuntimeError" in run.error.message
