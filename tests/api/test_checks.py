"""A document is tried out: told what it would make and what is wrong, and nothing is kept."""

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api import cli
from api.client import Client
from api.dashboard.forms import EXAMPLE
from store.database import Database
from store.models.job import Experiment, Job
from tests.api.conftest import BASE_URL, Hand
from tests.api.test_jobs import evaluate


def test_a_document_is_told_what_it_would_make_and_nothing_is_kept(
    http: TestClient, experiment: dict[str, Any], database: Database
) -> None:
    answer = http.post("/v1/experiments/check", json=experiment)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["name"], found["num_jobs"], found["num_runs"], found["num_reused"]) == ("demo", 2, 4, 0)
    assert [(job["name"], job["needs"], job["seeds"]) for job in found["jobs"]] == [
        ("warm-up", [], [0, 1]),
        ("eval-warm-up", ["warm-up"], [0, 1]),
    ]
    with database.read() as session:
        assert session.query(Experiment).count() == session.query(Job).count() == 0


def test_what_a_submission_refuses_a_check_refuses_in_the_same_words(
    http: TestClient, experiment: dict[str, Any]
) -> None:
    experiment["jobs"][1]["config"]["policy"] = "job_00000000000000000000000000"
    answers = [http.post(path, json=experiment) for path in ("/v1/experiments", "/v1/experiments/check")]
    assert [answer.status_code for answer in answers] == [422, 422]
    assert answers[0].json()["errors"] == answers[1].json()["errors"] != []


def test_a_changed_copy_is_told_what_differs(http: TestClient, experiment: dict[str, Any], hand: Hand) -> None:
    identifier = evaluate(http, experiment, hand)
    patch = {"jobs": {"eval-warm-up": {"config": {"batch_size": 7}}}}
    found = http.post(f"/v1/experiments/{identifier}/clone/check", json=patch).json()
    assert [change["pointer"] for change in found["changes"]] == ["/jobs/eval-warm-up/config/batch_size"]
    assert http.post("/v1/experiments/exp_00000000000000000000000000/clone/check", json={}).status_code == 404


def test_the_forms_example_is_accepted(http: TestClient) -> None:
    answer = http.post("/v1/experiments/check", content=EXAMPLE, headers={"Content-Type": "application/toml"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["num_runs"] == 4


def test_client_and_command_line_check_too(
    anonymous: TestClient, http: TestClient, experiment: dict[str, Any], live: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    key = http.headers["Authorization"].removeprefix("Bearer ")
    client = Client(BASE_URL, key, http=anonymous)
    assert client.check_experiment(experiment).num_runs == 4
    submitted = client.submit_experiment(experiment)
    assert client.check_clone(submitted.id, {"description": "other"}).changes[0].after == "other"
    monkeypatch.setenv("LCO_URL", live)
    monkeypatch.setenv("LCO_API_KEY", key)
    path = tmp_path / "patch.json"
    path.write_text(json.dumps({"description": "other"}))
    assert cli.main(["check", str(path), "--of", submitted.id]) == 0
    text = capsys.readouterr().out
    assert '/description  "small"  "other"' in text
    assert "2 jobs, 4 runs, 0 of them reused; nothing was submitted" in text
