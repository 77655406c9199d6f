"""Server-sent events: numbered, resumable, ended."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from store import queue
from store.database import Database
from store.ids import encode_id
from tests.api.conftest import Hand

Sent = dict[str, str]


def parse(lines: Iterator[str]) -> Iterator[Sent]:
    """The events of a stream."""
    event: Sent = {}
    for line in lines:
        if not line:
            if "event" in event:
                yield event
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = value


def read(http: TestClient, path: str, **more: Any) -> list[Sent]:
    """All events of a stream that ends."""
    response = http.get(path, **more)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-accel-buffering"] == "no"
    return list(parse(iter(response.text.splitlines())))


@pytest.fixture
def ended(http: TestClient, job: dict[str, Any], hand: Hand, database: Database) -> tuple[str, str]:
    """A job with one run that has ended, with some output."""
    http.post("/v1/jobs", json={**job, "seeds": [3]})
    claim = hand.claim()
    with database.write() as session:
        for number in range(3):
            queue.append_log(session, claim, number, f"line {number}\n")
    hand.finish(claim)
    return encode_id("job", claim.job_id), encode_id("run", claim.run_id)


def test_stream_of_a_job_that_has_ended_gives_everything_and_ends(http: TestClient, ended: tuple[str, str]) -> None:
    sent = read(http, f"/v1/jobs/{ended[0]}/events/stream")
    numbered = [event for event in sent if "id" in event]
    assert [int(event["id"]) for event in numbered] == list(range(1, len(numbered) + 1))
    assert numbered[0]["event"] == "job.created"
    assert [event["event"] for event in sent[-2:]] == ["job", "end"]
    assert json.loads(sent[-1]["data"]) == http.get(f"/v1/jobs/{ended[0]}").json()
    listed = http.get(f"/v1/jobs/{ended[0]}/events").json()["data"]
    assert [json.loads(event["data"]) for event in numbered] == listed


@pytest.mark.parametrize("header", [True, False])
def test_broken_stream_goes_on_where_it_was(http: TestClient, ended: tuple[str, str], header: bool) -> None:
    path = f"/v1/jobs/{ended[0]}/events/stream"
    whole = [event for event in read(http, path) if "id" in event]
    more = {"headers": {"Last-Event-ID": "2"}} if header else {"params": {"after": "2"}}
    assert [event for event in read(http, path, **more) if "id" in event] == whole[2:]
    assert http.get(path, headers={"Last-Event-ID": "x"}).status_code == 422


def test_stream_of_a_log(http: TestClient, ended: tuple[str, str]) -> None:
    path = f"/v1/runs/{ended[1]}/logs/stream"
    sent = read(http, path)
    assert [event["event"] for event in sent] == ["log", "log", "log", "end"]
    assert [json.loads(event["data"])["text"] for event in sent[:3]] == ["line 0\n", "line 1\n", "line 2\n"]
    rest = read(http, path, headers={"Last-Event-ID": sent[1]["id"]})
    assert [event.get("id") for event in rest] == ["1.2", None]


@pytest.mark.parametrize("path", ["/v1/jobs/x/events/stream", "/v1/runs/x/events/stream", "/v1/runs/x/logs/stream"])
def test_stream_of_nothing_is_a_404(http: TestClient, path: str) -> None:
    assert http.get(path).json()["code"] == "not_found"


@contextmanager
def listening(url: str, path: str, key: str) -> Iterator[Iterator[Sent]]:
    """The events of a live stream."""
    headers = {"Authorization": f"Bearer {key}"}
    with httpx2.stream("GET", f"{url}{path}", headers=headers, timeout=20, trust_env=False) as response:
        yield parse(response.iter_lines())


def until(events: Iterator[Sent], name: str) -> list[Sent]:
    """The events up to and with the next one of a name."""
    found = []
    for event in events:
        found.append(event)
        if event["event"] == name:
            return found
    raise AssertionError(f"the stream ended without {name}: {found}")


def test_live_stream_tells_states_metrics_and_the_end(
    live: str, job: dict[str, Any], make_key: Callable[..., str], hand: Hand, database: Database
) -> None:
    key = make_key()
    httpx2.post(
        f"{live}/v1/jobs", json={**job, "seeds": [3]}, headers={"Authorization": f"Bearer {key}"}, trust_env=False
    )
    claim = hand.claim()
    run_id = encode_id("run", claim.run_id)
    with listening(live, f"/v1/runs/{run_id}/events/stream?from_step=1", key) as events:
        assert json.loads(until(events, "run")[-1]["data"])["state"] == "running"
        for step in (1, 2):
            with database.write() as session:
                queue.append_metrics(session, claim, [(step, {"train/loss": float(step)})])
                queue.report_progress(session, claim, step, 2, "fitting")
            assert json.loads(until(events, "metric")[-1]["data"])["values"] == {"train/loss": [[step, float(step)]]}
        with database.write() as session:  # a late value of a step that was sent
            queue.append_metrics(session, claim, [(2, {"train/loss": 2.0, "eval/accuracy": None})])
            queue.report_progress(session, claim, 2, 2, "measuring")
        assert json.loads(until(events, "metric")[-1]["data"])["values"] == {"eval/accuracy": [[2, None]]}
        hand.finish(claim)
        last = until(events, "end")
        assert [json.loads(event["data"])["data"]["state"] for event in last if event["event"] == "run.state"] == [
            "succeeded"
        ]
        assert next(events, None) is None


def test_streams_are_woken_by_one_poller_and_counted(
    app: FastAPI,
    live: str,
    job: dict[str, Any],
    make_key: Callable[..., str],
    hand: Hand,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = make_key()
    httpx2.post(
        f"{live}/v1/jobs", json={**job, "seeds": [3]}, headers={"Authorization": f"Bearer {key}"}, trust_env=False
    )
    claim = hand.claim()
    path = f"/v1/jobs/{encode_id('job', claim.job_id)}/events/stream"

    def listen(_: int) -> str:
        with listening(live, path, key) as events:
            return until(events, "end")[-1]["data"]

    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(listen, number) for number in range(8)]
        while app.state.metrics.num_streams < 8:
            time.sleep(0.01)
        hand.finish(claim)
        assert len({future.result(timeout=20) for future in waiting}) == 1
    deadline = time.monotonic() + 5
    while app.state.metrics.num_streams and time.monotonic() < deadline:
        time.sleep(0.01)
    assert app.state.metrics.num_streams == 0


def test_stopping_server_ends_its_streams_at_once(
    app: FastAPI, live: str, job: dict[str, Any], make_key: Callable[..., str]
) -> None:
    key = make_key()
    headers = {"Authorization": f"Bearer {key}"}
    job_id = httpx2.post(f"{live}/v1/jobs", json=job, headers=headers, trust_env=False).json()["id"]
    with listening(live, f"/v1/jobs/{job_id}/events/stream", key) as events:
        until(events, "job")
        app.state.hub.close()
        began = time.monotonic()
        assert list(events) == []
        assert time.monotonic() - began < 2
