"""The application over a migrated SQLite of the test's own, and clients with keys for it."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from api import cli
from api.app import connect, create_app
from api.auth import Scope, create_key
from api.client import Client
from api.serve import Server, bind
from store import claims, queue
from store.claims import Claim
from store.database import Database
from store.repositories.workers import Workers
from store.settings import Settings
from store.states import Outcome
from tests.api import examples

BASE_URL = "http://127.0.0.1:8642"


@pytest.fixture(scope="session")
def built_app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """The application, built once."""
    app = create_app(Settings(data_dir=tmp_path_factory.mktemp("unused"), port=0))
    app.state.database.dispose()
    return app


@pytest.fixture
def app(built_app: FastAPI, sqlite_settings: Settings) -> Iterator[FastAPI]:
    """The application over a database of the test's own."""
    connect(built_app, sqlite_settings)
    yield built_app
    built_app.state.database.dispose()


@pytest.fixture
def database(app: FastAPI) -> Database:
    found: Database = app.state.database
    return found


@pytest.fixture
def make_key(database: Database) -> Callable[..., str]:
    def make(scope: Scope = "admin", **more: Any) -> str:
        with database.write() as session:
            return create_key(session, "test", scope, **more)[1]

    return make


@pytest.fixture
def anonymous(app: FastAPI) -> Iterator[TestClient]:
    """A client without a key; it holds every error against what the OpenAPI document says of the operation."""
    with TestClient(app, base_url=BASE_URL, follow_redirects=False) as client:
        client.event_hooks["response"].append(partial(check_documented, app.openapi()))
        if os.environ.get("WRITE_EXAMPLES"):
            client.event_hooks["response"].append(partial(examples.record, app.openapi()))
        yield client


def check_documented(document: dict[str, Any], response: Any) -> None:
    """Asserts that an operation's error is one that the document lists for it."""
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        return
    response.read()
    path, method = response.request.url.path, response.request.method.lower()
    literal = [path] if path in document["paths"] else None  # `/v1/results/table` is no `/v1/results/{res_id}`
    for template in literal or document["paths"]:
        operations = document["paths"][template]
        if method in operations and re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path):
            listed = operations[method]["responses"].get(str(response.status_code), {"$ref": "none"})["$ref"]
            code = response.json()["code"]
            assert code in listed.split("."), f"{method} {template} gives {code}: declare it with @may_fail"


@pytest.fixture
def http(anonymous: TestClient, make_key: Callable[..., str]) -> TestClient:
    """A client with an admin key."""
    anonymous.headers["Authorization"] = f"Bearer {make_key()}"
    return anonymous


@pytest.fixture
def job() -> dict[str, Any]:
    """The document of a small job."""
    return {
        "name": "warm-up",
        "kind": "sft",
        "seeds": [0, 1],
        "config": {"policy": {"name": "llama"}, "prompts": {"name": "sums"}, "optimizer": {"betas": [0.9, 0.95]}},
        "metadata": {"team": "blue"},
    }


@pytest.fixture
def experiment(job: dict[str, Any]) -> dict[str, Any]:
    """The document of an experiment: a policy and its evaluation."""
    evaluation = {
        "name": "eval-warm-up",
        "kind": "evaluation",
        "seeds": [0, 1],
        "config": {"policy": "job:warm-up", "benchmarks": [{"name": "sums"}], "decodings": ["t1.0", "greedy"]},
    }
    return {"name": "demo", "description": "small", "jobs": [evaluation, job]}


@dataclass
class Hand:
    """Plays a worker by hand."""

    database: Database
    worker_id: UUID

    def claim(self) -> Claim:
        """Takes the next run and starts it."""
        with self.database.write() as session:
            claim = claims.claim(
                session,
                worker_id=self.worker_id,
                queues=["lco.cpu"],
                labels=[],
                free_gpus=[],
                dispatcher="local",
                host="here",
            )
            assert claim is not None
            queue.start(session, claim, 4711)
        return claim

    def finish(self, claim: Claim, outcome: Outcome = Outcome.SUCCEEDED, **more: Any) -> None:
        """Ends the attempt."""
        with self.database.write() as session:
            queue.finish(session, claim, outcome, 0 if outcome is Outcome.SUCCEEDED else 1, **more)


@pytest.fixture
def hand(database: Database) -> Hand:
    with database.write() as session:
        worker_id = Workers(session).register(
            host="here", pid=1, dispatcher="local", queues=["lco.cpu"], labels=[], slots=2, gpus=[]
        )
    return Hand(database, worker_id)


@pytest.fixture
def live(app: FastAPI, sqlite_settings: Settings) -> Iterator[str]:
    """The address of the application behind a real server."""
    bound = bind(sqlite_settings)
    server = Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=3))
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    server.handle_exit(15, None)
    thread.join(10)
    assert not thread.is_alive()
    bound.close()


@pytest.fixture
def lco(
    live: str, make_key: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command against a live server; gives its exit code, output and errors."""
    monkeypatch.setenv("LCO_URL", live)
    monkeypatch.setenv("LCO_API_KEY", make_key())
    monkeypatch.setattr("api.commands.watching.POLL_SECONDS", 0.01)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def client(http: TestClient, make_key: Callable[..., str]) -> Client:
    """A client of the application."""
    return Client(BASE_URL, make_key(), http=http)
