"""Prices and checks of documents: over HTTP, by the client, on the command line; printed numbers beside ours."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api import cli
from api.client import Client
from store.queue import append_metrics
from store.rows import Collected, ResultRow
from tests.api.conftest import Hand

PAPER = Path(__file__).parents[2] / "experiments" / "paper"


@pytest.fixture
def client(http: TestClient) -> Client:
    """A client of the application under test."""
    return Client("http://test", http.headers["authorization"].removeprefix("Bearer "), http=http)


def test_a_price_needs_no_input_to_be_there_and_keeps_nothing(
    client: Client, http: TestClient, experiment: dict[str, Any]
) -> None:
    found = client.price_experiment(experiment)
    assert (found.num_jobs, found.num_runs) == (2, 4)
    assert 0 < found.device_hours_low < found.device_hours_high
    assert [part.name for part in found.jobs[0].memory][:2] == ["runtime", "weights"]
    assert client.price_experiment(experiment, device="a100").device.startswith("A100")
    experiment["jobs"][1]["config"]["policy"] = "model:qwen2.5-3b"
    assert client.price_experiment(experiment).operations > 1e15
    assert list(client.experiments()) == []
    experiment["jobs"][1]["config"]["stepz"] = 1
    answer = http.post("/v1/experiments/price", json=experiment)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/jobs/1/config/stepz")
    assert http.post("/v1/experiments/price", params={"device": "abacus"}, json=experiment).status_code == 422


def test_documents_are_checked_without_a_platform(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(PAPER / "table-4.toml", tmp_path)
    wrong = (PAPER / "figure-2.toml").read_text().replace("beta = 0.1", 'beta = "much"')
    (tmp_path / "wrong.toml").write_text(wrong)
    assert cli.main(["experiments", "check", str(tmp_path), "--jobs"]) == 1
    told = capsys.readouterr()
    assert "paper-table-4" in told.out
    assert "lco-kld-qwen3-4b" in told.out
    assert "/jobs/2/config/algorithm" in told.err
    assert cli.main(["experiments", "check", str(tmp_path / "table-4.toml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["num_published"] == 18
    assert cli.main(["experiments", "check", str(tmp_path / "none")]) == 1 or "none" in capsys.readouterr().err


PUBLISHED = [
    {"method": "warm-up", "benchmark": "sums", "metric": "pass@1", "decoding": "t1.0", "value": 0.614, "std": 0.0201},
    {"method": "theirs", "benchmark": "sums", "metric": "pass@1", "decoding": "t1.0", "value": 0.5, "source": "p. 3"},
]


def test_printed_numbers_stand_beside_ours_in_every_form(
    client: Client, http: TestClient, experiment: dict[str, Any], hand: Hand
) -> None:
    document = experiment | {"published": PUBLISHED, "published_source": "table 1"}
    found = client.submit_experiment(document)
    (first, _) = client.results_table(experiment=found.id).rows
    assert (first.mean, first.n, first.per_seed, first.published and first.published.value) == (None, 0, [], 0.614)
    for _ in range(found.num_runs):
        claim = hand.claim()
        row = ResultRow(benchmark="sums", metric="pass@1", decoding="t1.0", eval_seed=0, value=0.25, num_examples=4)
        hand.finish(claim, collected=Collected(results=[row] if claim.kind == "evaluation" else []))
    ours, theirs = client.results_table(experiment=found.id).rows
    assert ours.published is not None
    assert theirs.published is not None
    assert (ours.mean, ours.published.std, ours.published.source) == (0.25, 0.0201, "table 1")
    assert (theirs.mean, theirs.configuration, theirs.published.source) == (None, ours.configuration, "p. 3")
    assert "0.614,0.0201,table 1" in client.printed_table(found.id, "csv")
    assert "25.00 ± 0.00 (2) [61.40 ± 2.01]" in client.printed_table(found.id, "markdown")
    assert r"[61.40 $\pm$ 2.01]" in client.printed_table(found.id, "latex")
    page = http.get(f"/experiments/{found.id}").text
    assert "published 61.40 &plusmn; 2.01" in page
    assert "published 50.00" in page
    assert http.get(f"/experiments/{found.id}/compare").status_code == 200


def test_what_was_spent_stands_beside_the_budget(
    client: Client, http: TestClient, experiment: dict[str, Any], hand: Hand
) -> None:
    experiment["jobs"][1]["budget"] = {"tokens": 1000}
    found = client.submit_experiment(experiment | {"budget": {"wall_seconds": 3600}})
    claim = hand.claim()
    with hand.database.write() as session:
        append_metrics(session, claim, [(1, {"train/num_tokens": 123.0})])
    shown = client.experiment(found.id)
    assert shown.budget is not None
    assert shown.spent is not None
    assert (shown.budget.wall_seconds, shown.budget.tokens, shown.spent.tokens) == (3600, None, 123)
    assert 0 <= shown.spent.wall_seconds < 60
    (warm_up,) = [job for job in client.jobs() if job.budget is not None]
    assert (warm_up.name, warm_up.spent and warm_up.spent.tokens) == ("warm-up", 123)
    assert [job.spent for job in client.jobs() if job.budget is None] == [None]
    page = http.get(f"/experiments/{found.id}").text
    assert "of 1 h 00 min" in page
    assert "1,000 tokens" in http.get(f"/jobs/{warm_up.id}").text
    wrong = experiment | {"budget": {"wall_seconds": 0}}
    assert http.post("/v1/experiments", json=wrong).json()["errors"][0]["pointer"] == "/budget/wall_seconds"


def test_a_dry_run_prints_the_price_and_what_would_be_refused_and_submits_nothing(
    live: str,
    make_key: Any,
    client: Client,
    experiment: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LCO_URL", live)
    monkeypatch.setenv("LCO_API_KEY", make_key())
    file = tmp_path / "experiment.json"
    file.write_text(json.dumps(experiment))
    assert cli.main(["submit", str(file), "--dry-run", "--seeds", "3"]) == 0
    told = capsys.readouterr().out
    assert "eval-warm-up" in told
    assert "device hours" in told
    job = experiment["jobs"][1] | {"config": {"policy": "model:none", "prompts": {"name": "sums"}}}
    file.write_text(json.dumps(job))  # a job of its own, too
    assert cli.main(["submit", str(file), "--dry-run"]) == 1
    told = capsys.readouterr()
    assert "sft" in told.out  # the price, all the same
    assert "/jobs/0/config/policy" in told.err or "model" in told.err
    assert list(client.jobs()) == []
