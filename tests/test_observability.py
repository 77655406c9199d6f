"""A whole platform under watch: one trace from the request to the trainer's steps, JSON logs, mirrored metrics, no key.

One platform plays it all, since its start is what takes the time.
"""

import gzip
import itertools
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from api.client import Client
from api.local_platform import LocalPlatform
from store.settings import Settings
from tests.evaluation.judge_server import JudgeServer
from tests.evaluation.test_endpoint_policy import SUMS, answer

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

CANARY = "sk-canary-5f0c1a5e5b7e"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
CLIENT_SPAN = "00f067aa0ba902b7"


@dataclass
class Span:
    """A span as the collector got it."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    seconds: float


@dataclass
class Collector:
    """Takes OTLP over HTTP on loopback, as OpenTelemetry's collector does."""

    spans: list[Span] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    url: str = ""

    def take(self, content: bytes) -> None:
        request = ExportTraceServiceRequest()
        request.ParseFromString(content)
        for resource in request.resource_spans:
            service = {item.key: item.value.string_value for item in resource.resource.attributes}["service.name"]
            for scope in resource.scope_spans:
                for span in scope.spans:
                    attributes = {
                        item.key: getattr(item.value, str(item.value.WhichOneof("value"))) for item in span.attributes
                    }
                    identifiers = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                    seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
                    self.spans.append(Span(service, span.name, *identifiers, attributes, seconds))

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                content = gzip.decompress(content)
            found.headers.append(self.headers.get("X-Collector-Key", ""))
            found.take(content)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Watched:
    """What was left after the platform had stopped."""

    directory: Path
    run_id: str
    judge_run_id: str
    seen_keys: set[str]
    """What the judge was sent as its key."""
    board: Path


@pytest.fixture(scope="module")
def watched(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    directory = tmp_path_factory.mktemp("watched")
    board = directory / "board"
    prompts = {"name": "sums", "num_terms": 2, "max_term": 12, "num_problems": 30}
    policy = {"name": "llama", "hidden_size": 32, "intermediate_size": 64, "num_layers": 1, "num_heads": 2}
    sft = {"kind": "sft", "name": "warm-up", "config": {"policy": policy, "prompts": prompts, "steps": 12}}
    with JudgeServer(answer) as judge:
        endpoint = {"api": "openai", "base_url": f"{judge.origin}/v1", "model": "m", "api_key_variable": "JUDGE_KEY"}
        config = {"policy": {"endpoint": endpoint}, "benchmarks": [SUMS], "eval_seeds": [0]}
        measure = {"kind": "evaluation", "name": "judged", "config": config}
        environment = {
            **{"LCO_PORT": "0", "LCO_POLL_SECONDS": "0.05", "LCO_LOG_FORMAT": "json"},
            **{"LCO_TRACKERS": f"tensorboard:{board}", "LCO_ENDPOINTS": f"{judge.origin}=JUDGE_KEY"},
            **{"JUDGE_KEY": CANARY, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url},
            **{"OTEL_EXPORTER_OTLP_HEADERS": "X-Collector-Key=collector", "OTEL_BSP_SCHEDULE_DELAY": "200"},
        }
        data_dir = directory / "var"
        with LocalPlatform(data_dir, environment=environment) as platform:
            settings = Settings(data_dir=data_dir)
            with Client(platform.url, settings=settings) as client:
                key = (data_dir / "admin-key").read_text().strip()
                headers = {
                    "Authorization": f"Bearer {key}",
                    "traceparent": f"00-{TRACE_ID}-{CLIENT_SPAN}-01",
                    "X-Request-ID": "the-request",
                }
                made = httpx2.post(f"{platform.url}/v1/jobs", json=sft, headers=headers)
                assert made.status_code == 201, made.text
                judged = client.submit(measure)
                for job_id in (made.json()["id"], judged.id):
                    ended = client.wait(job_id, timeout_seconds=200, poll_seconds=0.1)
                    assert ended.status == "succeeded", list(client.logs(ended.runs[0].id))
                wait_for_board(board)
        keys = {call.headers.get("authorization", call.headers.get("Authorization", "")) for call in judge.calls}
    return Watched(data_dir, made.json()["runs"][0]["id"], judged.runs[0].id, keys, board)


def wait_for_board(board: Path) -> None:
    """Waits until the last of the points is there: a mirror is a second behind."""
    pause = threading.Event()
    for _ in range(200):
        if points(board)[-1:] == [12]:
            return
        pause.wait(0.1)
    raise AssertionError(f"{points(board)} were mirrored")


def points(board: Path) -> list[int]:
    folders = {path.parent for path in board.rglob("*tfevents*") if "warm-up" in str(path)}
    if not folders:
        return []
    events = EventAccumulator(str(folders.pop()))
    events.Reload()
    return [event.step for event in events.Scalars("train/loss")] if "train/loss" in events.Tags()["scalars"] else []


def test_one_trace_leads_from_the_request_to_the_steps_of_the_trainer(collector: Collector, watched: Watched) -> None:
    spans = [span for span in collector.spans if span.trace_id == TRACE_ID]
    by_name = {span.name: span for span in spans}
    assert {"POST /v1/jobs", "lco.submission", "lco.queue", "lco.attempt", "lco.stage", "lco.steps"} <= by_name.keys()
    chain = ["lco.steps", "lco.stage", "lco.attempt", "lco.submission", "POST /v1/jobs"]
    for child, parent in itertools.pairwise(chain):
        assert by_name[child].parent_id == by_name[parent].span_id, child
    assert by_name["POST /v1/jobs"].parent_id == CLIENT_SPAN
    assert by_name["lco.queue"].parent_id == by_name["lco.submission"].span_id
    assert [by_name[name].service for name in chain] == ["lco-run"] * 2 + ["lco-worker"] + ["lco-api"] * 2
    assert by_name["lco.attempt"].attributes["lco.run_id"] == watched.run_id
    assert by_name["lco.attempt"].attributes["lco.ending"] == "succeeded"
    steps = sorted((s for s in spans if s.name == "lco.steps"), key=lambda span: span.attributes["lco.first_step"])
    assert [steps[0].attributes["lco.first_step"], steps[-1].attributes["lco.last_step"]] == [1, 12]
    assert steps[-1].attributes["train/loss"] > 0
    assert set(collector.headers) == {"collector"}


def lines(watched: Watched, name: str) -> list[dict[str, Any]]:
    text = (watched.directory / "logs" / f"{name}.log").read_text()
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_logs_of_every_process_are_json_and_say_what_they_are_about(watched: Watched) -> None:
    (submitted,) = [line for line in lines(watched, "api") if line.get("request_id") == "the-request"]
    assert submitted["message"].startswith("POST /v1/jobs: 201 after ")
    assert submitted["trace_id"] == TRACE_ID
    of_run = [line for line in lines(watched, "worker") if line.get("run_id") == watched.run_id]
    assert len(of_run) >= 2
    for line in of_run:
        assert {"time", "level", "logger", "message", "job_id", "run_id", "attempt", "trace_id"} <= line.keys()
        assert line["trace_id"] == TRACE_ID


def test_metrics_are_mirrored(watched: Watched) -> None:
    assert points(watched.board) == list(range(1, 13))


def test_the_judges_key_is_nowhere_but_in_its_requests(collector: Collector, watched: Watched) -> None:
    assert watched.seen_keys == {f"Bearer {CANARY}"}
    files = [path for path in watched.directory.parent.rglob("*") if path.is_file()]
    assert len([path for path in files if path.suffix == ".log"]) >= 3
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []
    assert CANARY not in repr(collector.spans)
    admin = (watched.directory / "admin-key").read_text().strip().encode()
    holding = {path.name for path in files if admin in path.read_bytes()}
    assert holding == {"admin-key", "up.log"}  # the latter is what `lco up` shows a person, once
