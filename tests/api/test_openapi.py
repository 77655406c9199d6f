"""The committed description of the API is the one that is served."""

import re
import subprocess
import sys
from pathlib import Path

from fastapi import FastAPI
from starlette.testclient import TestClient

from api.openapi import as_committed
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
        assert {"4XX", "5XX"} <= operation["responses"].keys()
        assert "422" not in operation["responses"]
        assert operation["x-lco-scope"] == policy
    assert len(set(identifiers)) == len(identifiers)


def test_strictly_read_bodies_are_described(app: FastAPI) -> None:
    document = app.openapi()
    content = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]
    assert content.keys() == {"application/json", "application/toml"}
    assert "SftSpec" in document["components"]["schemas"]
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"], reference


def references(document: object) -> list[str]:
    """Every `$ref` in a document."""
    if isinstance(document, dict):
        found = [document["$ref"]] if "$ref" in document else []
        return found + [reference for value in document.values() for reference in references(value)]
    return [reference for value in document for reference in references(value)] if isinstance(document, list) else []


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
