"""Schedules and endpoints for pages to show, in every state, their texts hostile."""

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.deliveries import Answer, claim_due, record
from store.ids import encode_id
from store.models.base import utc_now
from store.models.notification import Delivery
from store.models.project import DEFAULT_PROJECT_ID
from store.models.schedule import ScheduleFire
from store.notifications import publish
from store.repositories.schedules import Schedules
from store.repositories.webhooks import WebhookEndpoints
from store.schedule_specs import ScheduleSpec

NIGHTLY = {"kind": "cron", "expression": "30 2 * * 1-5", "time_zone": "Europe/Berlin"}


def fill_alerts(session: Session, job: str, hostile: str) -> dict[str, list[str]]:
    """Writes them; the name of a parameter in a page's path -> what to fill in."""
    schedules, now = Schedules(session), utc_now()
    action = {"kind": "experiment", "document": {"name": "nightly-sums", "note": hostile, "jobs": []}}
    cron = schedules.create(ScheduleSpec.model_validate({"name": "nightly", "trigger": NIGHTLY, "action": action}))
    suspended = {"name": "weekly", "trigger": NIGHTLY | {"expression": "0 6 * * MON"}, "action": action}
    schedules.create(ScheduleSpec.model_validate(suspended | {"is_suspended": True}))
    watch = {"kind": "hub", "repository": "acme/small-model"}
    evaluation = {
        "kind": "job",
        "spec": {"kind": "evaluation", "name": "judge-it", "config": {"policy": "{found.model}"}},
    }
    watcher = schedules.create(
        ScheduleSpec.model_validate({"name": "upstream", "trigger": watch, "action": evaluation})
    )
    watcher.last_error, watcher.last_looked_at = f"the hub answered 503 {hostile}", now
    for number, outcome in enumerate(("failed", "skipped", "submitted", "submitted")):
        due = now - timedelta(days=4 - number)
        session.add(
            ScheduleFire(
                schedule_id=cron.id,
                key=due.isoformat(),
                cause="due" if number else "manual",
                due_at=due,
                fired_at=due,
                outcome=outcome,
                objects=[job] if outcome == "submitted" else [],
                message="" if outcome == "submitted" else hostile,
            )
        )
    session.add(
        ScheduleFire(
            schedule_id=watcher.id,
            key=hostile,
            cause="found",
            due_at=now,
            fired_at=now,
            outcome="known",
            objects=[],
            message=hostile,
        )
    )
    endpoints = WebhookEndpoints(session)

    def endpoint(channel: dict[str, str], types: list[str], **changes: object) -> str:
        row = endpoints.create(
            project_id=DEFAULT_PROJECT_ID, channel=channel, event_types=types, description=hostile, is_enabled=True
        )
        endpoints.change(row.id, changes)
        return encode_id("whk", row.id)

    first = endpoint({"kind": "webhook", "url": "https://hooks.example.com/services/T0/B0/x?key=1"}, ["*"])
    mail = endpoint({"kind": "email", "to": "you@example.com"}, ["job.failed", "experiment.*", "verdict.regressed"])
    gone = endpoint(
        {"kind": "webhook", "url": "https://gone.example.com/"},
        ["job.*"],
        is_enabled=False,
        disabled_reason="it answered 410: it wants nothing more",
    )
    session.flush()
    for event in ("job.failed", "job.succeeded", "experiment.failed"):
        publish(session, event, job, {"name": hostile}, DEFAULT_PROJECT_ID)
    for answer in (
        Answer(code=204, duration_milliseconds=120),
        Answer(code=500, error="it answered 500", body=hostile, duration_milliseconds=2312),
        Answer(code=404, error="it answered 404", body=hostile, is_gone=False, duration_milliseconds=40),
    ):
        due = claim_due(session)
        assert due is not None
        record(session, due, answer)
    session.flush()
    assert session.scalars(select(Delivery)).first() is not None
    return {"sch_id": [encode_id("sch", cron.id), encode_id("sch", watcher.id)], "whk_id": [first, mail, gone]}
