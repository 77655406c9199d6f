"""The dispatch protocol under random sequences of everything that can happen, on SQLite."""

import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import event, select, text

from store import control
from store.claims import Claim
from store.database import Database, make_engine
from store.errors import Conflict, NotYours
from store.models.job import Job
from store.models.record import Event
from store.models.run import Attempt, Run, RunDependency
from store.queue import add_event, guard, start
from store.reaper import SilenceWatch, promote_waiting, reap
from store.settings import Settings
from store.states import LIVE, TERMINAL, TRANSITIONS, Desired, Outcome, RunState, job_status
from tests.store.conftest import Rig

LEASE = 20.0
OUTCOMES = [*[Outcome.STOPPED] * 4, *[Outcome.SUCCEEDED] * 3, Outcome.INFRA, Outcome.INFRA, Outcome.OOM, Outcome.USER]
RUNS = select(Run.id, Run.job_id, Run.state, Run.desired, Run.attempt, Run.blocked_on).order_by(Run.id)


class Protocol(RuleBasedStateMachine):
    """Submits, claims, beats, finishes, asks and reaps in any order."""

    template: Path
    claims: Bundle = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        where = Settings(data_dir=self.directory)
        shutil.copyfile(self.template, self.directory / "lco.sqlite3")
        self.engine = make_engine(where)
        event.listen(self.engine, "connect", _hurry)
        self.rig = Rig(Database(self.engine), where)
        self.now = 0.0
        self.watch = SilenceWatch(LEASE, lambda: self.now)
        self.states: dict[object, str] = {}
        self.attempts: dict[object, int] = {}
        self.cancelled: set[object] = set()
        self.claimed: list[Claim] = []

    def teardown(self) -> None:
        self.engine.dispose()
        shutil.rmtree(self.directory)

    @initialize(num_seeds=st.integers(1, 2))
    def submit(self, num_seeds):
        seeds = list(range(num_seeds))
        self.rig.submit_experiment(
            self.rig.spec("sft", seeds=seeds),
            self.rig.spec("pairs", seeds=seeds),
            self.rig.spec("dpo", seeds=seeds),
        )

    @rule(target=claims)
    def claim(self):
        taken = self.rig.claim()
        if taken is None:
            return multiple()
        for stale in self.claimed:
            if stale.run_id == taken.run_id:
                self._write(lambda session, stale=stale: guard(session, stale), stale)
        self.claimed.append(taken)
        return taken

    @rule(taken=claims, kind=st.sampled_from(["start", "beat", "say"]))
    def write(self, taken, kind):
        writes = {
            "start": lambda session: start(session, taken, 1),
            "beat": lambda session: guard(session, taken),
            "say": lambda session: add_event(session, taken, "said"),
        }
        self._write(writes[kind], taken)

    @rule(taken=claims, outcome=st.sampled_from(OUTCOMES), message=st.sampled_from("ab"))
    def finish(self, taken, outcome, message):
        is_mine = self._is_mine(taken)
        try:
            self.rig.finish(taken, outcome, message, max_infra_failures=3)
        except NotYours:
            assert not is_mine
        else:
            assert is_mine

    @rule(
        verb=st.sampled_from(["cancel", "pause", "resume", "retry"]),
        of=st.sampled_from(["", "_job"]),
        position=st.integers(0, 5),
    )
    def ask(self, verb, of, position):
        rows = self._runs()
        run = rows[position % len(rows)]
        try:
            with self.rig.database.write() as session:
                getattr(control, verb + of)(session, run.job_id if of else run.id)
        except Conflict:
            return
        if verb == "cancel":
            self.cancelled |= {
                row.id for row in self._runs() if row.id == run.id or (of and row.job_id == run.job_id)
            } - {row.id for row in rows if row.state == RunState.SUCCEEDED}

    @rule(seconds=st.sampled_from([1.0, LEASE / 2]))
    def reap(self, seconds):
        self.now += seconds
        with self.rig.database.write() as session:
            reap(session, self.watch, max_infra_failures=3)

    @rule()
    def promote(self):
        with self.rig.database.write() as session:
            session.execute(text("UPDATE runs SET available_at = created_at WHERE state = 'retry_wait'"))
            promote_waiting(session)

    def _runs(self):
        with self.rig.database.read() as session:
            return session.execute(RUNS).all()

    def _is_mine(self, taken):
        (run,) = (run for run in self._runs() if run.id == taken.run_id)
        return run.attempt == taken.attempt and run.state in LIVE

    def _write(self, write, taken):
        is_mine = self._is_mine(taken)
        try:
            with self.rig.database.write() as session:
                write(session)
        except NotYours:
            assert not is_mine
        else:
            assert is_mine

    @invariant()
    def everything_is_consistent(self):
        with self.rig.database.read() as session:
            runs = session.execute(RUNS).all()
            open_attempts = session.execute(select(Attempt.run_id, Attempt.n).where(Attempt.ended_at.is_(None))).all()
            edges = session.execute(select(RunDependency.run_id, RunDependency.needs_id)).all()
            jobs = session.execute(select(Job.id, Job.status, Job.event_seq)).all()
            events = session.execute(select(Event.job_id, Event.seq).order_by(Event.seq)).all()
        self._states_follow_the_transitions(runs)
        self._waiting_is_right(runs, edges)
        # One attempt is open exactly while a worker holds the run.
        assert {tuple(row) for row in open_attempts} == {(run.id, run.attempt) for run in runs if run.state in LIVE}
        for job in jobs:
            assert [row.seq for row in events if row.job_id == job.id] == list(range(1, job.event_seq + 1))
            assert job.status == job_status(run.state for run in runs if run.job_id == job.id)

    def _states_follow_the_transitions(self, runs):
        for run in runs:
            before = self.states.get(run.id, run.state)
            assert run.state == before or _reachable(before, run.state), (before, run.state)
            assert run.attempt >= self.attempts.get(run.id, 0)
            self.states[run.id], self.attempts[run.id] = run.state, run.attempt
        assert not {run.id for run in runs if run.state == RunState.SUCCEEDED} & self.cancelled

    def _waiting_is_right(self, runs, edges):
        by_id = {run.id: run for run in runs}
        unfinished = dict.fromkeys(by_id, 0)
        for run_id, needs_id in edges:
            unfinished[run_id] += by_id[needs_id].state != RunState.SUCCEEDED
            if by_id[needs_id].state in TERMINAL - {RunState.SUCCEEDED}:
                assert by_id[run_id].state == RunState.CANCELLED
        for run in runs:
            if run.state not in TERMINAL:
                assert run.blocked_on == unfinished[run.id]
                assert (run.state == RunState.BLOCKED) == (run.blocked_on > 0 and run.desired == Desired.RUN)


def _hurry(connection, _record):
    connection.execute("PRAGMA synchronous=OFF")


def _reachable(start_state, end_state):
    """Whether transitions lead from one state to another: several may lie between two looks."""
    seen, waiting = set(), [RunState(start_state)]
    while waiting:
        state = waiting.pop()
        if state not in seen:
            seen.add(state)
            waiting += TRANSITIONS[state]
    return RunState(end_state) in seen


def test_the_protocol_holds_under_any_sequence_of_events(migrated_sqlite):
    machine = type("Protocol", (Protocol,), {"template": migrated_sqlite})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=10,
            stateful_step_count=25,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
