"""Runs and checkpoints side by side."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.client import Client
from store.ids import encode_id
from store.queue import append_metrics
from store.rows import CheckpointRow, Collected, ResultRow
from tests.api.conftest import Hand

POLICY = {"name": "llama"}


def played(client: Client, hand: Hand, rate: float) -> tuple[str, str]:
    """The id of a finished run with a model, and of the model's checkpoint."""
    config = {"policy": POLICY, "prompts": {"name": "sums"}, "optimizer": {"learning_rate": rate}}
    client.submit({"kind": "sft", "name": f"sft-{rate:g}", "config": config})
    claim = hand.claim()
    with hand.database.write() as session:
        append_metrics(session, claim, [(1, {"train/loss": rate}), (2, {"train/loss": rate / 2})])
    run = encode_id("run", claim.run_id)
    row = CheckpointRow(step=2, path=f"runs/{run}/1/model", manifest_sha256="0" * 64, size_bytes=1)
    hand.finish(claim, collected=Collected(models=[row]))
    return run, next(client.checkpoints(run=run)).id


def measured(client: Client, hand: Hand, checkpoint: str, values: list[float]) -> str:
    """The id of an evaluation run."""
    config = {"policy": checkpoint, "benchmarks": [{"name": "sums"}]}
    client.submit({"kind": "evaluation", "name": "measure", "config": config})
    claim = hand.claim()
    rows = [
        ResultRow(benchmark="sums", metric="pass@1", decoding="t1.0", eval_seed=seed, value=value, num_examples=4)
        for seed, value in enumerate(values)
    ]
    hand.finish(claim, collected=Collected(results=rows))
    return encode_id("run", claim.run_id)


def test_two_runs_differ_where_they_were_configured_differently(client: Client, hand: Hand) -> None:
    (first, model), (second, _) = played(client, hand, 0.01), played(client, hand, 0.001)
    measured(client, hand, model, [0.5, 1.0])
    found = client.compare([first, second])
    assert [one.label for one in found.subjects] == ["sft-0.01 seed 0", "sft-0.001 seed 0"]
    assert [(row.pointer, row.values) for row in found.configuration] == [
        ("/config/optimizer/learning_rate", [0.01, 0.001])
    ]
    assert [(row.key, row.values) for row in found.metrics] == [("train/loss", [0.005, 0.0005])]
    (result,) = found.results
    assert (result.benchmark, result.values, result.num_eval_seeds) == ("sums", [0.75, None], [2, 0])


def test_checkpoints_and_evaluation_runs_are_compared_too(client: Client, hand: Hand) -> None:
    _, model = played(client, hand, 0.01)
    runs = [measured(client, hand, model, [value]) for value in (0.25, 0.75)]
    found = client.compare([model, *runs])
    assert found.subjects[0].id == model and found.subjects[0].kind == "sft"
    assert [result.values for result in found.results] == [[0.75, 0.25, 0.75]], "the newest of a checkpoint"
    assert "/kind" in [row.pointer for row in found.configuration]


@pytest.mark.parametrize(
    ("ids", "pointer"),
    [
        ("", "/query/ids"),
        ("run_a", "/query/ids"),
        ("run_a,run_a", "/query/ids"),
        ("job_01m83pgc19e3ss96pfhps2pfsy,run_01m83pgc19e3ss96pfhps2pfsy", "/ids/0"),
        ("run_01m83pgc19e3ss96pfhps2pfsy,ckpt_01m83pgc19e3ss96pfhps2pfsy", "/ids/0"),
    ],
)
def test_what_cannot_be_compared_is_named(http: TestClient, ids: str, pointer: str) -> None:
    answer = http.get("/v1/comparisons/runs", params={"ids": ids})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


def test_the_command_line_prints_them(lco: Any, client: Client, hand: Hand) -> None:
    (first, _), (second, _) = played(client, hand, 0.01), played(client, hand, 0.001)
    code, out, _ = lco("compare", first, second)
    assert code == 0 and "/config/optimizer/learning_rate" in out and "0.005" in out
    assert lco("compare", first)[0] == 2
