"""Projects, their quotas, and the audit log, over HTTP."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from store.database import Database
from store.ids import decode_id, encode_id
from store.models.project import DEFAULT_PROJECT_ID
from tests.api.conftest import Hand
from tests.api.test_errors import check

ROWS = {"Content-Type": "application/jsonl"}


@pytest.fixture
def project(http: TestClient) -> dict[str, Any]:
    """A second project."""
    found: dict[str, Any] = http.post("/v1/projects", json={"name": "blue"}).json()
    return found


@pytest.fixture
def theirs(make_key: Callable[..., str], project: dict[str, Any]) -> dict[str, str]:
    """Headers with an admin key of the second project."""
    return {"Authorization": f"Bearer {make_key(project_id=decode_id('prj', project['id']))}"}


def test_there_is_a_default_project_and_others_are_made(http: TestClient) -> None:
    made = http.post("/v1/projects", json={"name": "blue", "max_running_runs": 2})
    assert made.status_code == 201 and made.headers["location"] == f"/v1/projects/{made.json()['id']}"
    assert made.json()["quotas"] == {
        "max_gpu_slots": None,
        "max_running_runs": 2,
        "max_storage_bytes": None,
        "max_judge_spend": None,
    }
    assert [found["name"] for found in http.get("/v1/projects").json()["data"]] == ["blue", "default"]
    assert [found["is_default"] for found in http.get("/v1/projects?name=default").json()["data"]] == [True]
    check(http.post("/v1/projects", json={"name": "blue"}), 409, "name_taken")
    for body in ({"name": "No Spaces"}, {"name": "x", "max_running_runs": -1}, {"name": "x", "max_judge_spend": 1e10}):
        check(http.post("/v1/projects", json=body), 422, "invalid_body")


def test_quotas_are_changed_one_by_one_and_taken_away_by_null(http: TestClient, project: dict[str, Any]) -> None:
    path = f"/v1/projects/{project['id']}"
    http.patch(path, json={"max_gpu_slots": 4, "max_judge_spend": 2.5})
    quotas = http.patch(path, json={"max_gpu_slots": None, "name": "green"}).json()
    assert (quotas["name"], quotas["quotas"]["max_gpu_slots"], quotas["quotas"]["max_judge_spend"]) == (
        "green",
        None,
        2.5,
    )
    check(http.patch(path, json={"name": "default"}), 409, "name_taken")
    check(http.patch(path, json={"max_gpus": 1}), 422, "invalid_body")
    check(http.patch(f"/v1/projects/prj_{'7' * 26}", json={}), 404, "not_found")


def test_only_an_operator_manages_projects(
    http: TestClient, theirs: dict[str, str], project: dict[str, Any], make_key: Callable[..., str]
) -> None:
    path = f"/v1/projects/{project['id']}"
    for answer in (
        http.post("/v1/projects", json={"name": "red"}, headers=theirs),
        http.patch(path, json={"max_running_runs": 9}, headers=theirs),
        http.post(f"{path}/archive", headers=theirs),
    ):
        check(answer, 403, "operator_only")
    writer = {"Authorization": f"Bearer {make_key('write')}"}
    check(http.post("/v1/projects", json={"name": "red"}, headers=writer), 403, "insufficient_scope")
    assert [found["name"] for found in http.get("/v1/projects", headers=theirs).json()["data"]] == ["blue"]
    assert http.get(path, headers=theirs).json()["name"] == "blue"


def test_keys_are_made_for_a_project_by_an_operator_and_by_its_own_admins(
    http: TestClient, theirs: dict[str, str], project: dict[str, Any], job: dict[str, Any]
) -> None:
    made = http.post("/v1/api_keys", json={"name": "k", "scope": "write", "project": project["id"]}).json()
    own = {"Authorization": f"Bearer {made['key']}"}
    assert made["project_id"] == project["id"]
    assert http.post("/v1/jobs", json=job, headers=own).status_code == 201
    assert http.get("/v1/jobs").json()["data"] == []
    listed = http.get("/v1/api_keys", headers=theirs).json()["data"]
    assert {key["project_id"] for key in listed} == {project["id"]}
    assert len(http.get("/v1/api_keys").json()["data"]) == 1 + len(listed)
    assert len(http.get("/v1/api_keys", params={"project": project["id"]}).json()["data"]) == len(listed)
    theirs_made = http.post("/v1/api_keys", json={"name": "l"}, headers=theirs).json()
    assert theirs_made["project_id"] == project["id"]
    default = http.get("/v1/projects?name=default").json()["data"][0]["id"]
    for text in (default, f"prj_{'7' * 26}", "blue"):
        answer = http.post("/v1/api_keys", json={"name": "m", "project": text}, headers=theirs)
        assert check(answer, 422, "invalid")["errors"][0]["pointer"] == "/project"
    assert http.post(f"/v1/api_keys/{made['id']}/revoke").json()["revoked_at"] is not None
    check(http.get("/v1/jobs", headers=own), 401, "unauthenticated")


def test_an_archived_project_can_be_read_and_takes_nothing(
    http: TestClient, theirs: dict[str, str], project: dict[str, Any], job: dict[str, Any], experiment: dict[str, Any]
) -> None:
    http.post("/v1/jobs", json=job, headers=theirs)
    path = f"/v1/projects/{project['id']}"
    assert http.post(f"{path}/archive").json()["archived_at"] is not None
    check(http.post("/v1/jobs", json=job, headers=theirs), 409, "project_archived")
    check(http.post("/v1/experiments", json=experiment, headers=theirs), 409, "project_archived")
    check(http.post("/v1/datasets?name=d", content=b"{}\n", headers=ROWS | theirs), 409, "project_archived")
    check(http.post("/v1/api_keys", json={"name": "k", "project": project["id"]}), 409, "project_archived")
    assert len(http.get("/v1/jobs", headers=theirs).json()["data"]) == 1
    assert http.post(f"{path}/unarchive").json()["archived_at"] is None
    assert http.post("/v1/jobs", json=job, headers=theirs).status_code == 201
    default = http.get("/v1/projects?name=default").json()["data"][0]["id"]
    check(http.post(f"/v1/projects/{default}/archive"), 409, "default_project")


def test_an_upload_beyond_the_storage_quota_is_refused_and_leaves_no_file(
    http: TestClient, theirs: dict[str, str], project: dict[str, Any], app: FastAPI, job: dict[str, Any]
) -> None:
    http.patch(f"/v1/projects/{project['id']}", json={"max_storage_bytes": 20})
    first = http.post("/v1/datasets?name=d", content=b'{"a": "12345"}\n', headers=ROWS | theirs)
    assert first.status_code == 201
    problem = check(
        http.post("/v1/datasets?name=d", content=b'{"a": "67890"}\n', headers=ROWS | theirs), 409, "quota_exceeded"
    )
    assert "max_storage_bytes: the project blue keeps" in problem["detail"]
    assert problem["current"] == "15 of 20 bytes"
    kept = list((app.state.settings.data / "datasets").glob("*.jsonl"))
    assert [place.stem for place in kept] == [first.json()["sha256"]]
    assert http.post("/v1/datasets?name=d", content=b'{"a": "12345"}\n', headers=ROWS | theirs).status_code == 200
    assert http.post("/v1/datasets?name=e", content=b'{"a": "12345"}\n', headers=ROWS | theirs).status_code == 201
    assert http.get(f"/v1/projects/{project['id']}").json()["usage"]["storage_bytes"] == 15
    assert http.post("/v1/jobs", json=job, headers=theirs).status_code == 201
    http.patch(f"/v1/projects/{project['id']}", json={"max_storage_bytes": 15})
    check(http.post("/v1/jobs", json=job, headers=theirs), 409, "quota_exceeded")


def test_a_run_that_a_quota_holds_back_says_so_wherever_it_is_shown(
    http: TestClient, job: dict[str, Any], hand: Hand
) -> None:
    default = http.get("/v1/projects?name=default").json()["data"][0]["id"]
    http.patch(f"/v1/projects/{default}", json={"max_running_runs": 1})
    made = http.post("/v1/jobs", json=job).json()
    hand.claim()
    waiting = made["runs"][1]["id"]
    reason = "waits: the project default has 1 of the 1 live runs that its quota max_running_runs allows"
    assert http.get(f"/v1/runs/{waiting}").json()["status_reason"] == reason
    shown = http.get(f"/v1/jobs/{made['id']}").json()
    assert [run["status_reason"] for run in shown["runs"]] == ["", reason]
    http.patch(f"/v1/projects/{default}", json={"max_running_runs": None})
    assert http.get(f"/v1/runs/{waiting}").json()["status_reason"] == ""


def entries(http: TestClient, **query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = http.get("/v1/audit_entries", params=query).json()["data"]
    return found


def test_each_change_leaves_one_entry_with_who_what_and_which_request(
    http: TestClient, job: dict[str, Any], project: dict[str, Any]
) -> None:
    made = http.post("/v1/jobs", json=job)
    identifier = made.json()["id"]
    cancelled = http.post(f"/v1/jobs/{identifier}/cancel")
    http.patch(f"/v1/projects/{project['id']}", json={"max_running_runs": 3})
    key = http.post("/v1/api_keys", json={"name": "theirs", "project": project["id"]}).json()
    http.post(f"/v1/api_keys/{key['id']}/revoke")
    http.post("/v1/login_links")
    http.post("/v1/datasets?name=d", content=b"{}\n", headers=ROWS)
    found = [(entry["action"], entry["object_id"]) for entry in entries(http, order="asc")]
    assert found[:6] == [
        ("projects.create", project["id"]),
        ("jobs.create", identifier),
        ("jobs.cancel", identifier),
        ("projects.change", project["id"]),
        ("api_keys.create", key["id"]),
        ("api_keys.revoke", key["id"]),
    ]
    assert [action for action, _ in found[6:]] == ["login_links.create", "datasets.create"]
    (entry,) = entries(http, action="jobs.cancel", object=identifier)
    assert (entry["key_name"], entry["via"]) == ("test", "bearer")
    assert entry["request_id"] == cancelled.headers["x-request-id"]
    assert entry["details"] == {"name": "warm-up", "kind": "sft"}
    assert entries(http, action="projects.change")[0]["details"] == {"max_running_runs": 3}
    assert http.get(f"/v1/audit_entries/{entry['id']}").json() == entry
    assert "lco_sk" not in http.get("/v1/audit_entries").text


def test_what_changes_nothing_leaves_no_entry(http: TestClient, job: dict[str, Any], anonymous: TestClient) -> None:
    once = {"Idempotency-Key": "a"}
    identifier = http.post("/v1/jobs", json=job, headers=once).json()["id"]
    before = len(entries(http))
    http.post("/v1/jobs", json=job, headers=once)
    http.post("/v1/jobs", json={**job, "kind": "none"})
    http.post(f"/v1/jobs/job_{'7' * 26}/cancel")
    http.post(f"/v1/jobs/{identifier}/retry")
    http.get(f"/v1/jobs/{identifier}")
    assert len(entries(http)) == before
    http.post(f"/v1/jobs/{identifier}/cancel")
    http.post(f"/v1/jobs/{identifier}/cancel")
    assert len(entries(http)) == before + 1


def test_an_entry_is_read_in_the_project_of_its_object(
    http: TestClient, theirs: dict[str, str], project: dict[str, Any], job: dict[str, Any]
) -> None:
    http.post("/v1/jobs", json=job, headers=theirs)
    http.post("/v1/jobs", json=job)
    http.post("/v1/api_keys", json={"name": "k", "project": project["id"]})
    found = http.get("/v1/audit_entries", headers=theirs).json()["data"]
    assert [entry["action"] for entry in found] == ["api_keys.create", "jobs.create"]
    assert [entry["action"] for entry in entries(http, project=project["id"])] == ["api_keys.create", "jobs.create"]


def test_signing_in_and_out_is_in_the_log(
    anonymous: TestClient, make_key: Callable[..., str], database: Database
) -> None:
    key = make_key()
    origin = {"Origin": "http://127.0.0.1:8642"}
    assert anonymous.post("/login", data={"key": "wrong"}, headers=origin).status_code == 401
    assert anonymous.post("/login", data={"key": key}, headers=origin).status_code == 303
    anonymous.post("/logout", headers=origin)
    found = anonymous.get("/v1/audit_entries", headers={"Authorization": f"Bearer {key}"}).json()["data"]
    assert [(entry["action"], entry["via"]) for entry in found] == [
        ("sessions.delete", "cookie"),
        ("sessions.create", "cookie"),
    ]
    assert {entry["project_id"] for entry in found} == {encode_id("prj", DEFAULT_PROJECT_ID)}
