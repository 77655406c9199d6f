"""Experiments beyond their submission: matrices, documents, changed copies, differences; score jobs."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.client import Client
from store.queue import append_metrics
from store.rows import Collected, ResultRow
from tests.api.conftest import Hand

MATRIX = {
    "name": "sweep",
    "seeds": [3],
    "axes": {"rate": [1e-3, 1e-4]},
    "jobs": [
        {"name": "base", "kind": "sft", "config": {"policy": {"name": "llama"}, "prompts": {"name": "sums"}}},
        {
            "name": "more-{rate}",
            "each": ["rate"],
            "kind": "sft",
            "config": {
                "policy": "job:base",
                "prompts": {"name": "sums"},
                "optimizer": {"learning_rate": "{rate}"},
            },
        },
    ],
}


@pytest.fixture
def client(http: TestClient) -> Client:
    """A client of the application under test."""
    return Client("http://test", http.headers["authorization"].removeprefix("Bearer "), http=http)


def test_a_matrix_is_expanded_and_kept_as_it_was_written(client: Client) -> None:
    found = client.submit_experiment(MATRIX)
    assert [job.name for job in found.jobs] == ["base", "more-0.001", "more-0.0001"]
    rates = [client.job(job.id).spec["config"]["optimizer"]["learning_rate"] for job in found.jobs[1:]]
    assert rates == [1e-3, 1e-4]
    assert client.job(found.jobs[0].id).seeds == [3]
    assert client.experiment_document(found.id) == MATRIX


def test_a_mistake_in_an_expanded_job_is_told_in_the_template_with_the_jobs_name(http: TestClient) -> None:
    document = json.loads(json.dumps(MATRIX))
    document["axes"]["rate"] = [1e-3, "fast"]
    (error,) = http.post("/v1/experiments", json=document).json()["errors"]
    assert error["pointer"] == "/jobs/1/config/optimizer/learning_rate"
    assert error["message"].endswith("(in the job more-fast)")


def test_a_mistake_in_the_matrix_is_a_422_that_names_its_place(http: TestClient) -> None:
    answer = http.post("/v1/experiments", json=MATRIX | {"axes": {"rate": []}})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/axes/rate")


def test_a_changed_copy_knows_its_original_and_what_differs(
    client: Client, http: TestClient, experiment: dict[str, Any]
) -> None:
    original = client.submit_experiment(experiment)
    patch = {"name": "longer", "jobs": {"warm-up": {"config": {"steps": 7}}}}
    copy = client.clone_experiment(original.id, patch)
    assert (copy.name, copy.cloned_from) == ("longer", original.id)
    by_itself = http.get(f"/v1/experiments/{copy.id}/diff").json()
    assert [change["pointer"] for change in by_itself["data"]] == ["/name", "/jobs/warm-up/config/steps"]
    found = {change.pointer: (change.before, change.after) for change in client.diff_experiments(original.id, copy.id)}
    assert found == {"/name": ("demo", "longer"), "/jobs/warm-up/config/steps": (None, 7)}
    assert http.get(f"/v1/experiments/{original.id}/diff").json()["errors"][0]["pointer"] == "/query/against"


def test_a_copy_that_is_wrong_is_refused_and_leaves_nothing(client: Client, http: TestClient) -> None:
    original = client.submit_experiment(MATRIX)
    answer = http.post(f"/v1/experiments/{original.id}/clone", json={"jobs": {"base": {"config": {"stepz": 1}}}})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/jobs/0/config/stepz")
    assert len(list(client.experiments())) == 1


def test_a_score_job_is_listed_with_its_figures_to_come(client: Client) -> None:
    rows = [{"id": "a", "answer": "1", "reference": "1"}]
    job = client.submit_score({"scoring": {"name": "math", "rows": rows}})
    assert (job.kind, job.status) == ("score", "queued")
    found = client.score(job.id)
    assert (found.scoring, found.figures, found.runs[0].rows_url) == ("math", None, None)
    assert [item.id for item in client.scores()] == [job.id]
    assert list(client.outputs(found.runs[0].id)) == []


def test_a_score_of_a_bare_path_is_refused(http: TestClient) -> None:
    response = http.post("/v1/scores", json={"scoring": {"name": "math", "rows": "/etc/passwd"}})
    assert response.status_code == 422
    assert "scoring.rows" in response.json()["detail"]


def test_a_job_of_another_kind_is_no_score(http: TestClient, job: dict[str, Any]) -> None:
    made = http.post("/v1/jobs", json=job).json()
    assert http.get(f"/v1/scores/{made['id']}").status_code == 404
    assert http.get(f"/v1/runs/{made['runs'][0]['id']}/outputs/score").status_code == 404


@pytest.fixture
def two_methods(client: Client, experiment: dict[str, Any], hand: Hand) -> str:
    """An experiment with two evaluated methods."""
    other = json.loads(json.dumps(experiment["jobs"][0])) | {"name": "eval-other", "method": "other"}
    found = client.submit_experiment(experiment | {"jobs": [*experiment["jobs"], other]})
    for _ in range(found.num_runs):
        claim = hand.claim()
        value = 0.5 * (claim.method == "other") + 0.1 * claim.seed * (1 + (claim.method == "other"))
        row = ResultRow(benchmark="sums", metric="pass@1", decoding="t1.0", eval_seed=0, value=value, num_examples=4)
        hand.finish(claim, collected=Collected(results=[row] if claim.kind == "evaluation" else []))
    return found.id


def test_methods_are_compared_over_http(client: Client, http: TestClient, two_methods: str) -> None:
    (found,) = client.comparisons(two_methods, "warm-up")
    assert (found.method, found.seeds, found.sign_flip_p) == ("other", [0, 1], 0.5)
    assert found.differences == pytest.approx([0.5, 0.6])
    answer = http.get("/v1/comparisons", params={"experiment": two_methods, "baseline": "none"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/query/baseline")
    answer = http.get("/v1/comparisons", params={"experiment": two_methods})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/query/baseline")


def test_curves_of_an_experiment_are_over_the_seeds_of_each_job(
    client: Client, http: TestClient, experiment: dict[str, Any], hand: Hand
) -> None:
    found = client.submit_experiment(experiment)
    assert client.curves(found.id).curves == []
    claims = [hand.claim() for _ in range(2)]
    for claim in claims:
        rows = [(step, {"train/entropy": float(step + claim.seed), "own": 1.0}) for step in (1, 2)]
        with hand.database.write() as session:
            append_metrics(session, claim, rows)
    (curve,) = client.curves(found.id).curves
    assert (curve.job, curve.key) == (claims[0].job_name, "train/entropy")
    assert [(point.step, point.mean, point.n) for point in curve.points] == [(1, 1.5, 2), (2, 2.5, 2)]
    assert curve.points[0].std == pytest.approx(0.5**0.5)
    assert [one.key for one in client.curves(found.id, ["own"], kind=curve.kind, max_points=1).curves] == ["own"]
    assert client.curves(found.id, kind="evaluation").curves == []
    assert http.get(f"/v1/experiments/{found.id}/curves", params={"max_points": 0}).status_code == 422


def test_the_table_is_printed_in_every_form(client: Client, http: TestClient, two_methods: str) -> None:
    assert "other,sums,pass@1,t1.0," in client.printed_table(two_methods, "csv")
    assert "| other | **60.00" in client.printed_table(two_methods, "markdown", baseline="warm-up")
    for form, media_type in (("latex", "application/x-latex"), ("html", "text/html")):
        answer = http.get("/v1/results/table", params={"experiment": two_methods, "format": form})
        assert answer.headers["content-type"].startswith(media_type)
        assert "other" in answer.text
    assert http.get("/v1/results/table", params={"experiment": two_methods, "metric": "none"}).json()["rows"] == []
