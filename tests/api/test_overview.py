"""The overview: what runs and for how long still, what failed and why, what waits, what is free."""

from datetime import timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from api import cli
from api.client import Client
from store.database import Database
from store.models.run import Attempt, Run
from store.states import Outcome
from tests.api.conftest import BASE_URL, Hand


def overview(http: TestClient) -> dict[str, Any]:
    answer = http.get("/v1/overview")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_platform_that_has_done_nothing_says_so(http: TestClient) -> None:
    found = overview(http)
    assert (found["running"], found["failed"], found["finished"], found["states"]) == ([], [], [], {})
    assert found["slots"] == found["gpus"] == {"total": 0, "used": 0}
    assert found["queue"] == {"num_queued": 0, "num_blocked": 0, "num_held": 0, "oldest_seconds": None}


def test_what_runs_what_waits_and_what_is_free(http: TestClient, hand: Hand, experiment: dict[str, Any]) -> None:
    http.post("/v1/experiments", json=experiment)
    claim = hand.claim()
    found = overview(http)
    assert [(run["job_name"], run["seed"], run["experiment"]) for run in found["running"]] == [("warm-up", 0, "demo")]
    assert found["running"][0]["eta_seconds"] is None
    assert found["slots"] == {"total": 2, "used": 1}
    assert (found["queue"]["num_queued"], found["queue"]["num_blocked"]) == (1, 2)
    assert found["queue"]["oldest_seconds"] >= 0
    hand.finish(claim)
    ended = overview(http)
    assert [(run["job_name"], run["seed"]) for run in ended["finished"]] == [("warm-up", 0)]
    assert (ended["num_finished"], ended["num_failed"], ended["running"]) == (1, 0, [])


def test_the_remaining_time_follows_the_pace_of_this_attempt(
    http: TestClient, hand: Hand, job: dict[str, Any], database: Database
) -> None:
    http.post("/v1/jobs", json=job)
    claim = hand.claim()
    with database.write() as session:
        attempt = session.get(Attempt, (claim.run_id, 1))
        run = session.get(Run, claim.run_id)
        assert attempt is not None and run is not None
        attempt.resumed_from_step = 10
        run.progress_step, run.progress_total = 30, 110
        run.progress_at = attempt.started_at + timedelta(seconds=40)
    assert overview(http)["running"][0]["eta_seconds"] == pytest.approx(160)  # 20 steps took 40 s, 80 are left


def test_failures_of_the_last_day_are_told_with_their_reason(
    http: TestClient, hand: Hand, job: dict[str, Any], database: Database
) -> None:
    http.post("/v1/jobs", json=job)
    for _ in range(2):
        hand.finish(hand.claim(), Outcome.USER, message="the loss is not finite")
    found = overview(http)
    assert (found["num_failed"], len(found["failed"])) == (2, 2)
    assert found["failed"][0]["error"]["message"] == "the loss is not finite"
    with database.write() as session:
        for run in session.query(Run):
            assert run.finished_at is not None
            run.finished_at -= timedelta(hours=25)
    assert overview(http)["num_failed"] == 0


def test_client_and_command_line_show_the_same(
    anonymous: TestClient, http: TestClient, hand: Hand, job: dict[str, Any], live: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    http.post("/v1/jobs", json=job)
    hand.finish(hand.claim(), Outcome.USER, message="the loss is not finite")
    hand.claim()
    key = http.headers["Authorization"].removeprefix("Bearer ")
    assert Client(BASE_URL, key, http=anonymous).overview().num_failed == 1
    monkeypatch.setenv("LCO_URL", live)
    monkeypatch.setenv("LCO_API_KEY", key)
    assert cli.main(["status"]) == 0
    text = capsys.readouterr().out
    assert "slots    1 of 2 in use" in text
    assert "the loss is not finite" in text
    assert "warm-up seed 1" in text
