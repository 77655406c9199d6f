"""Schedules over HTTP."""

from datetime import UTC, datetime, timedelta

import pytest

from store.ids import new_id
from store.models.project import Project

NIGHTLY = {"kind": "cron", "expression": "30 2 * * *", "time_zone": "Europe/Berlin"}


@pytest.fixture
def spec(job):
    return {"name": "nightly", "trigger": NIGHTLY, "action": {"kind": "job", "spec": job}}


@pytest.fixture
def schedule(http, spec):
    return http.post("/v1/schedules", json=spec).json()


def test_a_schedule_is_made_and_says_when_it_fires(http, spec):
    made = http.post("/v1/schedules", json=spec)
    assert made.status_code == 201
    found = made.json()
    assert made.headers["location"] == f"/v1/schedules/{found['id']}"
    due = datetime.fromisoformat(found["next_due_at"])
    assert timedelta(0) < due - datetime.now(UTC) <= timedelta(hours=25)
    assert due.minute == 30
    assert (found["last_fire"], found["is_suspended"], found["trigger"]["catch_up"]) == (None, False, "one")
    assert http.get(f"/v1/schedules/{found['id']}").json() == found
    assert [item["id"] for item in http.get("/v1/schedules").json()["data"]] == [found["id"]]


def test_toml_is_taken_as_well(http):
    text = """
name = "weekly"
trigger = { kind = "cron", expression = "0 6 * * MON" }
[action]
kind = "experiment"
[action.document]
name = "sweep"
axes = { size = [16, 32] }
[[action.document.jobs]]
each = ["size"]
name = "sft-{size}"
kind = "sft"
config = { policy = { name = "llama", hidden_size = "{size}" }, prompts = { name = "sums" } }
"""
    made = http.post("/v1/schedules", content=text, headers={"Content-Type": "application/toml"})
    assert made.status_code == 201, made.text
    fired = http.post(f"/v1/schedules/{made.json()['id']}/trigger").json()["last_fire"]
    assert fired["outcome"] == "submitted", fired
    assert len(http.get(f"/v1/experiments/{fired['objects'][0]}").json()["jobs"]) == 2


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"trigger": NIGHTLY | {"expression": "61 * * * *"}}, "/trigger/expression"),
        ({"trigger": NIGHTLY | {"time_zone": "Mars/Olympus"}}, "/trigger/time_zone"),
        ({"trigger": {"kind": "moon"}}, "/trigger"),
        ({"action": {"kind": "job", "spec": {"kind": "sft", "name": "x"}}}, "/action/spec/config"),
        ({"action": {"kind": "experiment", "document": {"name": "e", "jobs": []}}}, "/action/document/jobs"),
        ({"action": {"kind": "suite", "suite": "suite_" + "0" * 26}}, "/action/checkpoints"),
        ({"action": {"kind": "suite", "suite": "suite_" + "0" * 26, "checkpoints": {"newest": 1}}}, "/action/suite"),
        ({"action": {"kind": "suite", "suite": "x", "checkpoints": {"alias": "a"}}}, "/action/suite"),
        ({"name": "No Name"}, "/name"),
        ({"often": True}, "/often"),
    ],
)
def test_a_wrong_schedule_is_refused_by_its_field(http, spec, change, pointer):
    answer = http.post("/v1/schedules", json=spec | change)
    assert answer.status_code == 422, answer.text
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]


def test_a_watchers_action_is_checked_with_what_it_may_find(http, spec):
    watch = {"kind": "directory", "pattern": "nightly-*"}
    evaluation = {
        "kind": "evaluation",
        "name": "eval",
        "config": {"policy": "{found.model}", "benchmarks": [{"name": "sums"}]},
    }
    action = {"kind": "job", "spec": evaluation}
    made = http.post("/v1/schedules", json=spec | {"trigger": watch, "action": action})
    assert made.status_code == 201, made.text
    assert made.json()["action"]["spec"]["config"]["policy"] == "{found.model}"
    assert http.post("/v1/schedules", json=spec | {"action": action}).status_code == 422
    assert http.post(f"/v1/schedules/{made.json()['id']}/trigger").status_code == 202


def test_a_schedule_is_suspended_resumed_changed_and_removed(http, schedule):
    path = f"/v1/schedules/{schedule['id']}"
    found = http.post(f"{path}/suspend").json()
    assert (found["is_suspended"], found["next_due_at"]) == (True, None)
    assert http.post(f"{path}/resume").json()["next_due_at"] == schedule["next_due_at"]
    changed = http.patch(path, json={"trigger": NIGHTLY | {"expression": "0 5 * * *"}, "concurrency": "allow"}).json()
    assert (changed["trigger"]["expression"], changed["concurrency"], changed["name"]) == (
        "0 5 * * *",
        "allow",
        "nightly",
    )
    assert changed["next_due_at"] != schedule["next_due_at"]
    assert http.patch(path, json={"action": {"kind": "job", "spec": {}}}).status_code == 422
    assert http.delete(path).status_code == 204
    assert http.get(path).status_code == 404


def test_a_schedule_is_triggered_by_hand_once_per_idempotency_key(http, schedule):
    path = f"/v1/schedules/{schedule['id']}"
    first = http.post(f"{path}/trigger", headers={"Idempotency-Key": "1"}).json()["last_fire"]
    again = http.post(f"{path}/trigger", headers={"Idempotency-Key": "1"}).json()["last_fire"]
    assert (first["outcome"], first["cause"], again["id"]) == ("submitted", "manual", first["id"])
    assert http.get(f"/v1/jobs/{first['objects'][0]}").json()["name"] == "warm-up"
    second = http.post(f"{path}/trigger").json()["last_fire"]
    assert (second["outcome"], first["objects"][0] in second["message"]) == ("skipped", True)
    fires = http.get(f"{path}/fires").json()["data"]
    assert [fire["id"] for fire in fires] == [second["id"], first["id"]]


def test_a_trigger_that_fails_says_why(http, spec, job):
    broken = job | {"config": {"policy": "model:gone", "prompts": {"name": "sums"}}}
    made = http.post("/v1/schedules", json=spec | {"action": {"kind": "job", "spec": broken}}).json()
    fire = http.post(f"/v1/schedules/{made['id']}/trigger").json()["last_fire"]
    assert (fire["outcome"], fire["objects"]) == ("failed", [])
    assert fire["message"].startswith("/config/policy: ")


def test_schedules_of_another_project_are_unknown(http, schedule, make_key, database):
    other = Project(id=new_id(), name="other")
    with database.write() as session:
        session.add(other)
    theirs = {"Authorization": f"Bearer {make_key(project_id=other.id)}"}
    path = f"/v1/schedules/{schedule['id']}"
    assert http.get("/v1/schedules", headers=theirs).json()["data"] == []
    assert {http.get(p, headers=theirs).status_code for p in (path, f"{path}/fires")} == {404}
    assert {http.post(f"{path}/{verb}", headers=theirs).status_code for verb in ("trigger", "suspend", "resume")} == {
        404
    }
    assert http.delete(path, headers=theirs).status_code == 404
