"""Deliveries: claimed once, tried again, recorded; and mails."""

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
from datetime import timedelta

import pytest
from sqlalchemy import select, update
from standardwebhooks import Webhook

from store.database import Database, make_engine
from store.deliveries import RETRY_SECONDS, Answer, claim_due, record
from store.disk import Disk
from store.models.base import utc_now
from store.models.notification import Delivery, DeliveryTry, Notification, WebhookEndpoint
from store.models.project import DEFAULT_PROJECT_ID
from store.notifications import MAX_TRIES, matches, publish
from store.repositories.webhooks import Deliveries, WebhookEndpoints
from store.settings import Settings
from tests.worker.receiver import MailServer, Receiver
from worker.alerts import Alerts
from worker.housekeeping import tell_disk
from worker.mail import make_mail, send

JOB = "job_01h455vb4pex5vsknk084sn02q"


class Box:
    """The outbox of a database, and senders for it."""

    def __init__(self, settings, database):
        self.settings, self.database = settings, database

    def endpoint(self, url, types=("*",)):
        with self.database.write() as session:
            return WebhookEndpoints(session).create(
                project_id=DEFAULT_PROJECT_ID,
                channel=url if isinstance(url, dict) else {"kind": "webhook", "url": url},
                event_types=list(types),
                description="",
                is_enabled=True,
            )

    def publish(self, event_type="job.failed", **data):
        with self.database.write() as session:
            return publish(session, event_type, JOB, data, DEFAULT_PROJECT_ID)

    def send(self, *origins):
        """One round: sends everything that is due and waits for it."""
        settings = self.settings.model_copy(update={"webhook_origins": ",".join(origins)})
        alerts = Alerts(settings, self.database)
        alerts.tick()
        assert alerts.wait(10)

    def hurry(self):
        """Lets the time of all back-offs and leases pass."""
        with self.database.write() as session:
            session.execute(update(Delivery).values(available_at=utc_now() - timedelta(seconds=1)))

    def rows(self, table):
        with self.database.read() as session:
            return list(session.scalars(select(table)))

    def claim(self):
        with self.database.write() as session:
            return claim_due(session)

    def record(self, due, **answer):
        with self.database.write() as session:
            return record(session, due, Answer(**answer))


@pytest.fixture
def box(sqlite_settings, database):
    return Box(sqlite_settings, database)


@pytest.fixture
def any_box(any_settings, any_database):
    return Box(any_settings, any_database)


def test_what_is_published_is_delivered_signed_with_a_thin_payload(box):
    with Receiver() as receiver:
        endpoint = box.endpoint(f"{receiver.origin}/hook")
        notification = box.publish(name="warm-up", status="failed")
        box.send(receiver.origin)
    (got,) = receiver.posts
    payload = Webhook(endpoint.secret).verify(got.body, got.headers)
    assert payload["type"] == "job.failed"
    assert payload["data"] == {"id": JOB, "name": "warm-up", "status": "failed"}
    assert payload["timestamp"].endswith("Z")
    assert got.headers["webhook-id"].startswith("ntf_")
    (delivery,) = box.rows(Delivery)
    (attempt,) = box.rows(DeliveryTry)
    assert (delivery.status, delivery.notification_id, delivery.tries) == ("delivered", notification, 1)
    assert (attempt.response_code, attempt.error) == (204, "")
    assert attempt.duration_milliseconds is not None


def test_only_what_an_endpoint_wants_is_delivered_to_it(box):
    box.endpoint("https://a.example/", ["job.failed"])
    box.endpoint("https://b.example/", ["experiment.*"])
    disabled = box.endpoint("https://c.example/")
    with box.database.write() as session:
        WebhookEndpoints(session).change(disabled.id, {"is_enabled": False})
    box.publish("job.failed")
    box.publish("job.succeeded")
    assert [row.status for row in box.rows(Delivery)] == ["pending"]
    assert len(box.rows(Notification)) == 2


@pytest.mark.parametrize(
    ("patterns", "is_wanted"), [(["*"], True), (["job.*"], True), (["job.failed"], True), (["job"], False), ([], False)]
)
def test_patterns_name_one_event_a_family_or_all(patterns, is_wanted):
    assert matches(patterns, "job.failed") is is_wanted


def test_an_event_of_a_transaction_that_fails_is_never_told(box):
    box.endpoint("https://a.example/")
    with pytest.raises(RuntimeError), box.database.write() as session:
        publish(session, "job.failed", JOB, {}, DEFAULT_PROJECT_ID)
        raise RuntimeError
    assert box.rows(Notification) == box.rows(Delivery) == []


def test_a_failure_is_tried_again_eight_times_in_a_day_with_one_id(box):
    waits = []
    with Receiver(lambda *_: (500, {}, b"out of <order>\x00")) as receiver:
        box.endpoint(receiver.origin)
        box.publish()
        for _ in range(MAX_TRIES):
            before = utc_now()
            box.send(receiver.origin)
            box.send(receiver.origin)  # it is not due yet
            (delivery,) = box.rows(Delivery)
            if delivery.status == "pending":
                waits.append((delivery.available_at - before).total_seconds())
            box.hurry()
    assert delivery.status == "failed"
    assert len(receiver.posts) == MAX_TRIES
    assert len({post.headers["webhook-id"] for post in receiver.posts}) == 1
    for wait, planned in zip(waits, RETRY_SECONDS, strict=True):
        assert 0.8 * planned <= wait <= 1.2 * planned + 5
    assert 20 * 3600 < sum(RETRY_SECONDS) < 28 * 3600
    tries = box.rows(DeliveryTry)
    assert [(attempt.n, attempt.response_code) for attempt in tries] == [(n, 500) for n in range(1, MAX_TRIES + 1)]
    assert tries[0].response_body == "out of <order>\ufffd"


def test_a_longer_retry_after_is_waited_for(box):
    with Receiver(lambda *_: (503, {"retry-after": "4000"}, b"")) as receiver:
        box.endpoint(receiver.origin)
        box.publish()
        box.send(receiver.origin)
    (delivery,) = box.rows(Delivery)
    assert 3900 < (delivery.available_at - utc_now()).total_seconds() <= 4000


def test_gone_disables_the_endpoint_and_others_are_told(box):
    with Receiver(lambda post, _: (410 if post.path == "/gone" else 204, {}, b"")) as receiver:
        endpoint = box.endpoint(f"{receiver.origin}/gone", ["job.*"])
        box.endpoint(f"{receiver.origin}/other", ["webhook_endpoint.*"])
        box.publish()
        box.publish()
        box.send(receiver.origin)
        box.send(receiver.origin)
    told = [json.loads(post.body) for post in receiver.posts if post.path == "/other"]
    assert [(event["type"], event["data"]["id"][:4]) for event in told] == [("webhook_endpoint.disabled", "whk_")]
    gone = next(row for row in box.rows(WebhookEndpoint) if row.id == endpoint.id)
    assert (gone.is_enabled, "410" in gone.disabled_reason) == (False, True)


def test_days_of_failures_disable_an_endpoint_and_a_success_forgives_them(box):
    endpoint = box.endpoint("https://a.example/")
    box.publish()
    box.record(box.claim(), error="it answered 500", code=500)
    box.hurry()
    box.record(box.claim(), code=200)
    assert box.rows(WebhookEndpoint)[0].failing_since is None
    box.publish()
    box.record(box.claim(), error="it answered 500", code=500)
    with box.database.write() as session:
        long_ago = utc_now() - timedelta(days=6)
        session.execute(update(WebhookEndpoint).values(failing_since=long_ago))
    box.hurry()
    box.record(box.claim(), error="it answered 500", code=500)
    (row,) = box.rows(WebhookEndpoint)
    assert (row.is_enabled, row.disabled_reason) == (False, "every try has failed for 5 days")
    assert [n.type for n in box.rows(Notification)][-1] == "webhook_endpoint.disabled"
    box.hurry()
    assert box.claim() is None
    with box.database.write() as session:
        WebhookEndpoints(session).change(endpoint.id, {"is_enabled": True})
    assert box.claim() is not None, "what was pending goes on"


def test_several_senders_deliver_each_notification_once(any_box):
    with Receiver() as receiver:
        any_box.endpoint(receiver.origin)
        for _ in range(24):
            any_box.publish()
        settings = any_box.settings.model_copy(update={"webhook_origins": receiver.origin})
        senders = [Alerts(settings, Database(make_engine(settings))) for _ in range(3)]

        def work(alerts):
            while any(row.status == "pending" and not row.tries for row in any_box.rows(Delivery)):
                alerts.tick()
                assert alerts.wait(10)

        threads = [threading.Thread(target=work, args=(alerts,)) for alerts in senders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for alerts in senders:
            alerts._database.dispose()
    assert len(receiver.posts) == 24
    assert len({post.headers["webhook-id"] for post in receiver.posts}) == 24
    assert {row.status for row in any_box.rows(Delivery)} == {"delivered"}


def test_a_slow_receiver_holds_up_nobody_else(box):
    go_on = threading.Event()

    def answer(post, number):
        if post.path == "/slow":
            go_on.wait(10)
        return 204, {}, b""

    with Receiver(answer) as receiver:
        box.endpoint(f"{receiver.origin}/slow")
        for _ in range(5):
            box.publish()
        box.endpoint(f"{receiver.origin}/quick")
        box.publish()
        settings = box.settings.model_copy(update={"webhook_origins": receiver.origin})
        alerts = Alerts(settings, box.database)
        alerts.tick()
        while "/quick" not in [post.path for post in receiver.posts]:
            assert not alerts.wait(0.01)
        assert [post.path for post in receiver.posts].count("/slow") <= 2
        go_on.set()
        while any(row.status == "pending" for row in box.rows(Delivery)):
            alerts.tick()
            assert alerts.wait(10)
    assert len(receiver.posts) == 7


def test_a_sender_that_is_killed_after_the_delivery_delivers_again_with_the_same_id(box):
    def answer(post, number):
        if number == 1:
            os.kill(process.pid, signal.SIGKILL)  # delivered, and never recorded
        return 204, {}, b""

    program = """
from store.database import Database, make_engine
from store.settings import Settings
from worker.alerts import Alerts
from worker.housekeeping import tell_disk
settings = Settings.from_environment()
alerts = Alerts(settings, Database(make_engine(settings)))
alerts.tick()
alerts.wait(20)
"""
    with Receiver(answer) as receiver:
        box.endpoint(receiver.origin)
        box.publish()
        environment = {"LCO_DATA_DIR": str(box.settings.data_dir), "LCO_WEBHOOK_ORIGINS": receiver.origin}
        process = subprocess.Popen([sys.executable, "-c", program], env=os.environ | environment)
        assert process.wait(30) == -signal.SIGKILL
        assert [(row.status, row.tries) for row in box.rows(Delivery)] == [("pending", 1)]
        box.send(receiver.origin)
        assert len(receiver.posts) == 1, "the claim is still held"
        box.hurry()
        box.send(receiver.origin)
    assert len(receiver.posts) == 2
    assert len({post.headers["webhook-id"] for post in receiver.posts}) == 1
    assert [(row.status, row.tries) for row in box.rows(Delivery)] == [("delivered", 2)]
    assert [row.ended_at is None for row in box.rows(DeliveryTry)] == [True, False]


def test_a_lost_claim_records_nothing(box):
    box.endpoint("https://a.example/")
    box.publish()
    first = box.claim()
    box.hurry()
    second = box.claim()
    assert not box.record(first, error="it answered 500", code=500)
    assert box.record(second, code=200)
    assert not box.record(first, error="it answered 500", code=500)
    (delivery,) = box.rows(Delivery)
    assert (delivery.status, delivery.tries, delivery.tries_left) == ("delivered", 2, MAX_TRIES)


def test_during_a_rotation_both_secrets_sign(box):
    with Receiver() as receiver:
        old = box.endpoint(receiver.origin).secret
        with box.database.write() as session:
            new = WebhookEndpoints(session).rotate(box.rows(WebhookEndpoint)[0].id).secret
        box.publish()
        box.send(receiver.origin)
        for secret in (old, new):
            Webhook(secret).verify(receiver.posts[0].body, receiver.posts[0].headers)
        with box.database.write() as session:
            session.execute(update(WebhookEndpoint).values(previous_secret_until=utc_now()))
        box.publish()
        box.send(receiver.origin)
    Webhook(new).verify(receiver.posts[1].body, receiver.posts[1].headers)
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(old).verify(receiver.posts[1].body, receiver.posts[1].headers)


def test_a_redelivery_has_the_same_id_and_all_tries_anew(box):
    with Receiver(lambda post, number: (410 if number == 1 else 200, {}, b"fine")) as receiver:
        endpoint = box.endpoint(receiver.origin)
        box.publish()
        box.send(receiver.origin)
        with box.database.write() as session:
            WebhookEndpoints(session).change(endpoint.id, {"is_enabled": True})
            Deliveries(session).redeliver(box.rows(Delivery)[0].id)
        box.send(receiver.origin)
    assert len({post.headers["webhook-id"] for post in receiver.posts}) == 1
    assert [(row.status, row.tries, row.tries_left) for row in box.rows(Delivery)] == [("delivered", 2, MAX_TRIES)]


def test_a_secret_is_in_no_text_about_what_is_due(box):
    secret = box.endpoint("https://a.example/").secret
    box.publish()
    assert secret not in repr(box.claim())


# Mail.


def mailing(settings, port, scheme="smtp", user="", query="?starttls=never"):
    url = f"{scheme}://{user}127.0.0.1:{port}{query}"
    more = {"smtp_url": url, "smtp_password": "pa ss" if user else "", "mail_from": "LCO <lco@example.com>"}
    return Settings.model_validate(settings.model_dump() | more)


def test_an_alert_comes_as_a_mail(box):
    with MailServer() as server:
        box.settings = mailing(box.settings, server.port).model_copy(update={"url": "https://lco.example"})
        box.endpoint({"kind": "email", "to": "you@example.com"})
        box.publish(name="warm-up\r\nBcc: x@example.com", status="failed")
        box.send()
    ((sender, recipient, text),) = server.box.mails
    assert "<lco@example.com>" in sender
    assert "<you@example.com>" in recipient
    head, _, content = text.partition("\r\n\r\n")
    assert "Subject: [lco] job failed: warm-up Bcc: x@example.com" in head
    assert "\r\nBcc:" not in head
    assert "Message-ID: <ntf_" in head
    assert "status: failed" in content
    assert f"https://lco.example/jobs/{JOB}" in content
    assert [row.status for row in box.rows(Delivery)] == ["delivered"]


def test_a_mail_server_that_refuses_is_tried_again_and_its_words_are_kept(box):
    with MailServer() as server:
        server.box.replies["RCPT"] = "550 nobody of this name"
        box.settings = mailing(box.settings, server.port)
        box.endpoint({"kind": "email", "to": "you@example.com"})
        box.publish()
        box.send()
    (attempt,) = box.rows(DeliveryTry)
    assert attempt.response_code == 550
    assert attempt.error == "the recipient is refused: nobody of this name"
    assert [row.status for row in box.rows(Delivery)] == ["pending"]


@pytest.mark.parametrize("form", ["starttls", "implicit"])
def test_a_password_goes_only_over_tls_to_a_trusted_server(settings, certificate, form):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)
    with MailServer(tls, is_implicit=form == "implicit") as server:
        scheme = "smtps" if form == "implicit" else "smtp"
        mailer = mailing(settings, server.port, scheme, "me%40x@", "")
        mail = make_mail(mailer, "you@example.com", "ntf_1", {"type": "a.b", "timestamp": "now", "data": {"id": "x"}})
        assert "certificate is not trusted" in send(mailer, mail).error
        assert not [command for command in server.box.commands if command.startswith("AUTH")]
        answer = send(mailer, mail, ssl.create_default_context(cafile=certificate[0]))
    assert answer.error == ""
    assert len(server.box.mails) == 1
    (told,) = [command for command in server.box.commands if command.startswith("AUTH")]
    assert told == "AUTH PLAIN AG1lQHgAcGEgc3M="


def test_a_server_without_starttls_gets_nothing(settings):
    with MailServer() as server:
        mailer = mailing(settings, server.port, query="")
        mail = make_mail(mailer, "you@example.com", "ntf_1", {"type": "a.b", "timestamp": "now", "data": {"id": "x"}})
        assert "STARTTLS" in send(mailer, mail).error
    assert server.box.mails == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"smtp_url": "http://x"}, "must be smtp"),
        ({"smtp_url": "smtp://u:p@x"}, "must not hold a password"),
        ({"smtp_url": "smtp://u@x"}, "LCO_SMTP_PASSWORD"),
        ({"smtp_url": "smtp://x"}, "LCO_MAIL_FROM"),
        ({"smtp_url": "smtp://u@x?starttls=never", "smtp_password": "p"}, "in the clear"),
        ({"webhook_origins": "http://x/path?y"}, "LCO_WEBHOOK_ORIGINS: entry 1"),
    ],
)
def test_wrong_settings_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Settings.model_validate(fields)


def test_a_disk_that_becomes_low_is_told_once_each_time(box):
    box.endpoint("https://a.example/", ["disk.low"])
    for is_low in (False, True, True, False, True):
        with box.database.write() as session:
            tell_disk(session, Disk(total_bytes=100, free_bytes=9, used_percent=91.0, is_low=is_low, is_full=False))
    told = box.rows(Notification)
    assert [(row.type, row.data["used_percent"]) for row in told] == [("disk.low", 91.0)] * 2
    assert len(box.rows(Delivery)) == 2
