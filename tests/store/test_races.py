"""Several threads at one database: what must hold whoever is first."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from store.control import cancel_job
from store.errors import Conflict, NotYours
from store.ids import new_id
from store.queue import finish, guard
from store.repositories.keys import Keys
from store.repositories.records import Events
from store.repositories.runs import Runs
from store.states import TERMINAL, Outcome

THREADS = 4


def together(calls):
    """Calls that start at the same moment; what they gave, in order."""
    barrier = threading.Barrier(len(calls))

    def wait_and(call):
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(wait_and, call) for call in calls]]


def test_every_run_is_claimed_by_exactly_one_of_several_workers(rig):
    job = rig.submit("sft", seeds=list(range(24)))

    def drain():
        worker_id, claims = new_id(), []
        while (taken := rig.claim(worker_id=worker_id)) is not None:
            claims.append(taken)
        return claims

    claims = [taken for claims in together([drain] * THREADS) for taken in claims]
    assert Counter(taken.run_id for taken in claims) == {run.id: 1 for run in rig.runs(job.id)}
    assert {taken.attempt for taken in claims} == {1}
    for taken in claims:
        assert rig.run(taken.run_id).worker_id == taken.worker_id


def test_runs_of_one_job_that_end_together_leave_its_status_and_events_right(rig):
    job = rig.submit("sft", seeds=list(range(THREADS)))
    claims = [rig.started() for _ in range(THREADS)]
    together([lambda taken=taken: rig.finish(taken) for taken in claims])
    assert rig.job(job.id).status == "succeeded"
    with rig.database.read() as session:
        events = Events(session).page(job.id).rows
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.data["status"] for event in events if event.type == "job.state"] == ["running", "succeeded"]


def test_dependencies_that_end_together_unblock_their_dependent_once(rig):
    names = [f"job-{number}" for number in range(THREADS)]
    experiment = rig.submit_experiment(
        rig.spec("sft", name="last", after=names), *(rig.spec("sft", name=name) for name in names)
    )
    claims = [rig.started() for _ in names]
    together([lambda taken=taken: rig.finish(taken) for taken in claims])
    (last,) = rig.runs(rig.jobs_of(experiment)["last"].id)
    assert (last.state, last.blocked_on) == ("queued", 0)


def test_of_a_cancel_and_a_finish_at_the_same_moment_one_wins_whole(rig):
    for _ in range(3):
        job = rig.submit("sft", seeds=[0])
        taken = rig.started()

        def ask(job=job):
            with rig.database.write() as session:
                try:
                    return cancel_job(session, job.id).status
                except Conflict as refused:
                    return refused.current

        asked, decision = together([ask, lambda taken=taken: rig.finish(taken)])
        assert rig.run(taken.run_id).state == decision.state
        assert (asked, str(decision.state)) in {("running", "cancelled"), ("succeeded", "succeeded")}


def test_an_attempt_that_two_finish_is_finished_once(rig):
    rig.submit()
    taken = rig.started()

    def end():
        try:
            with rig.database.write() as session:
                finish(session, taken, Outcome.SUCCEEDED)
        except NotYours:
            return False
        return True

    assert sorted(together([end] * THREADS)) == [False] * (THREADS - 1) + [True]
    with rig.database.read() as session:
        assert len(Runs(session).attempts(taken.run_id)) == 1


def test_heartbeats_go_on_while_others_claim(rig):
    rig.submit("sft", seeds=list(range(12)))
    taken = rig.started()
    before = rig.run(taken.run_id).hb_seq

    def beat():
        for _ in range(10):
            with rig.database.write() as session:
                guard(session, taken)

    def drain():
        while (claimed := rig.claim(worker_id=new_id())) is not None:
            rig.finish(claimed)

    together([beat, drain, drain])
    assert rig.run(taken.run_id).hb_seq == before + 10
    with rig.database.read() as session:
        states = {run.state for run in Runs(session).page(50, job_id=taken.job_id).rows if run.id != taken.run_id}
    assert states <= TERMINAL


def test_of_several_requests_with_one_idempotency_key_one_is_carried_out(rig):
    with rig.database.write() as session:
        key = Keys(session).create(name="k", secret_sha256="0" * 64, scope="write")

    def request():
        with rig.database.write() as session:
            keys = Keys(session)
            kept = keys.reserve(api_key_id=key.id, key="k", request_sha256="a" * 64)
            if kept is not None:
                return kept.status_code, kept.body["answer"]
            answer = str(new_id())
            keys.keep_reply(api_key_id=key.id, key="k", status_code=201, body={"answer": answer})
            return 201, answer

    assert len(set(together([request] * THREADS))) == 1
