import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import SQLAlchemyError

from store.control import cancel, pause
from store.errors import NotYours
from store.models.run import Run
from store.queue import guard
from store.reaper import SilenceWatch, promote_waiting, reap
from store.repositories.runs import Runs
from store.states import Outcome

LEASE = 20.0


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> SilenceWatch:
    """A watch on that clock."""
    return SilenceWatch(LEASE, clock)


def look(rig, watch, clock, seconds=0.0):
    clock.now += seconds
    with rig.database.write() as session:
        return reap(session, watch)


def test_a_run_whose_worker_is_silent_for_a_lease_is_queued_again(rig, watch, clock):
    rig.submit()
    stale = rig.started()
    assert [look(rig, watch, clock, seconds) for seconds in (0, 9, 9)] == [[], [], []]
    assert look(rig, watch, clock, 2) == [stale.run_id]
    run = rig.run(stale.run_id)
    assert (run.state, run.worker_id, run.infra_failures) == ("queued", None, 1)
    with rig.database.read() as session:
        (attempt,) = Runs(session).attempts(run.id)
    assert (attempt.outcome, attempt.ended_at is None) == ("lost", False)
    with pytest.raises(NotYours), rig.database.write() as session:
        guard(session, stale)
    assert rig.take().attempt == 2


def test_a_worker_that_beats_keeps_its_run(rig, watch, clock):
    rig.submit()
    taken = rig.started()
    for _ in range(10):
        with rig.database.write() as session:
            guard(session, taken)
        assert look(rig, watch, clock, 9) == []


def test_the_workers_clock_does_not_matter(sqlite_rig, watch, clock):
    sqlite_rig.submit()
    taken = sqlite_rig.started()
    for _ in range(4):
        with sqlite_rig.database.write() as session:
            guard(session, taken)
            session.execute(update(Run).values(hb_at=Run.created_at))
        assert look(sqlite_rig, watch, clock, 9) == []


def test_time_in_which_the_reaper_slept_is_not_the_workers_silence(sqlite_rig, watch, clock):
    sqlite_rig.submit()
    sqlite_rig.started()
    assert look(sqlite_rig, watch, clock) == []
    assert look(sqlite_rig, watch, clock, 100_000) == []
    assert len(look(sqlite_rig, watch, clock, 10)) == 1


def test_after_a_database_error_every_run_gets_a_whole_lease(sqlite_rig, watch, clock):
    sqlite_rig.submit()
    sqlite_rig.started()
    for seconds in (0, 9, 9):
        look(sqlite_rig, watch, clock, seconds)
    with pytest.raises(SQLAlchemyError), sqlite_rig.database.write() as session:
        session.execute(text("ALTER TABLE runs RENAME TO gone"))
        reap(session, watch)
    assert [look(sqlite_rig, watch, clock, seconds) for seconds in (9, 9, 9)] == [[], [], []]
    assert len(look(sqlite_rig, watch, clock, 9)) == 1


def test_an_ended_attempt_is_forgotten(sqlite_rig, watch, clock):
    sqlite_rig.submit()
    taken = sqlite_rig.started()
    look(sqlite_rig, watch, clock)
    look(sqlite_rig, watch, clock, 9)
    sqlite_rig.finish(taken, Outcome.STOPPED)
    sqlite_rig.started()
    assert [look(sqlite_rig, watch, clock, 9) for _ in range(3)] == [[], [], []]


@pytest.mark.parametrize(("verb", "state"), [(cancel, "cancelled"), (pause, "paused")])
def test_what_a_person_asked_of_a_dead_worker_is_done_by_the_reaper(rig, watch, clock, verb, state):
    rig.submit()
    taken = rig.started()
    with rig.database.write() as session:
        verb(session, taken.run_id)
    for seconds in (0, 10, 10):
        look(rig, watch, clock, seconds)
    assert rig.run(taken.run_id).state == state


def test_a_run_that_is_lost_too_often_fails(sqlite_rig, watch, clock):
    sqlite_rig.submit()
    states = []
    for _ in range(6):
        taken = sqlite_rig.started()
        for seconds in (0, 10, 10):
            look(sqlite_rig, watch, clock, seconds)
        states.append(sqlite_rig.run(taken.run_id).state)
    assert states == ["queued"] * 5 + ["failed"]


def test_two_reapers_take_a_run_back_once(rig, clock):
    rig.submit()
    taken = rig.started()
    watches = [SilenceWatch(LEASE, clock) for _ in range(2)]
    for seconds in (0, 10):
        clock.now += seconds
        for watch in watches:
            assert look(rig, watch, clock) == []
    clock.now += 10
    assert [look(rig, watch, clock) for watch in watches] == [[taken.run_id], []]


def test_a_back_off_that_is_over_ends(rig):
    rig.submit()
    taken = rig.started()
    rig.finish(taken, Outcome.INFRA, "signal 9")
    with rig.database.write() as session:
        assert promote_waiting(session) == []
        session.execute(update(Run).values(available_at=Run.created_at))
        assert promote_waiting(session) == [taken.run_id]
    assert rig.run(taken.run_id).state == "queued"
    assert rig.take().attempt == 2
