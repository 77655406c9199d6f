"""A retry with the same Idempotency-Key gets the first reply, and nothing is done twice."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.api.test_auth import operations

KEY = {"Idempotency-Key": "4b7f-1"}


def num_jobs(http: TestClient) -> int:
    return len(http.get("/v1/jobs").json()["data"])


def test_retry_is_replayed(http: TestClient, job: dict[str, Any]) -> None:
    first = http.post("/v1/jobs", json=job, headers=KEY)
    again = http.post("/v1/jobs", json=job, headers=KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert first.headers["location"] == again.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert num_jobs(http) == 1


def test_other_body_or_path_with_the_same_key_is_refused(http: TestClient, job: dict[str, Any]) -> None:
    found = http.post("/v1/jobs", json=job, headers=KEY).json()
    for path, body in (("/v1/jobs", {**job, "seeds": [7]}), (f"/v1/jobs/{found['id']}/cancel", None)):
        response = http.post(path, json=body, headers=KEY)
        assert (response.status_code, response.json()["code"]) == (422, "idempotency_key_reused")
    assert http.get(f"/v1/jobs/{found['id']}").json()["status"] == "queued"
    assert num_jobs(http) == 1


def test_keys_of_two_callers_do_not_meet(http: TestClient, job: dict[str, Any], make_key: Callable[..., str]) -> None:
    http.post("/v1/jobs", json=job, headers=KEY)
    other = {"Authorization": f"Bearer {make_key('write')}"}
    assert http.post("/v1/jobs", json=job, headers={**KEY, **other}).status_code == 201
    assert num_jobs(http) == 2


def test_without_a_key_every_post_counts(http: TestClient, job: dict[str, Any]) -> None:
    for _ in range(2):
        assert http.post("/v1/jobs", json=job).status_code == 201
    assert num_jobs(http) == 2


def test_error_is_not_kept(http: TestClient, job: dict[str, Any]) -> None:
    wrong = {**job, "config": {**job["config"], "policy": "model:nowhere"}}
    assert http.post("/v1/jobs", json=wrong, headers=KEY).status_code == 422
    assert http.post("/v1/jobs", json=job, headers=KEY).status_code == 201


def test_verb_is_replayed_with_its_first_status(http: TestClient, job: dict[str, Any]) -> None:
    path = f"/v1/jobs/{http.post('/v1/jobs', json=job).json()['id']}/cancel"
    assert [http.post(path, headers=KEY).status_code for _ in range(2)] == [202, 202]
    assert http.post(path).status_code == 200


@pytest.mark.parametrize("key", ["", "x" * 256, "\u00e4", "a\tb"])
def test_key_of_a_wrong_form_is_refused(http: TestClient, job: dict[str, Any], key: str) -> None:
    response = http.post("/v1/jobs", json=job, headers={"Idempotency-Key": key.encode("utf-8")})  # type: ignore[dict-item]
    assert response.status_code == 422
    assert num_jobs(http) == 0


def test_every_post_of_the_api_takes_a_key(app: FastAPI) -> None:
    document = app.openapi()
    for method, path, _ in operations(app):
        if method == "POST" and path.startswith("/v1") and not path.endswith(("/check", "/gc")):  # safe to repeat
            names = [parameter["name"] for parameter in document["paths"][path]["post"]["parameters"]]
            assert "idempotency-key" in names, path


def test_concurrent_posts_with_one_key_make_one_job(
    live: str, job: dict[str, Any], make_key: Callable[..., str]
) -> None:
    headers = {**KEY, "Authorization": f"Bearer {make_key()}"}
    with httpx2.Client(base_url=live, headers=headers, trust_env=False) as http, ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda _: http.post("/v1/jobs", json=job), range(16)))
        assert {reply.status_code for reply in replies} == {201}
        assert len({reply.json()["id"] for reply in replies}) == 1
        assert len(http.get("/v1/jobs").json()["data"]) == 1
