"""The committed description of the API is the one that is served."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter
from starlette.testclient import TestClient

from api.examples import REQUESTS
from api.failures import STATUSES
from api.openapi import as_committed
from api.problems import PROBLEMS
from api.routes.aliases import AliasSpec
from api.routes.api_keys import ApiKeySpec
from store.specs import ExperimentSpec, JobSpec, ScoreRequest
from tests.api.test_auth import operations

COMMITTED = Path(__file__).parents[2] / "openapi.json"


def test_committed_document_is_current(app: FastAPI) -> None:
    cure = "run `python -m api.openapi openapi.json` and review the difference"
    assert COMMITTED.read_text() == as_committed(app), cure


def test_every_operation_is_described(app: FastAPI) -> None:
    document = app.openapi()
    identifiers = []
    for method, path, policy in operations(app):
        operation = document["paths"].get(path, {}).get(method.lower())
        if operation is None:
            assert not path.startswith("/v1"), path
            continue
        identifiers.append(operation["operationId"])
        assert operation["description"]
        expected = {"400", "413", "422", "500", "503"} | ({"401", "403"} if policy != "open" else set())
        assert expected <= operation["responses"].keys()
        assert operation["x-lco-scope"] == policy
    assert len(set(identifiers)) == len(identifiers)


def test_strictly_read_bodies_are_described(app: FastAPI) -> None:
    document = app.openapi()
    content = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]
    assert content.keys() == {"application/json", "application/toml"}
    assert "SftSpec" in document["components"]["schemas"]
    for reference in references(document):
        group, name = reference.removeprefix("#/components/").split("/")
        assert name in document["components"][group], reference


def references(document: object) -> list[str]:
    """Every `$ref` in a document."""
    if isinstance(document, dict):
        found = [document["$ref"]] if "$ref" in document else []
        return found + [reference for value in document.values() for reference in references(value)]
    return [reference for value in document for reference in references(value)] if isinstance(document, list) else []


def test_every_code_of_an_error_is_explained_and_has_one_status(app: FastAPI) -> None:
    assert STATUSES.keys() <= PROBLEMS.keys()
    unlisted = {"http_error", "login_required", "method_not_allowed", "not_yours"}  # no described operation gives them
    assert PROBLEMS.keys() - STATUSES.keys() == unlisted, "say the new code's status in api/failures.py"
    for name in app.openapi()["components"]["responses"]:
        status, *codes = name.split(".")
        assert codes and {STATUSES[code] for code in codes} == {int(status)}


def test_every_body_and_every_answer_has_an_example_that_fits_its_schema(app: FastAPI) -> None:
    document = app.openapi()
    missing = []
    for operation in (one for methods in document["paths"].values() for one in methods.values()):
        name = operation["operationId"]
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            if media_type in ("application/json", "application/toml") and "examples" not in content:
                missing.append(f"{name} takes {media_type}")
        for response in operation["responses"].values():
            content = response.get("content", {}).get("application/json", {})
            if "$ref" in content.get("schema", {}) and "examples" not in content:
                missing.append(f"{name} answers {content['schema']['$ref']}")
            for reference in content.get("examples", {}).values():
                example = document["components"]["examples"][reference["$ref"].rpartition("/")[2]]
                schema = content["schema"] | {"components": document["components"]}
                missing += [f"{name}: {error}" for error in errors_of(example["value"], schema)]
    assert not missing, f"{missing}: `WRITE_EXAMPLES=1 pytest -n 0 tests/api` adds them"


def errors_of(value: object, schema: dict[str, object]) -> list[str]:
    """What does not fit the schema."""
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(value)]


def test_examples_of_bodies_are_accepted_as_far_as_they_can_be_checked_without_a_database(app: FastAPI) -> None:
    bodies = {
        "jobs.create": JobSpec,
        "experiments.create": ExperimentSpec,
        "scores.create": ScoreRequest,
        "experiments.clone": dict[str, Any],
        "api_keys.create": ApiKeySpec,
        "aliases.put": AliasSpec,
    }
    for name, model in bodies.items():
        for example in REQUESTS[name].values():
            document = tomllib.loads(example) if isinstance(example, str) else example
            TypeAdapter(model).validate_json(json.dumps(document))


def test_documentation_page_shows_every_operation_without_foreign_scripts(http: TestClient, app: FastAPI) -> None:
    text = http.get("/docs").text
    for path in app.openapi()["paths"]:
        assert path in text
    assert all('src="/static/' in script for script in re.findall("<script[^>]*>", text))
    assert "style=" not in text
    assert not re.search(r"(src|href|action)=.https?:", text)


def test_api_never_imports_torch_nor_the_worker() -> None:
    unwanted = ["torch", "transformers", "numpy", "worker", "celery"]
    code = f"import sys, api.app, api.serve, api.client; print([name for name in {unwanted} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
