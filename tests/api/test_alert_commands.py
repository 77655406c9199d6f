"""`lco schedules` and `lco webhooks` against a live server."""

import json
import threading

from store.deliveries import Answer, claim_due, record


def test_a_schedule_from_a_job_file_to_its_fires(lco, tmp_path, job):
    path = tmp_path / "job.json"
    path.write_text(json.dumps(job))
    code, out, told = lco("schedules", "create", str(path), "--cron", "30 2 * * *", "--time-zone", "Europe/Berlin")
    schedule = out.strip()
    assert (code, "30 2 * * * Europe/Berlin; next at" in told) == (0, True)
    assert "sft job warm-up" in lco("schedules", "list")[1]
    code, out, _ = lco("schedules", "trigger", schedule)
    assert (code, out.startswith("submitted job_")) == (0, True)
    assert "manual" in lco("schedules", "fires", schedule)[1]
    assert lco("schedules", "suspend", schedule)[1] == f"{schedule} is suspended\n"
    assert "suspended" in lco("schedules", "list")[1]
    assert "goes on, next at" in lco("schedules", "resume", schedule)[1]
    assert json.loads(lco("show", schedule)[1])["name"] == "warm-up"
    assert lco("schedules", "remove", schedule)[0] == 0
    assert lco("schedules", "list")[1] == "(none)\n"


def test_a_schedule_needs_a_time(lco, tmp_path, job):
    path = tmp_path / "job.json"
    path.write_text(json.dumps(job))
    assert "give --cron" in lco("schedules", "create", str(path))[2]
    assert "five fields" in lco("schedules", "create", str(path), "--cron", "soon")[2]


def test_a_webhook_from_its_secret_to_its_log(lco, database):
    code, out, told = lco("webhooks", "create", "https://hooks.example.com/x", "--events", "job.failed,verdict.*")
    assert (code, out.startswith("whsec_"), "job.failed, verdict.*" in told) == (0, True, True)
    endpoint = told.split()[0]
    assert "https://hooks.example.com/x" in lco("webhooks", "list")[1]

    def deliver():
        while True:
            with database.write() as session:
                if (due := claim_due(session)) is not None:
                    record(session, due, Answer(error="it answered 500", code=500))
                    return

    thread = threading.Thread(target=deliver)
    thread.start()
    code, out, _ = lco("webhooks", "test", endpoint)
    thread.join()
    assert (code, out) == (1, "failed: it answered 500\n")
    (delivery,) = json.loads(lco("webhooks", "deliveries", endpoint, "--json")[1])
    assert "webhook_endpoint.test" in lco("webhooks", "deliveries", endpoint)[1]
    assert lco("webhooks", "redeliver", delivery["id"])[0] == 0
    assert lco("webhooks", "rotate", endpoint)[1].startswith("whsec_")
    assert lco("webhooks", "disable", endpoint)[0] == 0
    assert "disabled" in lco("webhooks", "list")[1]
    assert lco("webhooks", "enable", endpoint)[0] == 0
    assert lco("webhooks", "remove", endpoint)[0] == 0


def test_mail_that_the_platform_cannot_send_is_refused(lco):
    code, _, told = lco("webhooks", "create", "you@example.com")
    assert (code, "LCO_SMTP_URL" in told) == (1, True)
