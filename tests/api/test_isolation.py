"""What belongs to another project is unknown: every route, by every kind of id."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import select, text
from starlette.testclient import TestClient

from store.database import Database
from store.ids import encode_id, new_id
from store.models.access import ApiKey
from store.models.notification import Delivery
from store.models.project import DEFAULT_PROJECT_ID, AuditEntry, Project
from store.models.record import Checkpoint, Result
from store.models.registry import Model
from store.models.tables import Base
from tests.api.test_auth import operations
from tests.dashboard.filling import fill

BODIES: dict[str, Any] = {
    "PUT /v1/aliases/{name}": {"checkpoint": "ckpt_" + "0" * 26},
    "PATCH /v1/projects/{prj_id}": {"max_running_runs": 1},
    "POST /v1/suites/{suite_id}/verdicts": {"checkpoint": "ckpt_" + "0" * 26},
    "POST /v1/datasets/{ds_id}/splits": {"parts": {"train": 0.5}},
    "POST /v1/runs/{run_id}/outputs/{name}/dataset": {"name": "rows"},
}
SHARED = {"wrk", "benchmark", "name"}
"""What stands in paths and is no project's: workers and benchmarks; a name is looked up in one's own project."""


@pytest.fixture
def other(database: Database) -> Project:
    """A second project."""
    project = Project(id=new_id(), name="second")
    with database.write() as session:
        session.add(project)
    return project


@pytest.fixture
def theirs(make_key: Callable[..., str], other: Project) -> dict[str, str]:
    """Headers with an admin key of the second project."""
    return {"Authorization": f"Bearer {make_key(project_id=other.id)}"}


@pytest.fixture
def ours(http: TestClient, app: FastAPI, database: Database, job: dict[str, Any]) -> dict[str, str]:
    """An id of each kind of object of the default project, by prefix."""
    filled = fill(database, app.state.settings)
    http.post("/v1/jobs", json=job)
    model = Model(name="local", origin="local")
    with database.write() as session:
        session.add(model)
        session.flush()
        found = {
            "res": session.scalars(select(Result.id)).first(),
            "key": session.scalars(select(ApiKey.id).where(ApiKey.project_id == DEFAULT_PROJECT_ID)).first(),
            "aud": session.scalars(select(AuditEntry.id).where(AuditEntry.project_id == DEFAULT_PROJECT_ID)).first(),
            "dlv": session.scalars(select(Delivery.id)).first(),
            "mdl": model.id,
        }
    pages = {name.removesuffix("_id"): ids[0] for name, ids in filled.parameters().items()}
    with database.read() as session:
        found["run"] = session.scalars(select(Checkpoint.run_id)).first()
    more = {prefix: encode_id(prefix, identifier) for prefix, identifier in found.items() if identifier is not None}
    return (
        pages
        | more
        | {"exp": filled.experiment, "vrd": filled.verdicts[0], "prj": encode_id("prj", DEFAULT_PROJECT_ID)}
    )


def test_every_route_answers_for_a_foreign_id_what_it_answers_for_an_unknown_one(
    app: FastAPI, http: TestClient, theirs: dict[str, str], ours: dict[str, str], database: Database
) -> None:
    before = contents(database)
    seen = set()
    for method, template, _ in operations(app):
        names = {match[1] for match in re.finditer(r"{(\w+?)(?:_id)?}", template)}
        if names <= SHARED:
            continue
        seen |= names - SHARED
        foreign = path_of(template, ours)
        unknown = path_of(template, {name: f"{text.partition('_')[0]}_{'7' * 26}" for name, text in ours.items()})
        body = None if method in ("GET", "DELETE") else BODIES.get(f"{method} {template}", {})
        headers = theirs | {"If-Match": '"1"'}
        answers = [http.request(method, path, json=body, headers=headers) for path in (foreign, unknown)]
        what = (method, template, answers[0].text[:300])
        if template.startswith("/v1/projects") and method != "GET":
            assert answers[0].status_code == answers[1].status_code == 403, what
            continue
        assert answers[0].status_code == answers[1].status_code == 404, what
        told = [{**answer.json(), "instance": "", "request_id": ""} for answer in answers]
        assert told[0] == told[1], what
    assert seen == ours.keys(), "a kind of id is in no path, or was not tried"
    assert contents(database) == before


def path_of(template: str, ids: dict[str, str]) -> str:
    return re.sub(r"{(\w+?)(_id)?}", lambda match: ids.get(match[1], "completions"), template)


def contents(database: Database) -> dict[str, list[Any]]:
    """Every row of every table, but for when keys were used."""
    with database.read() as session:
        names = [table.name for table in Base.metadata.sorted_tables if table.name != "api_keys"]
        return {name: [tuple(row) for row in session.execute(text(f"SELECT * FROM {name}"))] for name in names}


def test_no_list_or_page_shows_anything_of_another_project(
    app: FastAPI, http: TestClient, theirs: dict[str, str], ours: dict[str, str], other: Project
) -> None:
    wanted = {"experiment": ours["exp"], "baseline": "sft"}
    filters = {"/v1/results/table": {"experiment": ours["exp"]}, "/v1/comparisons": wanted}
    (key,) = http.get("/v1/api_keys", headers=theirs).json()["data"]
    own = {encode_id("prj", other.id), key["id"]}
    for method, template, _ in operations(app):
        if method != "GET" or "{" in template or template in ("/docs", "/openapi.json", "/metrics"):
            continue
        answer = http.get(template, headers=theirs, params=filters.get(template))
        is_complete = answer.status_code != 422 or template not in filters
        assert answer.status_code in (200, 404, 422) and is_complete, (template, answer.text)
        shown = set(re.findall(r"\b[a-z]+_[0-9a-hjkmnp-tv-z]{26}\b", answer.text))
        assert not {found for found in shown - own if not found.startswith("wrk_")}, template


def test_filters_by_foreign_ids_find_nothing(http: TestClient, theirs: dict[str, str], ours: dict[str, str]) -> None:
    for path in (
        f"/v1/jobs?experiment={ours['exp']}",
        f"/v1/runs?job={ours['job']}",
        f"/v1/checkpoints?run={ours['run']}",
        f"/v1/results?experiment={ours['exp']}",
        f"/v1/api_keys?project={ours['prj']}",
        f"/v1/audit_entries?project={ours['prj']}",
    ):
        assert http.get(path).json()["data"], path
        assert http.get(path, headers=theirs).json()["data"] == [], path


def test_foreign_inputs_and_names_are_unknown(
    http: TestClient, theirs: dict[str, str], ours: dict[str, str], job: dict[str, Any]
) -> None:
    assert http.put("/v1/aliases/best", json={"checkpoint": ours["ckpt"]}).status_code == 201
    for source, unknown in (
        (ours["ckpt"], "ckpt_" + "7" * 26),
        (ours["job"], "job_" + "7" * 26),
        ("alias:best", "alias:nobodys"),
    ):
        told = []
        for policy in (source, unknown):
            document = {**job, "kind": "pairs", "config": {"policy": policy, "prompts": {"name": "sums"}}}
            answer = http.post("/v1/jobs", json=document, headers=theirs)
            assert answer.status_code == 422, answer.text
            value = policy.rpartition(":")[2]
            told.append(
                [error | {"message": error["message"].replace(value, "?")} for error in answer.json()["errors"]]
            )
        assert told[0] == told[1]
    rows = http.get(f"/v1/datasets/{ours['ds']}").json()
    for name, status in ((rows["sha256"], 422), ("0" * 64, 422)):
        config = {"policy": {"name": "llama"}, "prompts": {"name": "jsonl", "path": f"data:datasets/{name}.jsonl"}}
        answer = http.post("/v1/jobs", json={**job, "config": config}, headers=theirs)
        assert answer.status_code == status, answer.text
        assert "there is no data file" in answer.json()["detail"], answer.text
    wrong = http.put("/v1/aliases/mine", json={"checkpoint": ours["ckpt"]}, headers=theirs)
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/checkpoint")
    assert http.get("/v1/aliases/best", headers=theirs).status_code == 404


def test_projects_use_the_same_names_for_different_things(http: TestClient, theirs: dict[str, str]) -> None:
    rows = {"Content-Type": "application/jsonl"}
    mine = http.post("/v1/datasets?name=words", content=b'{"a": 1}\n', headers=rows).json()
    other = http.post("/v1/datasets?name=words", content=b'{"a": 2}\n', headers=rows | theirs).json()
    assert (mine["version"], other["version"]) == (1, 1)
    assert mine["sha256"] != other["sha256"]


def test_numbers_of_a_key_are_about_its_project(http: TestClient, theirs: dict[str, str], ours: dict[str, str]) -> None:
    whole, theirs_alone = http.get("/metrics").text, http.get("/metrics", headers=theirs).text
    assert 'lco_runs{state="succeeded"' in whole
    assert "lco_runs{" not in theirs_alone and "lco_attempts_total{" not in theirs_alone
