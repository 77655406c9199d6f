"""`/metrics`, read as Prometheus reads it."""

from collections.abc import Callable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from api.auth import create_key
from store import queue
from store.database import Database
from store.ids import new_id
from store.models.project import Project
from store.repositories.signals import Signals
from tests.api.conftest import Hand
from worker.reconciler import Reconciler

Numbers = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(http: TestClient, **headers: str) -> Numbers:
    """Every sample by name and labels."""
    response = http.get("/metrics", headers=headers)
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(response.text))
    assert all(family.documentation and family.type != "unknown" for family in families)
    names = [family.name for family in families]
    assert len(set(names)) == len(names)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_numbers_follow_a_run_from_queue_to_end(http: TestClient, job: dict[str, Any], hand: Hand) -> None:
    http.post("/v1/jobs", json=job)
    before = scrape(http)
    assert before["lco_runs", (("queue", "lco.cpu"), ("state", "queued"))] == 2
    assert before["lco_queue_oldest_seconds", (("queue", "lco.cpu"),)] >= 0
    assert before["lco_dispatch_seconds_count", ()] == 0
    assert before["lco_slots", (("state", "offered"),)] == 2
    claim = hand.claim()
    with hand.database.write() as session:
        queue.report_progress(session, claim, 3, 10)
        queue.append_metrics(session, claim, [(3, {"train/num_tokens": 600.0, "time/step_seconds": 1.5})])
    during = scrape(http)
    assert during["lco_slots", (("state", "busy"),)] == 1
    assert during["lco_dispatch_seconds_bucket", (("le", "+Inf"),)] == during["lco_dispatch_seconds_count", ()] == 1
    buckets = [value for (name, _), value in during.items() if name == "lco_dispatch_seconds_bucket"]
    assert buckets == sorted(buckets)
    (speed,) = [value for (name, _), value in during.items() if name == "lco_run_tokens_per_second"]
    (step,) = [value for (name, _), value in during.items() if name == "lco_run_step"]
    assert (speed, step) == (400.0, 3.0)
    hand.finish(claim)
    after = scrape(http)
    assert after["lco_attempts_total", (("outcome", "succeeded"),)] == 1
    assert not [name for name, _ in after if name == "lco_run_step"]
    labels = (("method", "POST"), ("route", "/v1/jobs"), ("status", "201"))
    assert after["http_request_duration_seconds_count", labels] >= 1  # of this process, whatever test asked


def test_gpus_disk_repairs_and_fenced_writes_are_told(
    http: TestClient, database: Database, sqlite_settings: Any, hand: Hand
) -> None:
    assert ("lco_reconciler_last_success_timestamp", ()) not in scrape(http)
    Reconciler(sqlite_settings, database).tick()
    with database.write() as session:
        Signals(session).count_fenced()
        Signals(session).count_fenced()
    numbers = scrape(http)
    assert numbers["lco_reconciler_last_success_timestamp", ()] > 1.7e9
    assert numbers["lco_fenced_writes_total", ()] == 2
    assert numbers["lco_gpus", (("state", "offered"),)] == 0
    assert numbers["lco_workers", (("state", "serving"),)] == 1
    assert numbers["lco_disk_free_bytes", (("place", "data"),)] > 0
    assert numbers["lco_sse_clients", ()] == numbers["lco_outbox_pending", ()] == 0
    assert 0 < numbers["lco_disk_used_ratio", ()] <= 1


def test_a_key_of_another_project_counts_its_own_runs_alone(
    http: TestClient, job: dict[str, Any], database: Database, hand: Hand, make_key: Callable[..., str]
) -> None:
    http.post("/v1/jobs", json=job)
    hand.finish(hand.claim())
    project_id = new_id()
    with database.write() as session:
        session.add(Project(id=project_id, name="other"))
    with database.confined(project_id).write() as session:
        key = create_key(session, "other", "read")[1]
    numbers = scrape(http, Authorization=f"Bearer {key}")
    assert not [name for name, _ in numbers if name in ("lco_runs", "lco_attempts_total")]
    assert numbers["lco_dispatch_seconds_count", ()] == 0
