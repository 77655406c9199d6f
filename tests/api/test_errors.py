"""Every error has the same body, whatever raised it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.testclient import TestClient

from api.errors import field_error, pointer_of, redacted
from api.middleware import CONTENT_SECURITY_POLICY, MAX_BODY_BYTES
from api.problems import PROBLEMS
from store.database import Database
from store.ids import encode_id, new_id
from tests.api.test_auth import operations, path_of

BODIES: dict[str, Any] = {
    "/v1/datasets/{ds_id}/splits": {"parts": {"train": 0.5}},
    "/v1/runs/{run_id}/outputs/{name}/dataset": {"name": "kept"},
    "/v1/suites/{suite_id}/verdicts": {"checkpoint": "alias:champion"},
}
"""Of verbs that need one."""
FIELDS = {"type", "title", "status", "detail", "instance", "code", "request_id", "errors"}


def check(response: Any, status: int, code: str) -> dict[str, Any]:
    """Asserts the shape of a problem and returns it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem.keys() - {"current"} == FIELDS
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["type"] == f"/docs#problem-{code}"
    assert all(error.keys() == {"pointer", "code", "message"} for error in problem["errors"])
    assert response.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    return problem


def test_every_object_that_does_not_exist_is_the_same_404(app: FastAPI, http: TestClient) -> None:
    for method, template, _ in operations(app):
        if "{" not in template or not template.startswith("/v1") or method != "GET":
            continue
        unknown = check(http.get(path_of(template)), 404, "not_found")
        malformed = check(http.get(template.replace("{", "").replace("}", "")), 404, "not_found")
        assert unknown["detail"] == malformed["detail"]


def test_verbs_on_what_does_not_exist_are_404(app: FastAPI, http: TestClient) -> None:
    paths = [path for method, path, _ in operations(app) if method == "POST" and "_id}/" in path]
    assert len(paths) >= 12
    for path in paths:
        check(http.post(path_of(path), json=BODIES.get(path, {})), 404, "not_found")


def test_unknown_path(http: TestClient) -> None:
    problem = check(http.get("/v1/nowhere"), 404, "not_found")
    assert problem["instance"] == "/v1/nowhere"
    check(http.get("/v1/%ff%fe"), 404, "not_found")


def test_every_route_refuses_other_methods(app: FastAPI, http: TestClient) -> None:
    methods: dict[str, set[str]] = {}
    for method, path, _ in operations(app):
        methods.setdefault(path, set()).add(method)
    for path in methods:
        if path.startswith("/v1"):
            method = next(name for name in ("PATCH", "PUT", "DELETE") if name not in methods[path])
            response = http.request(method, path_of(path))
            check(response, 405, "method_not_allowed")
            assert response.headers["allow"]


def test_every_list_refuses_unknown_repeated_and_wrong_parameters(app: FastAPI, http: TestClient) -> None:
    for method, path, _ in operations(app):
        if method != "GET" or not path.startswith("/v1") or "stream" in path:
            continue
        problem = check(http.get(path_of(path), params={"surprise": "1"}), 422, "invalid_parameter")
        assert problem["errors"][0]["pointer"] == "/query/surprise"
    for query, pointer in (
        ("limit=0", "/query/limit"),
        ("limit=101", "/query/limit"),
        ("limit=x", "/query/limit"),
        ("after=run_x", "/query/after"),
        ("order=up", "/query/order"),
        ("status=open", "/query/status"),
        ("limit=1&limit=2", "/query/limit"),
        ("kind=%00", "/query/kind"),
        ("experiment=job_x", "/query/experiment"),
        (f"after={encode_id('job', new_id())}&before={encode_id('job', new_id())}", "/query/before"),
    ):
        problem = check(http.get(f"/v1/jobs?{query}"), 422, "invalid_parameter")
        assert problem["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/experiments", "/v1/api_keys"])
def test_body_over_the_cap(http: TestClient, path: str) -> None:
    content = b" " * (MAX_BODY_BYTES + 1)
    headers = {"Content-Type": "application/json"}
    check(http.post(path, content=content, headers=headers), 413, "body_too_large")
    chunks = (b" " * 65536 for _ in range(20))
    check(http.post(path, content=chunks, headers=headers), 413, "body_too_large")
    check(http.post(path, content=b"", headers={**headers, "Content-Length": "9" * 50}), 413, "body_too_large")
    check(http.post(path, content=b"", headers={**headers, "Content-Length": "-1"}), 400, "invalid_content_length")


def test_verb_takes_no_body(http: TestClient, job: dict[str, Any]) -> None:
    found = http.post("/v1/jobs", json=job).json()
    check(http.post(f"/v1/jobs/{found['id']}/cancel", json={"force": True}), 422, "unexpected_body")
    assert http.post(f"/v1/jobs/{found['id']}/cancel", json={}).status_code == 202


@pytest.mark.parametrize(
    "error", [OperationalError("SELECT 'secret'", {}, Exception("secret")), PoolTimeout("secret")], ids=["down", "pool"]
)
def test_database_outage_is_a_503_that_says_when_to_retry(
    http: TestClient, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    http.get("/v1/jobs")  # the key is believed for a second

    def fail(self: Database) -> None:
        raise error

    monkeypatch.setattr(Database, "read", fail)
    response = http.get("/v1/jobs")
    check(response, 503, "database_unavailable")
    assert response.headers["retry-after"] == "2"
    assert "secret" not in response.text


def test_outage_while_the_key_is_looked_up_is_a_503_too(
    http: TestClient, monkeypatch: pytest.MonkeyPatch, make_key: Callable[..., str]
) -> None:
    key = make_key()

    def fail(self: Database) -> None:
        raise OperationalError("SELECT", {}, Exception())

    monkeypatch.setattr(Database, "read", fail)
    check(http.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"}), 503, "database_unavailable")


def test_our_own_mistake_is_a_500_without_details(
    http: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object) -> None:
        raise KeyError("sk-secret")

    monkeypatch.setattr("api.views.jobs", fail)
    response = http.get("/v1/jobs")
    problem = check(response, 500, "internal_error")
    assert "secret" not in response.text
    assert problem["request_id"] in caplog.text


def test_request_too_many_is_refused(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.middleware.MAX_REQUESTS", 0)
    response = http.get("/healthz")
    check(response, 503, "overloaded")
    assert response.headers["retry-after"]


def test_every_code_is_explained() -> None:
    pattern = re.compile(
        r'(?:ApiError\(\s*|StrictJsonError\(|answer\(request, |make_problem\(scope, )\d+,\s*"([a-z_]+)"'
    )
    room = Path(__file__).parents[2] / "api"
    found = {code for path in room.rglob("*.py") for code in pattern.findall(path.read_text())}
    assert len(found) > 20
    assert found | {"invalid_state"} <= PROBLEMS.keys()


def test_request_id_of_the_client_is_kept_where_it_is_harmless(http: TestClient) -> None:
    assert http.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    for wrong in ("a b", "x" * 65, '"', ""):
        assert http.get("/healthz", headers={"X-Request-ID": wrong}).headers["x-request-id"] != wrong


def test_pages_are_never_cached_by_others_and_frame_nothing(http: TestClient) -> None:
    headers = http.get("/v1/jobs").headers
    assert headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]


def test_pointer_leaves_out_names_of_union_members() -> None:
    document = {"config": {"policy": {"a/b": [1, 2]}}}
    location = ("sft", "config", "policy", "LlamaInit", "a/b", 1)
    assert pointer_of(location, "int_type", document) == "/config/policy/a~1b/1"
    assert pointer_of(("sft", "config", "prompts"), "missing", document) == "/config/prompts"
    assert pointer_of(("sft", "config", "policy", "str"), "string_type", document) == "/config/policy"


def test_a_body_without_a_kind_says_which_field_is_missing(http: TestClient, job: dict[str, Any]) -> None:
    del job["kind"]
    (error,) = http.post("/v1/jobs", json=job).json()["errors"]
    assert (error["pointer"], error["message"]) == ("/kind", "this is required")


def test_an_unknown_field_is_told_in_plain_words(http: TestClient, job: dict[str, Any]) -> None:
    (error,) = http.post("/v1/jobs", json=job | {"kindd": 1}).json()["errors"]
    assert (error["pointer"], error["message"]) == ("/kindd", "there is no such field")


def test_messages_lose_quoted_values() -> None:
    assert redacted("depends on 'warm-up', which") == "depends on 'warm-up', which"
    assert redacted("'sk-CANARY/1' is none") == "the value is none"
    assert redacted('"it\'s" is none') != '"it\'s" is none'
    error = {"type": "value_error", "ctx": {"error": ValueError("'SECRET' is wrong")}, "msg": "x"}
    assert field_error(error, "").message == "the value is wrong"
