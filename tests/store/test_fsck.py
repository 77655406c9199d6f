import os
import shutil
import time

import pytest
from sqlalchemy import delete, update

from lco.manifest import read_manifest
from store.artifacts import run_directory
from store.fsck import CHECKS, check
from store.models.job import Job
from store.models.record import Checkpoint, Event, Result
from store.models.run import Attempt, Run
from store.rows import Collected, ResultRow
from store.states import Outcome, RunState
from tests.store.test_artifacts import publish


def findings(rig, **options):
    """(check, message) of every finding."""
    return [(finding.check, finding.message) for finding in check(rig.database, rig.settings, **options)]


def healthy(rig):
    """A published run, a failed one, one under way, and runs that wait."""
    rig.submit_experiment(rig.spec("sft", seeds=[0, 1, 2]), rig.spec("pairs", seeds=[0, 1, 2]))
    taken = rig.started()
    directory = publish(rig, taken)
    with rig.database.write() as session:
        sha = read_manifest(directory).sha256
        session.execute(update(Checkpoint).values(manifest_sha256=sha))
    rig.finish(rig.started(), Outcome.USER, "no")
    rig.started()
    return taken, directory


def test_a_sound_store_has_no_finding(rig):
    healthy(rig)
    assert findings(rig) == []


def _break_attempt(rig, taken, directory):
    return update(Run).where(Run.id == taken.run_id).values(attempt=2)


def _break_job(rig, taken, directory):
    return update(Job).where(Job.id == taken.job_id).values(status="queued")


def _break_event(rig, taken, directory):
    return delete(Event).where(Event.job_id == taken.job_id, Event.seq == 2)


def _break_dependencies(rig, taken, directory):
    return update(Run).where(Run.state == RunState.BLOCKED).values(blocked_on=0)


def _break_open_attempt(rig, taken, directory):
    return update(Attempt).where(Attempt.ended_at.is_(None)).values(ended_at=Attempt.started_at)


def _break_file(rig, taken, directory):
    (directory / "model" / "weights").write_text("x")


def _break_directory(rig, taken, directory):
    shutil.rmtree(directory / "model")


def _break_nothing_but_add(rig, taken, directory):
    orphan = run_directory(rig.settings, taken.run_id, 7)
    orphan.mkdir()
    os.utime(orphan, (time.time() - 7200,) * 2)


BREAKS = {
    _break_attempt: ["attempts"],
    _break_open_attempt: ["attempts"],
    _break_job: ["jobs"],
    _break_event: ["events"],
    _break_dependencies: ["dependencies"],
    _break_file: ["outputs"],
    _break_directory: ["outputs", "checkpoints"],
    _break_nothing_but_add: ["orphans"],
}


@pytest.mark.parametrize("damage", BREAKS, ids=lambda function: function.__name__.strip("_"))
def test_each_damage_is_found_by_its_check(rig, damage):
    statement = damage(rig, *healthy(rig))
    if statement is not None:
        with rig.database.write() as session:
            session.execute(statement)
    assert list(dict.fromkeys(name for name, _ in findings(rig))) == BREAKS[damage]


def test_results_of_a_run_that_did_not_succeed_are_found(rig):
    rig.submit("sft")
    taken = rig.started()
    row = ResultRow(benchmark="sums", metric="pass@1", decoding="greedy", eval_seed=None, value=1.0, num_examples=2)
    rig.finish(taken, collected=Collected(results=[row]))
    with rig.database.write() as session:
        session.execute(update(Result).values(num_unscored=3))
    assert "results" in [name for name, _ in findings(rig)]


def test_a_quick_look_does_not_read_the_files(rig):
    _, directory = healthy(rig)
    _break_file(rig, None, directory)
    assert findings(rig, is_deep=False) == []


def test_every_check_says_what_it_holds(rig):
    assert all(function.__doc__ for function in CHECKS.values())
