"""Generated requests to every operation: none makes the server fail, and every answer is as the document says.

The suite sends a few requests to each operation, the same ones every time; `make schemathesis` sends many others.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.schemas import APIOperation
from starlette.testclient import TestClient

from api.app import create_app
from api.auth import create_key
from store.settings import Settings
from tests.conftest import sqlite_path
from tests.dashboard.filling import fill

ROUNDS = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "2"))
"""Requests a way of making them and operation."""
SEED = int(os.environ.get("SCHEMATHESIS_SEED", "1"))
load_all_checks()
_CHECKS = CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    ]
)
_DOCUMENT = json.loads((Path(__file__).parents[2] / "openapi.json").read_text())
_OPERATIONS = [(method, path) for path, methods in _DOCUMENT["paths"].items() for method in methods]


@dataclass
class Target:
    """The application with something in it, and how to reach it."""

    client: TestClient
    schema: Any
    known: dict[str, str]
    """Path parameter -> an id that exists."""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Iterator[Target]:
    platform = Settings(data_dir=tmp_path_factory.mktemp("schemathesis"), port=0)
    shutil.copyfile(migrated_sqlite, sqlite_path(platform))
    app = create_app(platform)
    filled = fill(app.state.database, platform)
    with app.state.database.write() as session:
        key = create_key(session, "test", "admin")[1]
    headers = {"Authorization": f"Bearer {key}"}
    # A server's failure is an answer here, as it is for a client: the checks are to see it.
    with TestClient(
        app, "http://127.0.0.1:8642", headers=headers, follow_redirects=False, raise_server_exceptions=False
    ) as client:
        known = {name: values[0] for name, values in filled.parameters().items()} | {
            "exp_id": filled.experiment,
            "job_id": filled.jobs["measure-sft"],  # it has ended: its streams end, too
            "run_id": filled.runs["measure-sft", 0],
            "benchmark_id": "sums",
            "name": "sums",
        }
        yield Target(client, schemathesis.openapi.from_dict(app.openapi()), known)


@pytest.mark.parametrize(("method", "path"), _OPERATIONS, ids=[f"{m} {p}" for m, p in _OPERATIONS])
def test_operation_answers_as_it_says(target: Target, method: str, path: str) -> None:
    operation = target.schema[path][method.upper()]
    _send(target, operation, GenerationMode.POSITIVE, {})
    known = {name: target.known[name] for name in re.findall(r"{(\w+)}", path) if name in target.known}
    if known:
        _send(target, operation, GenerationMode.POSITIVE, known)
    if operation.body or operation.query:
        _send(target, operation, GenerationMode.NEGATIVE, known)


def _send(target: Target, operation: APIOperation, mode: GenerationMode, known: dict[str, str]) -> None:
    """Sends generated requests; the seed, and nothing that was found before, says which."""
    print(f"SCHEMATHESIS_SEED={SEED}")  # shown where a test fails

    @seed(SEED)
    @settings(
        max_examples=ROUNDS,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        case.path_parameters = {**(case.path_parameters or {}), **known}
        request = case.as_transport_kwargs(base_url="http://127.0.0.1:8642")
        request.pop("cookies", None)  # made up like the Authorization header, and wrong
        request["headers"] = {**request["headers"], "Authorization": target.client.headers["Authorization"]}
        request["content"] = request.pop("data", None)
        response = target.client.request(**{name: value for name, value in request.items() if value is not None})
        case.validate_response(response, checks=_CHECKS)

    send()
