import json
import socket
import time
from datetime import timedelta

import redis
from sqlalchemy import update

from store.control import pause
from store.database import database_time
from store.doorbell import RING_AGAIN_SECONDS, WAKE, due_for_ring, mark_rung, ring
from store.ids import new_id
from store.models.run import Run
from store.settings import Settings
from store.states import Outcome


def due(rig):
    with rig.database.write() as session:
        rings = due_for_ring(session)
        mark_rung(session, [each.run_id for each in rings])
    return [each.queue for each in rings]


def test_each_queued_run_is_rung_for_once(rig):
    rig.submit("sft", seeds=[0, 1])
    rig.submit("sft", name="gpu", priority=1, resources={"gpus": 1})
    assert due(rig) == ["lco.gpu", "lco.cpu", "lco.cpu"]
    assert due(rig) == []


def test_a_run_that_nobody_took_is_rung_for_again(rig):
    rig.submit()
    assert due(rig) == ["lco.cpu"]
    with rig.database.write() as session:
        session.execute(update(Run).values(hint_at=database_time(session) - timedelta(seconds=RING_AGAIN_SECONDS + 1)))
    assert due(rig) == ["lco.cpu"]


def test_runs_that_cannot_be_claimed_are_not_rung_for(sqlite_rig):
    rig = sqlite_rig
    rig.submit_experiment(rig.spec("sft"), rig.spec("evaluation"))
    (paused,) = rig.runs(rig.submit("sft", name="paused").id)
    with rig.database.write() as session:
        pause(session, paused.id)
    rig.finish(rig.started(), Outcome.INFRA, "signal 9")
    assert due(rig) == []


def test_a_run_that_is_queued_again_is_rung_for_at_once(sqlite_rig):
    sqlite_rig.submit()
    due(sqlite_rig)
    sqlite_rig.finish(sqlite_rig.started(), Outcome.STOPPED)
    assert due(sqlite_rig) == ["lco.cpu"]


def test_without_a_broker_nothing_is_rung():
    assert ring(Settings(), "lco.cpu") is False


def test_a_broker_that_is_down_costs_a_moment_and_no_error():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    begin = time.monotonic()
    assert ring(Settings(broker_url=f"redis://127.0.0.1:{port}/0"), "lco.cpu") is False
    assert time.monotonic() - begin < 5


def test_the_bell_says_which_queue_and_nothing_else(redis_url):
    queue = f"test-{new_id()}"
    assert ring(Settings(broker_url=redis_url), queue) is True
    with redis.Redis.from_url(redis_url) as client:
        (message,) = client.lrange(queue, 0, -1)
        client.delete(queue)
    assert WAKE.encode() in message
    headers = json.loads(message)["headers"]
    assert (headers["task"], headers["argsrepr"]) == (WAKE, repr([queue]))
