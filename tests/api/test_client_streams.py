"""Following over the server's stream: as it comes, once each, through restarts; and results for notebooks."""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.client import AsyncClient, Client
from api.transport import ApiFailure, EventLines
from store import queue
from store.database import Database
from tests.api.conftest import BASE_URL, Hand
from tests.api.test_jobs import evaluate

EVENT = (
    '{"object":"event","seq":%d,"job_id":"job_x","run_id":null,"attempt":null,"type":"run.state","level":"info",'
    '"message":"m","data":{},"created_at":"2026-01-01T00:00:00Z"}'
)
RUN = f"run_{'0' * 26}"


class Scripted:
    """A server whose streams break, refuse and go on as told."""

    def __init__(self) -> None:
        self.replies: list[tuple[int, str]] = []
        self.asked: list[str] = []
        self.accepted: list[str] = []


@pytest.fixture
def scripted() -> Iterator[tuple[str, Scripted]]:
    script = Scripted()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            script.asked.append(self.headers.get("Last-Event-ID", ""))
            script.accepted.append(self.headers.get("Accept", ""))
            status, body = script.replies.pop(0)
            self.send_response(status)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", str(len(body) + (status == 200 and "end" not in body)))
            self.end_headers()
            self.wfile.write(body.encode())  # a byte less than it says: the connection breaks

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", script
    server.shutdown()
    thread.join()
    server.server_close()


def event(number: int) -> str:
    return f"event: run.state\ndata: {EVENT % number}\nid: {number}\n\n"


def script_of_troubles() -> list[tuple[int, str]]:
    return [
        (200, ": following\n\n" + event(1) + event(2) + "event: run.state\nda"),
        (503, ""),
        (200, event(3) + 'event: run\ndata: {"no": "record"}\n\n' + "event: end\ndata: {}\n\n"),
    ]


def test_a_broken_stream_goes_on_after_the_last_event(scripted: tuple[str, Scripted]) -> None:
    url, script = scripted
    script.replies = script_of_troubles()
    with Client(url, "key") as client:
        assert [found.seq for found in client.follow(RUN)] == [1, 2, 3]
    assert script.asked == ["", "2", "2"]
    assert set(script.accepted) == {"text/event-stream"}


def test_so_does_that_of_the_asynchronous_client(scripted: tuple[str, Scripted]) -> None:
    url, script = scripted
    script.replies = script_of_troubles()

    async def follow() -> list[int]:
        async with AsyncClient(url, "key") as client:
            return [found.seq async for found in client.follow(RUN, after=0)]

    assert asyncio.run(follow()) == [1, 2, 3]


def test_a_refused_stream_is_not_asked_for_again(scripted: tuple[str, Scripted]) -> None:
    url, script = scripted
    script.replies = [(404, '{"code": "not_found", "detail": "there is no such run"}')]
    with Client(url, "key") as client, pytest.raises(ApiFailure, match="no such run"):
        list(client.follow(RUN))


def test_patience_ends() -> None:
    with Client("http://127.0.0.1:1", "key") as client, pytest.raises(ApiFailure, match="does not answer"):
        list(client.follow(RUN, patience_seconds=0.1))


def test_lines_become_events() -> None:
    lines = EventLines()
    found = [
        lines.take(line) for line in (": hello", "", "event: log", "data: a", "data: b", "id: 1.2", "", "id: 3", "")
    ]
    assert [one for one in found if one] == [type(found[6])("log", "1.2", "a\nb")]  # type: ignore[call-arg, misc]


def test_events_of_a_live_run_come_while_it_runs(
    live: str, make_key: Callable[..., str], job: dict[str, Any], hand: Hand, database: Database
) -> None:
    with Client(live, make_key()) as client:
        submitted = client.submit({**job, "seeds": [0]})
        claim = hand.claim()
        following = client.follow(submitted.id)
        first = next(following)
        assert first.type == "job.created"
        with database.write() as session:
            queue.add_event(session, claim, "look at this", level="warning")
        seen = first.seq
        for found in following:
            assert found.seq == seen + 1
            seen = found.seq
            if found.message == "look at this":
                hand.finish(claim)
        assert seen == len(list(client.events(submitted.id)))


def test_results_are_dictionaries_and_a_frame_where_pandas_is(
    http: TestClient,
    anonymous: TestClient,
    make_key: Callable[..., str],
    experiment: dict[str, Any],
    hand: Hand,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    experiment_id = evaluate(http, experiment, hand)
    client = Client(BASE_URL, make_key(), http=anonymous)
    rows = client.results_dicts(experiment=experiment_id, decoding="greedy")
    assert {(row["train_seed"], row["value"]) for row in rows} == {(0, 0.0), (1, 0.25)}
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"lco-platform\[pandas\]"):
        client.results_frame(experiment=experiment_id)
    stand_in = ModuleType("pandas")
    stand_in.DataFrame = list  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", stand_in)
    assert client.results_frame(experiment=experiment_id, decoding="greedy") == rows
