"""How the API process starts: what it refuses, the first key, the doorbell."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.app import connect
from api.auth import create_key, verify_key
from api.serve import address_of, bind, ensure_admin_key, is_loopback, serve
from store.database import Database, make_engine
from store.settings import Settings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "[::1]", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_other_hosts_are_refused_while_no_key_exists(
    sqlite_settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve(sqlite_settings.model_copy(update={"host": "0.0.0.0"})) == 2
    assert "no API key exists" in capsys.readouterr().err
    assert not (sqlite_settings.data_dir / "admin-key").exists()


def test_database_that_is_not_migrated_is_refused(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve(settings) == 2
    assert "lco migrate" in capsys.readouterr().err


def test_port_that_is_taken_is_told(sqlite_settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with bind(sqlite_settings) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        assert serve(sqlite_settings.model_copy(update={"port": port})) == 2
    assert f"cannot bind 127.0.0.1:{port}" in capsys.readouterr().err


def test_first_key_is_made_once_and_kept_private(sqlite_settings: Settings) -> None:
    database = Database(make_engine(sqlite_settings))
    key = ensure_admin_key(database, sqlite_settings)
    path = sqlite_settings.data_dir / "admin-key"
    assert path.read_text().strip() == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert ensure_admin_key(database, sqlite_settings) is None
    with database.read() as session:
        found = verify_key(session, str(key))
        assert found is not None
        assert found.scope == "admin"
    database.dispose()


def test_addresses() -> None:
    assert address_of("0.0.0.0", 1) == "http://127.0.0.1:1"
    assert address_of("::1", 1) == "http://[::1]:1"
    assert address_of("127.0.0.1", 1) == "http://127.0.0.1:1"


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Queues that were rung for."""
    queues: list[str] = []
    monkeypatch.setattr("api.bell.ring", lambda settings, queue: queues.append(queue) or True)
    return queues


def test_submission_rings_once_per_run_that_may_start(
    built_app: FastAPI, sqlite_settings: Settings, experiment: dict[str, Any], rung: list[str]
) -> None:
    connect(built_app, sqlite_settings.model_copy(update={"broker_url": "redis://127.0.0.1:1"}))
    with built_app.state.database.write() as session:
        _, key = create_key(session, "test", "write")
    headers = {"Authorization": f"Bearer {key}"}
    with TestClient(built_app, base_url="http://127.0.0.1", headers=headers) as http:
        assert http.post("/v1/experiments", json=experiment).status_code == 201
        assert rung == ["lco.cpu", "lco.cpu"]  # the evaluations wait for the policy
        assert http.post("/v1/experiments", json=experiment).status_code == 201
        assert rung == ["lco.cpu"] * 4  # nobody is rung for twice in a row


def test_submission_needs_no_broker(http: TestClient, job: dict[str, Any], rung: list[str]) -> None:
    assert http.post("/v1/jobs", json=job).status_code == 201
    assert rung == []


def test_broker_that_is_down_fails_no_submission(
    built_app: FastAPI, sqlite_settings: Settings, job: dict[str, Any], make_key: Callable[..., str]
) -> None:
    key = make_key()
    built_app.state.settings = sqlite_settings.model_copy(update={"broker_url": "redis://127.0.0.1:1"})
    with TestClient(built_app, base_url="http://127.0.0.1", headers={"Authorization": f"Bearer {key}"}) as http:
        began = time.monotonic()
        assert http.post("/v1/jobs", json=job).status_code == 201
        assert time.monotonic() - began < 10
        assert http.get("/v1/jobs").json()["data"][0]["status"] == "queued"
