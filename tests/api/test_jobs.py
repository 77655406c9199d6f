"""Jobs, experiments and runs: submission, lists, verbs, and what runs leave behind."""

from typing import Any

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from api import schemas
from store import queue
from store.database import Database
from store.ids import decode_id, encode_id, new_id
from store.models.record import Event, LogChunk
from store.rows import CheckpointRow, Collected, CompletionRow, ResultRow
from store.states import Outcome
from tests.api.conftest import Hand


def test_job_is_created_with_a_run_per_seed(http: TestClient, job: dict[str, Any]) -> None:
    response = http.post("/v1/jobs", json=job)
    assert response.status_code == 201, response.text
    found = schemas.JobRead.model_validate(response.json())
    assert response.headers["location"] == f"/v1/jobs/{found.id}"
    assert (found.status, found.seeds, found.metadata) == ("queued", [0, 1], {"team": "blue"})
    assert [(run.seed, run.state) for run in found.runs] == [(0, "queued"), (1, "queued")]
    assert found.spec["config"]["steps"] == 300  # defaults are shown
    assert response.json()["created_at"].endswith("Z")
    assert http.get(f"/v1/jobs/{found.id}").json() == response.json()
    run = http.get(f"/v1/runs/{found.runs[0].id}").json()
    assert (run["object"], run["job_id"], run["error"], run["needs"]) == ("run", found.id, None, [])


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (f"job_{'0' * 26}", "there is no job"),
        (f"ckpt_{'0' * 26}", "there is no checkpoint"),
        ("model:nowhere", "no model"),
    ],
)
def test_input_that_does_not_exist_is_a_422_that_names_it(
    http: TestClient, job: dict[str, Any], policy: str, message: str
) -> None:
    job["config"]["policy"] = policy
    problem = http.post("/v1/jobs", json=job).json()
    assert problem["status"] == 422, problem
    assert problem["errors"][0]["pointer"] == "/config/policy"
    assert http.get("/v1/jobs").json()["data"] == []


def test_a_judge_at_a_server_that_the_operator_does_not_list_is_a_422_that_names_the_field(
    http: TestClient,
) -> None:
    endpoint = {"api": "openai", "base_url": "http://127.0.0.1:6379/v1", "model": "m", "api_key_variable": "AWS_SECRET"}
    benchmark = {"name": "alpaca-eval-2", "reference": "data:r.json", "judge": {"endpoint": endpoint}}
    config = {"policy": "model:m", "benchmarks": [benchmark]}
    problem = http.post("/v1/jobs", json={"kind": "evaluation", "name": "judged", "config": config}).json()
    assert problem["status"] == 422, problem
    assert problem["errors"][0]["pointer"] == "/config/benchmarks/0/judge/endpoint/base_url"
    assert "6379" not in str(problem) and "AWS_SECRET" not in str(problem)


def test_experiment_shows_its_graph_with_live_states(http: TestClient, experiment: dict[str, Any], hand: Hand) -> None:
    response = http.post("/v1/experiments", json=experiment)
    assert response.status_code == 201, response.text
    found = schemas.ExperimentRead.model_validate(response.json())
    assert [(job.name, job.needs) for job in found.jobs] == [("warm-up", []), ("eval-warm-up", ["warm-up"])]
    assert [run.state for run in found.jobs[1].runs] == ["blocked", "blocked"]
    assert (found.status, found.num_runs, found.num_finished) == ("queued", 4, 0)
    hand.finish(hand.claim())
    found = schemas.ExperimentRead.model_validate(http.get(f"/v1/experiments/{found.id}").json())
    assert [run.state for run in found.jobs[1].runs] == ["queued", "blocked"]
    assert (found.status, found.num_finished) == ("running", 1)
    listed = found.model_copy(update={"spent": None})  # lists tell it of experiments with a budget alone
    assert http.get("/v1/experiments").json()["data"] == [listed.model_dump(mode="json")]
    jobs = http.get("/v1/jobs", params={"experiment": found.id, "order": "asc"}).json()["data"]
    assert [job["name"] for job in jobs] == ["warm-up", "eval-warm-up"]
    assert jobs[1]["needs"] == [jobs[0]["id"]]
    runs = http.get("/v1/runs", params={"experiment": found.id, "state": "blocked"}).json()["data"]
    assert [run["seed"] for run in runs] == [1]
    assert runs[0]["needs"] == [jobs[0]["runs"][1]["id"]]


def test_experiment_can_be_toml(http: TestClient) -> None:
    toml = """
    name = "demo"
    [[jobs]]
    name = "warm-up"
    kind = "sft"
    config.policy.name = "llama"
    config.prompts.name = "sums"
    """
    response = http.post("/v1/experiments", content=toml, headers={"Content-Type": "application/toml; charset=utf-8"})
    assert response.status_code == 201, response.text
    wrong = http.post("/v1/experiments", content="name =", headers={"Content-Type": "application/toml"})
    assert (wrong.status_code, wrong.json()["code"]) == (400, "toml_syntax")
    assert http.post("/v1/api_keys", content=toml, headers={"Content-Type": "application/toml"}).status_code == 415


def test_experiment_with_a_wrong_graph_is_refused_whole(http: TestClient, experiment: dict[str, Any]) -> None:
    experiment["jobs"][0]["config"]["policy"] = "job:elsewhere"
    response = http.post("/v1/experiments", json=experiment)
    assert response.status_code == 422
    assert "elsewhere" in response.json()["detail"]
    assert http.get("/v1/experiments").json()["data"] == []
    assert http.get("/v1/jobs").json()["data"] == []


def test_lists_page_by_key_in_both_directions(http: TestClient, job: dict[str, Any]) -> None:
    ids = [http.post("/v1/jobs", json=job).json()["id"] for _ in range(5)]
    assert ids == sorted(ids)
    first = http.get("/v1/jobs", params={"limit": 2}).json()
    assert [item["id"] for item in first["data"]] == ids[:2:-1]
    assert (first["object"], first["has_more"], first["first_id"], first["last_id"]) == ("list", True, ids[4], ids[3])
    link = http.get("/v1/jobs", params={"limit": 2, "kind": "sft"}).headers["link"]
    assert link == f'</v1/jobs?limit=2&kind=sft&after={ids[3]}>; rel="next"'
    second = http.get(link.partition(">")[0][1:]).json()
    assert [item["id"] for item in second["data"]] == [ids[2], ids[1]]
    last = http.get("/v1/jobs", params={"limit": 2, "after": ids[1]}).json()
    assert ([item["id"] for item in last["data"]], last["has_more"]) == ([ids[0]], False)
    back = http.get("/v1/jobs", params={"limit": 2, "before": ids[1]}).json()
    assert [item["id"] for item in back["data"]] == [ids[3], ids[2]]
    rising = http.get("/v1/jobs", params={"order": "asc", "after": ids[3]}).json()
    assert [item["id"] for item in rising["data"]] == [ids[4]]
    assert http.get("/v1/jobs", params={"kind": "dpo"}).json()["data"] == []
    assert http.get("/v1/jobs", params={"status": "failed"}).json() == {
        "object": "list",
        "data": [],
        "has_more": False,
        "first_id": None,
        "last_id": None,
    }


def test_cursor_stays_one_when_its_object_never_was(http: TestClient, job: dict[str, Any]) -> None:
    found = http.post("/v1/jobs", json=job).json()["id"]
    after = encode_id("job", new_id())
    assert [item["id"] for item in http.get("/v1/jobs", params={"after": after}).json()["data"]] == [found]


def test_etag_makes_polling_cheap_and_changes_with_the_object(
    http: TestClient, job: dict[str, Any], experiment: dict[str, Any], hand: Hand
) -> None:
    job_id = http.post("/v1/jobs", json=job).json()["id"]
    run_id = http.get(f"/v1/jobs/{job_id}").json()["runs"][0]["id"]
    paths = [f"/v1/jobs/{job_id}", f"/v1/runs/{run_id}", "/v1/benchmarks/sums", f"/v1/runs/{run_id}/metrics"]
    tags = {path: http.get(path).headers["etag"] for path in paths}
    for path, tag in tags.items():
        again = http.get(path, headers={"If-None-Match": f'"other", {tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert http.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    hand.claim()
    for path in paths[:2]:
        changed = http.get(path, headers={"If-None-Match": tags[path]})
        assert changed.status_code == 200
        assert changed.headers["etag"] != tags[path]


def verb(http: TestClient, kind: str, identifier: str, name: str) -> tuple[int, str]:
    """Status of the reply, and the object's own; of a refusal its code."""
    response = http.post(f"/v1/{kind}/{identifier}/{name}")
    body = response.json()
    return response.status_code, body.get("code") or body.get("status") or body.get("state")


def test_verbs_of_a_job(http: TestClient, job: dict[str, Any]) -> None:
    job_id = http.post("/v1/jobs", json=job).json()["id"]
    assert verb(http, "jobs", job_id, "retry") == (200, "queued")
    assert verb(http, "jobs", job_id, "pause") == (202, "paused")
    assert verb(http, "jobs", job_id, "pause") == (200, "paused")
    assert verb(http, "jobs", job_id, "resume") == (202, "queued")
    assert verb(http, "jobs", job_id, "resume") == (200, "queued")
    assert verb(http, "jobs", job_id, "cancel") == (202, "cancelled")
    assert verb(http, "jobs", job_id, "cancel") == (200, "cancelled")
    for name in ("pause", "resume", "retry"):
        assert verb(http, "jobs", job_id, name) == (409, "invalid_state")
    assert http.post(f"/v1/jobs/{job_id}/pause").json()["current"] == "cancelled"


def test_verbs_of_an_experiment(http: TestClient, experiment: dict[str, Any]) -> None:
    found = http.post("/v1/experiments", json=experiment).json()["id"]
    assert verb(http, "experiments", found, "pause") == (202, "paused")
    assert verb(http, "experiments", found, "pause") == (200, "paused")
    assert verb(http, "experiments", found, "resume") == (202, "queued")
    assert verb(http, "experiments", found, "cancel") == (202, "cancelled")
    assert verb(http, "experiments", found, "cancel") == (200, "cancelled")
    assert verb(http, "experiments", found, "resume") == (409, "invalid_state")


def test_verbs_of_a_running_run(http: TestClient, job: dict[str, Any], hand: Hand) -> None:
    http.post("/v1/jobs", json={**job, "seeds": [0]})
    claim = hand.claim()
    run_id = encode_id("run", claim.run_id)
    assert verb(http, "runs", run_id, "pause") == (202, "stopping")
    assert verb(http, "runs", run_id, "pause") == (200, "stopping")
    hand.finish(claim, Outcome.STOPPED)
    assert http.get(f"/v1/runs/{run_id}").json()["state"] == "paused"
    assert verb(http, "runs", run_id, "resume") == (202, "queued")
    claim = hand.claim()
    assert verb(http, "runs", run_id, "cancel") == (202, "stopping")
    hand.finish(claim, Outcome.STOPPED)
    assert verb(http, "runs", run_id, "cancel") == (200, "cancelled")
    assert verb(http, "runs", run_id, "resume") == (409, "invalid_state")
    attempts = http.get(f"/v1/runs/{run_id}/attempts").json()
    assert [(attempt["n"], attempt["outcome"], attempt["host"]) for attempt in attempts["data"]] == [
        (1, "stopped", "here"),
        (2, "stopped", "here"),
    ]


def test_failed_run_says_why(http: TestClient, job: dict[str, Any], hand: Hand) -> None:
    http.post("/v1/jobs", json=job)
    claim = hand.claim()
    hand.finish(claim, Outcome.USER, message="the file has no rows", error_code="empty_file")
    run = http.get(f"/v1/runs/{encode_id('run', claim.run_id)}").json()
    assert run["state"] == "failed"
    assert run["error"] == {"code": "empty_file", "message": "the file has no rows"}
    assert run["durations"]["running_seconds"] >= 0


def test_metrics_logs_events_and_checkpoints_of_a_run(
    http: TestClient, job: dict[str, Any], hand: Hand, database: Database
) -> None:
    http.post("/v1/jobs", json=job)
    claim = hand.claim()
    run_id, job_id = encode_id("run", claim.run_id), encode_id("job", claim.job_id)
    with database.write() as session:
        values = [(step, {"train/loss": 1.0 / step, "train/reward": None}) for step in range(1, 11)]
        queue.append_metrics(session, claim, values)
        queue.report_progress(session, claim, 10, 300, "fitting")
        for number in range(3):
            queue.append_log(session, claim, number, f"line {number}\n")
        row = CheckpointRow(step=10, path="a/b", manifest_sha256="0" * 64, size_bytes=7, kind="state")
        queue.record_checkpoint(session, claim, row)

    curves = http.get(f"/v1/runs/{run_id}/metrics", params={"keys": "train/loss", "from_step": 2, "max_points": 3})
    (series,) = curves.json()["series"]
    assert series["key"] == "train/loss"
    assert [(point["step"], point["num_steps"]) for point in series["points"]] == [(4, 3), (7, 3), (10, 3)]
    assert series["points"][0]["min"] == 0.25
    reward = http.get(f"/v1/runs/{run_id}/metrics").json()["series"][1]["points"][0]
    assert (reward["value"], reward["num_not_finite"]) == (None, 1)
    run = http.get(f"/v1/runs/{run_id}").json()
    assert run["latest_metrics"] == {"train/loss": 0.1, "train/reward": None}
    assert run["progress"]["total"] == 300

    logs = http.get(f"/v1/runs/{run_id}/logs", params={"limit": 2}).json()
    assert ([chunk["text"] for chunk in logs["data"]], logs["has_more"]) == (["line 0\n", "line 1\n"], True)
    rest = http.get(f"/v1/runs/{run_id}/logs", params={"after": logs["last_id"]}).json()
    assert [chunk["cursor"] for chunk in rest["data"]] == ["1.2"]
    tail = http.get(f"/v1/runs/{run_id}/logs", params={"tail": 1}).json()
    assert [chunk["text"] for chunk in tail["data"]] == ["line 2\n"]
    assert http.get(f"/v1/runs/{run_id}/logs", params={"after": "x"}).status_code == 422

    events = http.get(f"/v1/jobs/{job_id}/events").json()["data"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["type"] == "job.created"
    of_run = http.get(f"/v1/runs/{run_id}/events", params={"after": 1, "limit": 1}).json()
    assert of_run["data"][0]["run_id"] == run_id
    newest = http.get(f"/v1/jobs/{job_id}/events", params={"order": "desc", "limit": 1}).json()["data"]
    assert newest == events[-1:]

    (checkpoint,) = http.get("/v1/checkpoints", params={"run": run_id, "kind": "state"}).json()["data"]
    assert (checkpoint["step"], checkpoint["job_id"], checkpoint["size_bytes"]) == (10, job_id, 7)
    assert http.get(f"/v1/checkpoints/{checkpoint['id']}").json() == checkpoint
    assert http.get("/v1/checkpoints", params={"job": job_id, "kind": "model"}).json()["data"] == []


def evaluate(http: TestClient, experiment: dict[str, Any], hand: Hand) -> str:
    """Plays an experiment to its end; the policy of train seed s scores (s + eval seed) / 4 out of four examples."""
    experiment_id = http.post("/v1/experiments", json=experiment).json()["id"]
    for _ in range(4):
        claim = hand.claim()
        if claim.kind == "sft":
            hand.finish(claim)
            continue
        results, completions = [], []
        for decoding, seeds in (("greedy", (None,)), ("t1.0", (0, 1))):
            for seed in seeds:
                right = claim.seed + (seed or 0)
                results.append(
                    ResultRow(
                        benchmark="sums",
                        metric="pass@1",
                        decoding=decoding,
                        eval_seed=seed,
                        value=right / 4,
                        num_examples=4,
                    )
                )
                completions += [
                    CompletionRow(
                        benchmark="sums",
                        example_id=f"e{number}",
                        decoding=decoding,
                        eval_seed=seed,
                        prompt="1+1=",
                        completion="<b>2</b>",
                        reference="2",
                        extracted="2",
                        verdict="correct" if number < right else "wrong",
                        correct=number < right,
                        truncated=False,
                    )
                    for number in range(4)
                ]
        hand.finish(claim, collected=Collected(results=results, completions=completions))
    return str(experiment_id)


def test_table_of_results_over_seeds(http: TestClient, experiment: dict[str, Any], hand: Hand) -> None:
    experiment_id = evaluate(http, experiment, hand)
    table = http.get("/v1/results/table", params={"experiment": experiment_id}).json()
    rows = {row["decoding"]: row for row in table["rows"]}
    sampled = rows["t1.0"]
    assert (sampled["method"], sampled["benchmark"], sampled["metric"]) == ("warm-up", "sums", "pass@1")
    assert [value["value"] for value in sampled["per_seed"]] == [0.125, 0.375]
    assert sampled["mean"] == 0.25
    assert sampled["std"] == pytest.approx(0.125 * 2**0.5)
    assert (sampled["n"], sampled["missing_seeds"]) == (2, [])
    assert sampled["std_over_eval_seeds"] == pytest.approx(0.125 * 2**0.5)
    assert rows["greedy"]["std_over_eval_seeds"] is None
    assert http.get("/v1/results/table").status_code == 422
    assert http.get("/v1/results/table", params={"experiment": encode_id("exp", new_id())}).status_code == 404
    job = http.get("/v1/jobs", params={"experiment": experiment_id, "kind": "evaluation"}).json()["data"][0]["id"]
    assert http.get("/v1/results/table", params={"job": job}).json()["rows"] == table["rows"]


def test_results_and_completions_can_be_filtered_and_paged(
    http: TestClient, experiment: dict[str, Any], hand: Hand
) -> None:
    experiment_id = evaluate(http, experiment, hand)
    found = http.get("/v1/results", params={"experiment": experiment_id, "decoding": "t1.0", "train_seed": 1}).json()
    assert [(row["eval_seed"], row["value"]) for row in found["data"]] == [(1, 0.5), (0, 0.25)]
    assert http.get(f"/v1/results/{found['first_id']}").json() == found["data"][0]
    run_id = found["data"][0]["run_id"]
    page = http.get(f"/v1/runs/{run_id}/completions", params={"limit": 5}).json()
    assert ([row["position"] for row in page["data"]], page["has_more"], page["last_id"]) == (
        [0, 1, 2, 3, 4],
        True,
        "4",
    )
    rest = http.get(f"/v1/runs/{run_id}/completions", params={"limit": 1000, "after": "4"}).json()
    assert [row["position"] for row in rest["data"]] == list(range(5, 12))
    chosen = {"verdict": "correct", "decoding": "t1.0", "eval_seed": 1, "benchmark": "sums"}
    correct = http.get(f"/v1/runs/{run_id}/completions", params=chosen).json()["data"]
    assert [row["example_id"] for row in correct] == ["e0", "e1"]
    assert correct[0]["completion"] == "<b>2</b>"
    assert (correct[0]["train_seed"], correct[0]["eval_seed"]) == (1, 1)
    assert http.get(f"/v1/runs/{run_id}/completions", params={"limit": 1001}).status_code == 422


def test_every_stored_text_is_read_again(http: TestClient, job: dict[str, Any], database: Database, hand: Hand) -> None:
    text = "\u2028</script>\U0001f600\\\"'<b>\u202e"
    job["metadata"] = {text: text}
    found = http.post("/v1/jobs", json=job)
    assert found.status_code == 201
    assert http.get(f"/v1/jobs/{found.json()['id']}").json()["metadata"] == {text: text}
    claim = hand.claim()
    with database.write() as session:
        queue.append_log(session, claim, 0, text)
        queue.add_event(session, claim, text)
    run_id = encode_id("run", claim.run_id)
    assert http.get(f"/v1/runs/{run_id}/logs").json()["data"][0]["text"] == text
    with database.read() as session:
        assert session.scalars(select(LogChunk)).one().text == text
        assert decode_id("run", run_id) in set(session.scalars(select(Event.run_id)))


def test_workers_are_listed(http: TestClient, hand: Hand) -> None:
    (worker,) = http.get("/v1/workers").json()["data"]
    assert (worker["host"], worker["slots"], worker["is_alive"], worker["queues"]) == ("here", 2, True, ["lco.cpu"])
    assert http.get(f"/v1/workers/{worker['id']}").json()["id"] == worker["id"]


def test_benchmarks_are_listed_with_their_configuration(http: TestClient) -> None:
    found = {item["id"]: item for item in http.get("/v1/benchmarks").json()["data"]}
    assert {"sums", "gsm8k"} <= found.keys()
    assert found["sums"]["metrics"][0] == "pass@1"
    assert "problems" in found["sums"]["config_schema"]["properties"]
    assert http.get("/v1/benchmarks/sums").json() == found["sums"]


def test_health_and_metrics(http: TestClient, anonymous: TestClient, job: dict[str, Any]) -> None:
    http.post("/v1/jobs", json=job)
    assert anonymous.get("/healthz").json() == {"status": "ok"}
    ready = anonymous.get("/readyz").json()
    assert (ready["status"], ready["dispatch"], ready["disk"]) == ("ready", "local", "ok")
    text = http.get("/metrics").text
    assert 'lco_runs{state="queued",queue="lco.cpu"} 2' in text
    assert 'http_request_duration_seconds_count{method="POST",route="/v1/jobs",status="201"}' in text
    assert 'lco_queue_oldest_seconds{queue="lco.cpu"}' in text
