"""Webhook endpoints over HTTP."""

import json

import pytest
from standardwebhooks import Webhook

from api.app import connect
from store.deliveries import Answer, claim_due, record
from store.ids import new_id
from store.models.project import Project

URL = "https://hooks.example.com/lco"
WEBHOOK = {"channel": {"kind": "webhook", "url": URL}}


@pytest.fixture
def endpoint(http):
    return http.post("/v1/webhook_endpoints", json=WEBHOOK | {"event_types": ["job.*"]}).json()


def test_an_endpoint_is_made_with_a_secret_that_is_shown_once(http):
    key = {"Idempotency-Key": "1"}
    made = http.post("/v1/webhook_endpoints", json=WEBHOOK | {"description": "pager"}, headers=key)
    assert made.status_code == 201
    found = made.json()
    assert found["secret"].startswith("whsec_")
    Webhook(found["secret"])
    assert made.headers["location"] == f"/v1/webhook_endpoints/{found['id']}"
    again = http.post("/v1/webhook_endpoints", json=WEBHOOK | {"description": "pager"}, headers=key).json()
    assert (again["id"], again["secret"]) == (found["id"], "")
    read = http.get(f"/v1/webhook_endpoints/{found['id']}").json()
    assert (read["channel"], read["event_types"], read["description"]) == (WEBHOOK["channel"], ["*"], "pager")
    assert "secret" not in read
    listed = http.get("/v1/webhook_endpoints").json()["data"]
    assert [item["id"] for item in listed] == [found["id"]]
    assert found["secret"] not in json.dumps(listed)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"channel": {"kind": "webhook", "url": "http://hooks.example.com/"}}, "/channel/url"),
        ({"channel": {"kind": "webhook", "url": "https://169.254.169.254/"}}, "/channel/url"),
        ({"channel": {"kind": "webhook", "url": "https://u:p@x.example/"}}, "/channel/webhook/url"),
        ({"channel": {"kind": "email", "to": "you@example.com"}}, "/channel"),
        ({"channel": {"kind": "email", "to": "nobody"}}, "/channel/email/to"),
        (WEBHOOK | {"event_types": ["job.exploded"]}, "/event_types/0"),
        (WEBHOOK | {"event_types": []}, "/event_types"),
        (WEBHOOK | {"secret": "mine"}, "/secret"),
        ({}, "/channel"),
    ],
)
def test_a_wrong_endpoint_is_refused_by_its_field(http, body, pointer):
    answer = http.post("/v1/webhook_endpoints", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] in (pointer, pointer.replace("/webhook", "").replace("/email", ""))


def test_an_endpoint_is_changed_and_removed(http, endpoint):
    path = f"/v1/webhook_endpoints/{endpoint['id']}"
    changed = http.patch(path, json={"is_enabled": False, "event_types": ["experiment.failed"]}).json()
    assert (changed["is_enabled"], changed["event_types"]) == (False, ["experiment.failed"])
    assert changed["channel"] == WEBHOOK["channel"]
    assert http.patch(path, json={"channel": {"kind": "webhook", "url": "http://10.0.0.1/"}}).status_code == 422
    assert http.post(f"{path}/test").status_code == 409
    assert http.delete(path).status_code == 204
    assert http.get(path).status_code == 404


def test_a_secret_is_rotated(http, endpoint):
    found = http.post(f"/v1/webhook_endpoints/{endpoint['id']}/rotate_secret").json()
    assert found["secret"].startswith("whsec_")
    assert found["secret"] != endpoint["secret"]
    assert found["previous_secret_until"] is not None


def test_a_test_is_sent_logged_and_sent_again(http, endpoint, database):
    sent = http.post(f"/v1/webhook_endpoints/{endpoint['id']}/test")
    assert sent.status_code == 202
    delivery = sent.json()
    assert (delivery["type"], delivery["status"], delivery["tries"]) == ("webhook_endpoint.test", "pending", [])
    with database.write() as session:
        due = claim_due(session)
    assert due.payload == delivery["payload"]
    assert due.message_id == delivery["webhook_id"]
    path = f"/v1/webhook_deliveries/{delivery['id']}"
    assert http.post(f"{path}/redeliver").json()["code"] == "in_flight"
    with database.write() as session:
        record(session, due, Answer(error="it answered 500", code=500, body="oh <b>no</b>", duration_milliseconds=1500))
    (attempt,) = http.get(path).json()["tries"]
    assert (attempt["response_code"], attempt["response_body"], attempt["duration_seconds"]) == (
        500,
        "oh <b>no</b>",
        1.5,
    )
    again = http.post(f"{path}/redeliver")
    assert (again.status_code, again.json()["status"]) == (202, "pending")
    with database.write() as session:
        due = claim_due(session)
        record(session, due, Answer(code=200))
    listed = http.get(f"/v1/webhook_endpoints/{endpoint['id']}/deliveries", params={"status": "delivered"}).json()
    assert [(item["id"], len(item["tries"]), item["next_try_at"]) for item in listed["data"]] == [
        (delivery["id"], 2, None)
    ]


def test_a_finished_job_is_told(http, endpoint, hand, job):
    submitted = http.post("/v1/jobs", json=job | {"seeds": [0]}).json()
    hand.finish(hand.claim())
    (delivery,) = http.get(f"/v1/webhook_endpoints/{endpoint['id']}/deliveries").json()["data"]
    assert (delivery["type"], delivery["object_id"]) == ("job.succeeded", submitted["id"])
    assert delivery["payload"]["data"]["name"] == "warm-up"


def test_events_are_listed(http):
    found = http.get("/v1/webhook_event_types").json()["data"]
    assert {"job.failed", "experiment.succeeded", "schedule.failed"} <= {item["id"] for item in found}


def test_endpoints_of_another_project_are_unknown(http, endpoint, make_key, database):
    delivery = http.post(f"/v1/webhook_endpoints/{endpoint['id']}/test").json()["id"]
    other = Project(id=new_id(), name="other")
    with database.write() as session:
        session.add(other)
    theirs = {"Authorization": f"Bearer {make_key(project_id=other.id)}"}
    assert http.get("/v1/webhook_endpoints", headers=theirs).json()["data"] == []
    for path in (f"webhook_endpoints/{endpoint['id']}/deliveries", f"webhook_deliveries/{delivery}"):
        assert http.get(f"/v1/{path}", headers=theirs).status_code == 404
    assert http.post(f"/v1/webhook_deliveries/{delivery}/redeliver", headers=theirs).status_code == 404
    assert http.delete(f"/v1/webhook_endpoints/{endpoint['id']}", headers=theirs).status_code == 404


def test_who_may_only_read_changes_nothing(http, endpoint, make_key):
    reading = {"Authorization": f"Bearer {make_key('read')}"}
    assert http.post("/v1/webhook_endpoints", json=WEBHOOK, headers=reading).status_code == 403
    assert http.post(f"/v1/webhook_endpoints/{endpoint['id']}/rotate_secret", headers=reading).status_code == 403
    assert http.get("/v1/webhook_endpoints", headers=reading).status_code == 200


def test_mail_can_be_asked_for_where_there_is_a_mail_server(http, app, sqlite_settings):
    more = {"smtp_url": "smtp://mail.example.com", "mail_from": "lco@example.com"}
    app.state.database.dispose()
    connect(app, sqlite_settings.model_copy(update=more))
    made = http.post("/v1/webhook_endpoints", json={"channel": {"kind": "email", "to": "you@example.com"}})
    assert (made.status_code, made.json()["secret"]) == (201, "")
    path = f"/v1/webhook_endpoints/{made.json()['id']}"
    assert http.post(f"{path}/rotate_secret").json()["code"] == "no_secret"
    assert http.patch(path, json=WEBHOOK).json()["code"] == "other_kind"
