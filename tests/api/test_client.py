"""The clients: typed answers, iterators, retries that do nothing twice."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from api import schemas
from api.client import AsyncClient, Client
from api.transport import ApiFailure
from store import queue
from store.database import Database
from store.settings import Settings
from store.specs import ExperimentSpec
from tests.api.conftest import BASE_URL, Hand
from tests.api.test_jobs import evaluate


@pytest.fixture
def client(anonymous: TestClient, make_key: Callable[..., str]) -> Client:
    """A client that sends through FastAPI's TestClient."""
    return Client(BASE_URL, make_key(), http=anonymous)


def test_client_submits_and_finds_again(client: Client, job: dict[str, Any], experiment: dict[str, Any]) -> None:
    submitted = client.submit(job)
    assert isinstance(submitted, schemas.JobRead)
    assert client.job(submitted.id) == submitted
    found = client.submit_experiment(ExperimentSpec.model_validate_json(json.dumps(experiment)))
    assert client.experiment(found.id) == found == client.show(found.id)
    assert [item.name for item in client.jobs(experiment=found.id, order="asc")] == ["warm-up", "eval-warm-up"]
    run = next(client.runs(experiment=found.id, kind="sft"))
    assert client.run(run.id) == run


def test_iterators_walk_all_pages(client: Client, job: dict[str, Any]) -> None:
    names = [f"job-{number}" for number in range(101)]  # a page has 100
    jobs = [{**job, "name": name, "seeds": [0]} for name in names]
    client.submit_experiment({"name": "many", "jobs": jobs})
    assert [item.name for item in client.jobs(order="asc")] == names
    assert [item.name for item in client.jobs()] == names[::-1]


def test_results_and_completions(client: Client, http: TestClient, experiment: dict[str, Any], hand: Hand) -> None:
    experiment_id = evaluate(http, experiment, hand)
    assert client.wait(experiment_id, timeout_seconds=5).status == "succeeded"
    rows = client.results_table(experiment=experiment_id).rows
    assert {row.decoding: row.mean for row in rows} == {"greedy": 0.125, "t1.0": 0.25}
    results = list(client.results(experiment=experiment_id, decoding="greedy"))
    assert {(item.train_seed, item.value) for item in results} == {(0, 0.0), (1, 0.25)}
    completions = list(client.completions(results[0].run_id))
    assert [item.position for item in completions] == list(range(12))
    assert all(item.verdict == "wrong" for item in client.completions(results[0].run_id, verdict="wrong"))


def test_events_logs_metrics_and_verbs(client: Client, job: dict[str, Any], hand: Hand, database: Database) -> None:
    submitted = client.submit({**job, "seeds": [5]})
    run_id = submitted.runs[0].id
    claim = hand.claim()
    with database.write() as session:
        queue.append_metrics(session, claim, [(1, {"train/loss": 0.5})])
        queue.append_log(session, claim, 0, "hello\n")
    assert client.metrics(run_id, ["train/loss"]).series[0].points[0].value == 0.5
    assert [chunk.text for chunk in client.logs(run_id)] == ["hello\n"]
    assert client.pause(run_id).desired == "pause"  # type: ignore[union-attr]
    assert client.resume(submitted.id).id == submitted.id
    hand.finish(claim)
    assert [event.seq for event in client.follow(submitted.id)] == [
        *range(1, len(list(client.events(submitted.id))) + 1)
    ]
    assert [chunk.text for chunk in client.follow_logs(run_id)] == ["hello\n"]
    assert client.wait(run_id).state == "succeeded"  # type: ignore[union-attr]
    assert [attempt.n for attempt in client.attempts(run_id)] == [1]
    assert [worker.host for worker in client.workers()] == ["here"]
    with pytest.raises(ApiFailure) as caught:
        client.cancel(submitted.id)
    assert (caught.value.status, caught.value.code, caught.value.problem["current"]) == (
        409,
        "invalid_state",
        "succeeded",
    )


def test_keys_and_links(client: Client) -> None:
    created = client.create_key("ci", "read", expires_in_days=1)
    assert created.key.startswith("lco_sk_")
    assert {key.name for key in client.api_keys()} == {"test", "ci"}
    assert client.revoke_key(created.id).revoked_at is not None
    assert client.login_link().startswith(f"{BASE_URL}/login?link=")


@pytest.mark.parametrize("identifier", ["", "job", "job_x", "../jobs", "what_" + "0" * 26])
def test_what_is_no_id_is_never_sent(client: Client, identifier: str) -> None:
    with pytest.raises(ApiFailure, match="is no id"):
        client.show(identifier)
    with pytest.raises(ApiFailure, match="another kind"):
        client.job(f"run_{'0' * 26}")


def test_wait_ends_at_its_timeout(client: Client, job: dict[str, Any]) -> None:
    with pytest.raises(TimeoutError):
        client.wait(client.submit(job).id, timeout_seconds=0.0, poll_seconds=0.0)


class Flaky(httpx2.BaseTransport):
    """Fails in the given ways, then asks the application; a lost answer reached the application all the same."""

    def __init__(self, inner: TestClient, failures: list[Any]) -> None:
        self.inner = inner
        self.failures = failures
        self.keys: list[str | None] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.keys.append(request.headers.get("idempotency-key"))
        failure = self.failures.pop(0) if self.failures else None
        if isinstance(failure, httpx2.Response):
            return failure
        if isinstance(failure, httpx2.ConnectError):
            raise failure
        response = self.inner.request(request.method, str(request.url), headers=request.headers, content=request.read())
        if failure == "lost":
            raise httpx2.ReadError("the answer was lost")
        return httpx2.Response(response.status_code, headers=response.headers, content=response.content)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client would have waited."""
    waited: list[float] = []
    monkeypatch.setattr("api.clients.base.time.sleep", waited.append)
    return waited


def flaky(anonymous: TestClient, key: str, failures: list[Any]) -> tuple[Client, Flaky]:
    transport = Flaky(anonymous, failures)
    return Client(BASE_URL, key, http=httpx2.Client(transport=transport, base_url=BASE_URL)), transport


def test_lost_answer_makes_no_second_job(
    anonymous: TestClient, make_key: Callable[..., str], job: dict[str, Any], waits: list[float]
) -> None:
    failures = [httpx2.ConnectError("refused"), "lost", httpx2.Response(503, headers={"Retry-After": "7"}), "lost"]
    client, transport = flaky(anonymous, make_key(), failures)
    submitted = client.submit(job)
    assert [item.id for item in client.jobs()] == [submitted.id]
    assert len(set(transport.keys[:5])) == 1
    assert transport.keys[0]
    assert transport.keys[5] is None  # a GET needs none
    assert waits[2] == 7.0


def test_client_gives_up_after_a_bounded_number_of_tries(
    anonymous: TestClient, make_key: Callable[..., str], waits: list[float]
) -> None:
    client, transport = flaky(anonymous, make_key(), [httpx2.ConnectError("refused")] * 100)
    with pytest.raises(ApiFailure) as caught:
        list(client.jobs())
    assert caught.value.code == "unreachable"
    assert len(transport.keys) == 6
    client, _ = flaky(
        anonymous, make_key(), [httpx2.Response(500, json={"code": "x", "detail": "y"}) for _ in range(9)]
    )
    with pytest.raises(ApiFailure, match="y"):
        list(client.jobs())


def test_refusal_is_not_tried_again(
    anonymous: TestClient, make_key: Callable[..., str], waits: list[float], job: dict[str, Any]
) -> None:
    client, transport = flaky(anonymous, make_key("read"), [])
    with pytest.raises(ApiFailure) as caught:
        client.submit(job)
    assert (caught.value.status, caught.value.code, len(transport.keys), waits) == (403, "insufficient_scope", 1, [])


def test_wait_outlives_a_restart_of_the_api(
    anonymous: TestClient, make_key: Callable[..., str], waits: list[float], job: dict[str, Any]
) -> None:
    client, transport = flaky(anonymous, make_key(), [])
    job_id = client.submit(job).id
    client.cancel(job_id)
    transport.failures = [httpx2.ConnectError("refused")] * 20
    assert client.wait(job_id).status == "cancelled"
    transport.failures = [httpx2.ConnectError("refused")] * 20
    with pytest.raises(ApiFailure):
        client.wait(job_id, patience_seconds=-1.0)


def test_answer_that_is_no_api_is_told(anonymous: TestClient, make_key: Callable[..., str]) -> None:
    client, _ = flaky(anonymous, make_key(), [httpx2.Response(200, content=b"<html>")])
    with pytest.raises(ApiFailure, match="is this the API's address"):
        client.results_table(experiment="exp_x")
    client, _ = flaky(anonymous, make_key(), [httpx2.Response(404, content=b"<html>")])
    with pytest.raises(ApiFailure, match="404"):
        client.results_table(experiment="exp_x")


def test_address_and_key_come_from_the_data_directory(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    with pytest.raises(ApiFailure, match="lco up"):
        Client(settings=settings)
    (tmp_path / "api-url").write_text("http://127.0.0.1:9/\n")
    with pytest.raises(ApiFailure, match="LCO_API_KEY"):
        Client(settings=settings)
    (tmp_path / "admin-key").write_text("lco_sk_x\n")
    with Client(settings=settings) as client:
        assert client.url == "http://127.0.0.1:9"


def test_asynchronous_client_does_the_same(
    live: str, make_key: Callable[..., str], job: dict[str, Any], experiment: dict[str, Any]
) -> None:
    async def play() -> None:
        async with AsyncClient(live, make_key()) as client:
            submitted = await client.submit(job)
            found = await client.submit_experiment(experiment)
            assert submitted.id in [item.id async for item in client.jobs()]
            assert (await client.pause(found.id)).id == found.id
            assert (await client.cancel(submitted.id)).id == submitted.id
            assert (await client.wait(submitted.id, poll_seconds=0.01)) == await client.job(submitted.id)
            assert 1 in [event.seq async for event in client.follow(submitted.id)]
            assert (await client.results_table(experiment=found.id)).rows == []

    asyncio.run(play())


def test_both_clients_have_the_same_methods() -> None:
    def public(of: type) -> set[str]:
        return {name for name in dir(of) if not name.startswith("_")}

    assert public(AsyncClient) == public(Client)
