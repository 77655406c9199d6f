"""Deletion and collection: nothing that is needed goes, everything else does, whatever is killed when."""

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from lco.manifest import read_manifest, write_manifest
from store import deletion, holders
from store.artifacts import relative_path, run_directory
from store.errors import Conflict, Gone
from store.gc import Collector
from store.ids import encode_id
from store.models.base import Base, utc_now
from store.models.dataset import Alias
from store.models.job import Experiment, Job
from store.models.record import Checkpoint, Event, LogChunk
from store.models.registry import Removal, Tombstone
from store.models.run import Run
from store.models.suite import Suite, SuiteVersion, Verdict
from store.queue import Claim, append_log, record_checkpoint
from store.repositories.records import Checkpoints
from store.rows import CheckpointRow, Collected
from store.states import Outcome
from tests.store.conftest import Rig

LONG_AGO = time.time() - 3 * 86_400


def trained(rig: Rig, kind: str = "sft", **fields: Any) -> tuple[Job, Claim, UUID]:
    """A job that has published a model, its claim and the model's id."""
    job = rig.submit(kind, **fields)
    claim = rig.started()
    return job, claim, publish(rig, claim)


def publish(rig: Rig, claim: Claim) -> UUID:
    directory = run_directory(rig.settings, claim.run_id, claim.attempt)
    (directory / "model").mkdir(parents=True)
    (directory / "model" / "model.safetensors").write_bytes(b"w" * 1000)
    write_manifest(directory, step=5, outputs={"model": "model"}, include=["model"])
    manifest = read_manifest(directory)
    place = relative_path(rig.settings, directory / "model")
    row = CheckpointRow(step=5, path=place, manifest_sha256=manifest.sha256, size_bytes=1000)
    rig.finish(claim, collected=Collected(models=[row]))
    with rig.database.read() as session:
        return session.scalars(select(Checkpoint.id).where(Checkpoint.run_id == claim.run_id)).one()


def state(rig: Rig, claim: Claim, step: int) -> UUID:
    """A resumable state of a run."""
    directory = run_directory(rig.settings, claim.run_id, claim.attempt) / "checkpoints" / f"step-{step:06d}"
    directory.mkdir(parents=True)
    (directory / "weights.safetensors").write_bytes(b"s" * 500)
    place = relative_path(rig.settings, directory)
    with rig.database.write() as session:
        row = CheckpointRow(kind="state", step=step, path=place, manifest_sha256="0" * 64, size_bytes=500)
        record_checkpoint(session, claim, row)
        query = select(Checkpoint.id).where(Checkpoint.run_id == claim.run_id, Checkpoint.step == step)
        return session.scalars(query).one()


def directory_of(rig: Rig, checkpoint_id: UUID) -> Path:
    with rig.database.read() as session:
        return rig.settings.artifacts / session.get_one(Checkpoint, checkpoint_id).path


def delete(rig: Rig, checkpoint_id: UUID) -> None:
    with rig.database.write() as session:
        deletion.delete_checkpoint(session, checkpoint_id, "for a test")


def change(rig: Rig, checkpoint_id: UUID, **values: Any) -> None:
    with rig.database.write() as session:
        session.execute(update(Checkpoint).where(Checkpoint.id == checkpoint_id).values(**values))


def aged(rig: Rig, run_id: UUID, days: float) -> None:
    """Makes a run end some days earlier."""
    with rig.database.write() as session:
        session.execute(update(Run).where(Run.id == run_id).values(finished_at=utc_now() - timedelta(days=days)))


def collect(rig: Rig, **settings: Any) -> Collector:
    collector = Collector(rig.settings.model_copy(update=settings), rig.database)
    assert collector.collect().failures == []
    return collector


def test_a_deleted_model_is_gone_with_its_files_and_refused_as_an_input(rig: Rig) -> None:
    job, claim, model = trained(rig)
    delete(rig, model)
    delete(rig, model)
    collect(rig)
    assert not directory_of(rig, model).exists()
    assert not (run_directory(rig.settings, claim.run_id, 1) / "manifest.json").exists()
    with rig.database.read() as session, pytest.raises(Gone, match=r"was deleted on .*: for a test"):
        Checkpoints(session).get(model)
    for source in (encode_id("ckpt", model), encode_id("job", job.id)):
        with pytest.raises(Exception, match=r"ckpt_.* was deleted on .*: for a test"):
            rig.submit("evaluation", config={"policy": source})


def test_an_experiment_does_not_take_over_what_was_deleted(sqlite_rig: Rig) -> None:
    rig = sqlite_rig
    rig.submit_experiment(rig.spec())
    model = publish(rig, rig.started())
    twin = rig.jobs_of(rig.submit_experiment(rig.spec()))["sft"]
    assert rig.runs(twin.id)[0].reused_run_id is not None
    with pytest.raises(Conflict, match=r"took over the output of its run"):
        delete(rig, model)
    with rig.database.write() as session:
        deletion.delete_experiment(session, twin.experiment_id, "x")
    delete(rig, model)
    again = rig.jobs_of(rig.submit_experiment(rig.spec()))["sft"]
    assert rig.runs(again.id)[0].reused_run_id is None


def test_what_is_held_is_refused_and_never_collected(rig: Rig) -> None:
    _, _, model = trained(rig)
    change(rig, model, expires_at=utc_now() - timedelta(days=1))
    with rig.database.write() as session:
        session.add(Alias(name="champion", checkpoint_id=model, updated_at=utc_now()))
    change(rig, model, is_pinned=True)
    job = rig.submit("evaluation", config={"policy": encode_id("ckpt", model)})
    with pytest.raises(Conflict) as held:
        delete(rig, model)
    assert held.value.code == "held"
    assert "it is pinned" in held.value.message
    assert "alias:champion" in held.value.message
    assert encode_id("job", job.id) in held.value.message
    assert Collector(rig.settings, rig.database).plan() == []
    collect(rig)
    assert directory_of(rig, model).is_dir()
    with rig.database.write() as session:
        session.delete(session.get_one(Alias, (job.project_id, "champion")))
    change(rig, model, is_pinned=False)
    rig.finish(rig.started(), Outcome.USER, "wrong")
    (item,) = Collector(rig.settings, rig.database).plan()
    assert (item.kind, item.subject, item.size_bytes) == ("model", encode_id("ckpt", model), 1000)
    collect(rig)
    assert not directory_of(rig, model).exists()


def test_a_queued_run_holds_the_model_of_the_job_that_it_waits_for(sqlite_rig: Rig) -> None:
    job, _, model = trained(sqlite_rig)
    sqlite_rig.submit("evaluation", config={"policy": encode_id("job", job.id)})
    with pytest.raises(Conflict, match=r"the job evaluation .* takes it as an input"):
        delete(sqlite_rig, model)


def test_a_suite_holds_its_baseline_and_what_a_verdict_is_still_to_be_given_on(rig: Rig) -> None:
    models = [trained(rig, name=f"job-{n}")[2] for n in range(4)]
    with rig.database.write() as session:
        suite = Suite(name="nightly", watched_from=utc_now(), scanned_to=utc_now(), updated_at=utc_now())
        session.add(suite)
        session.flush()
        session.add(SuiteVersion(suite_id=suite.id, version=1, plan={"baseline": encode_id("ckpt", models[0])}))
        session.flush()
        common = {"suite_id": suite.id, "version": 1, "cause": "manual", "level": 0.05}
        session.add(Verdict(checkpoint_id=models[2], baseline_id=models[1], state="pending", **common))
        session.add(Verdict(checkpoint_id=models[3], baseline_id=models[3], state="decided", **common))
    for model, reason in zip(models, ("is the baseline of", "is not decided yet", "is not decided yet"), strict=False):
        with pytest.raises(Conflict, match=reason):
            delete(rig, model)
    delete(rig, models[3])


def test_states_end_after_their_run_by_age_but_the_newest_of_a_failed_one_stays_longer(rig: Rig) -> None:
    rig.submit()
    claim = rig.started()
    old, newest = state(rig, claim, 1), state(rig, claim, 2)
    collect(rig)
    with pytest.raises(Conflict, match="has not ended and may resume from it"):
        delete(rig, newest)
    rig.finish(claim, Outcome.USER, "wrong")
    aged(rig, claim.run_id, 8)
    collect(rig)
    assert (directory_of(rig, old).exists(), directory_of(rig, newest).exists()) == (False, True)
    collect(rig, retention_state_days=0.0, retention_newest_state_days=0.0)
    assert directory_of(rig, newest).exists()
    aged(rig, claim.run_id, 91)
    change(rig, newest, expires_at=utc_now() + timedelta(days=1))
    collect(rig)
    assert directory_of(rig, newest).exists(), "somebody said how long"
    change(rig, newest, expires_at=None)
    collect(rig)
    assert not directory_of(rig, newest).exists()


def test_rows_of_states_that_a_run_has_replaced_go_also_while_it_runs(sqlite_rig: Rig) -> None:
    sqlite_rig.submit()
    claim = sqlite_rig.started()
    replaced, newest = state(sqlite_rig, claim, 1), state(sqlite_rig, claim, 2)
    (directory_of(sqlite_rig, replaced) / "weights.safetensors").unlink()
    directory_of(sqlite_rig, replaced).rmdir()
    collect(sqlite_rig)
    with sqlite_rig.database.read() as session:
        assert session.get_one(Checkpoint, replaced).deleted_reason.endswith("replaced it by a newer one")
        assert session.get_one(Checkpoint, newest).deleted_at is None


def test_a_root_that_is_not_mounted_loses_nothing(sqlite_rig: Rig) -> None:
    sqlite_rig.submit()
    state(sqlite_rig, sqlite_rig.started(), 1)
    sqlite_rig.settings.artifacts.rename(sqlite_rig.settings.artifacts.with_name("away"))
    assert Collector(sqlite_rig.settings, sqlite_rig.database).plan() == []


def test_what_no_row_knows_of_goes_once_it_is_old(sqlite_rig: Rig) -> None:
    rig = sqlite_rig
    _, claim, model = trained(rig)
    rig.submit(name="live")
    live = rig.started()
    attempts = run_directory(rig.settings, claim.run_id, 1).parent
    unknown = rig.settings.artifacts / "runs" / encode_id("run", UUID(int=5)) / "1"
    places = [unknown, attempts / "7", attempts / "1" / ".progress.tmp"]
    kept = run_directory(rig.settings, live.run_id, 1) / ".step-1.tmp"
    for place in [*places, kept]:
        place.mkdir(parents=True)
        (place / "file").write_bytes(b"x" * 10)
    assert Collector(rig.settings, rig.database).plan() == [], "a young one may be on its way"
    for place in [*places, kept, unknown.parent, kept.parent]:
        for path in (place / "file", place):
            if path.exists():
                os.utime(path, (LONG_AGO, LONG_AGO))
    planned = Collector(rig.settings, rig.database).plan()
    assert {item.kind for item in planned} == {"directory", "temporary"}
    assert sum(item.size_bytes for item in planned) == 30
    assert all(place.exists() for place in places)
    report = Collector(rig.settings, rig.database).collect()
    assert report.freed_bytes == 30
    assert not any(place.exists() for place in [*places, unknown.parent])
    assert kept.exists(), "its run goes on"
    assert directory_of(rig, model).is_dir()


def test_records_end_by_age(rig: Rig) -> None:
    rig.submit()
    claim = rig.started()
    with rig.database.write() as session:
        append_log(session, claim, 0, "text")
    collect(rig, retention_log_days=1.0, retention_event_days=1.0)
    rig.finish(claim, Outcome.USER, "wrong")
    collect(rig, retention_log_days=1.0, retention_event_days=1.0)
    with rig.database.read() as session:
        assert session.scalar(select(func.count()).select_from(LogChunk)) == 1
    aged(rig, claim.run_id, 2)
    planned = Collector(rig.settings.model_copy(update={"retention_log_days": 1.0}), rig.database).plan()
    assert [(item.kind, item.count) for item in planned] == [("logs", 1)]
    collect(rig, retention_log_days=1.0, retention_event_days=1.0)
    with rig.database.read() as session:
        assert session.scalar(select(func.count()).select_from(LogChunk)) == 0
        assert session.scalar(select(func.count()).select_from(Event)) == 0
    assert rig.run(claim.run_id).purged.keys() == {"logs"}


def test_a_job_is_deleted_only_when_it_has_ended_and_nothing_was_made_from_it(rig: Rig) -> None:
    job = rig.submit(name="first")
    claim = rig.started()
    with pytest.raises(Conflict, match=r"only what has ended can be deleted: run_.* is running") as refused:
        remove(rig, job.id)
    assert (refused.value.code, refused.value.current) == ("invalid_state", "running")
    publish(rig, claim)
    made = rig.submit("evaluation", name="second", config={"policy": encode_id("job", job.id)})
    rig.finish(rig.started(), Outcome.USER, "wrong")
    with pytest.raises(Conflict, match=rf"the job second .{encode_id('job', made.id)}. was made from it"):
        remove(rig, job.id)
    remove(rig, made.id)
    remove(rig, job.id)
    with pytest.raises(Gone, match=r"the job job_.* was deleted"):
        rig.job(job.id)
    with pytest.raises(Gone, match=r"the run run_.* was deleted"):
        rig.run(claim.run_id)
    collect(rig)
    assert not run_directory(rig.settings, claim.run_id, 1).parent.exists()
    with rig.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Tombstone)) == 5
        assert session.scalar(select(func.count()).where(Removal.removed_at.is_(None))) == 0


def remove(rig: Rig, job_id: UUID) -> None:
    with rig.database.write() as session:
        deletion.delete_job(session, job_id, "for a test")


def test_a_run_is_deleted_without_a_gap_in_the_events_of_its_job(rig: Rig) -> None:
    job = rig.submit(seeds=[0, 1])
    rig.finish(rig.started(), Outcome.USER, "wrong")
    claim = rig.started()
    publish(rig, claim)
    failed = next(run for run in rig.runs(job.id) if run.id != claim.run_id)
    assert rig.job(job.id).status == "failed"
    with rig.database.write() as session:
        deletion.delete_run(session, failed.id, "x")
    assert rig.job(job.id).status == "succeeded"
    with rig.database.read() as session:
        assert list(session.scalars(select(Event.seq).order_by(Event.seq))) == list(
            range(1, rig.job(job.id).event_seq + 1)
        )
    with rig.database.write() as session, pytest.raises(Conflict, match="delete the job"):
        deletion.delete_run(session, claim.run_id, "x")


def test_an_experiment_is_deleted_whole(rig: Rig) -> None:
    experiment = rig.submit_experiment(rig.spec(), rig.spec("evaluation"))
    publish(rig, rig.started())
    rig.finish(rig.started(), Outcome.USER, "wrong")
    with rig.database.write() as session:
        deletion.delete_experiment(session, experiment.id, "x")
    with rig.database.read() as session:
        for table in (Experiment, Job, Run, Checkpoint, Event):
            assert session.scalar(select(func.count()).select_from(table)) == 0


class Killed(BaseException):
    """The process ends here."""


def test_a_collection_killed_after_any_step_is_finished_by_the_next(sqlite_rig: Rig) -> None:
    rig = sqlite_rig
    died = 0
    for last in range(40):
        _, claim, model = trained(rig, name=f"job-{last}")
        change(rig, model, expires_at=utc_now() - timedelta(days=1))
        job, second, _ = trained(rig, name=f"gone-{last}")
        remove(rig, job.id)
        steps = 0

        def after(step: str, last: int = last) -> None:
            nonlocal steps
            if steps == last:
                raise Killed
            steps += 1

        try:
            Collector(rig.settings, rig.database, after).collect()
            is_killed = False
        except Killed:
            died += 1
            is_killed = True
        assert collect(rig).plan() == []
        assert not directory_of(rig, model).exists()
        assert not run_directory(rig.settings, second.run_id, 1).parent.exists()
        names = [path.name for path in run_directory(rig.settings, claim.run_id, 1).iterdir()]
        assert names == [], names
        with rig.database.read() as session:
            assert session.scalar(select(func.count()).where(Removal.removed_at.is_(None))) == 0
        if not is_killed:
            break
    assert died >= 6


def test_a_removal_killed_between_renaming_and_removing_is_finished(sqlite_rig: Rig) -> None:
    _, _, model = trained(sqlite_rig)
    delete(sqlite_rig, model)
    place = directory_of(sqlite_rig, model)
    place.rename(place.with_name(".model.removed"))
    report = Collector(sqlite_rig.settings, sqlite_rig.database).collect()
    assert report.freed_bytes > 1000
    assert list(place.parent.iterdir()) == []


def test_a_file_that_cannot_be_removed_is_reported_and_tried_again(
    sqlite_rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, model = trained(sqlite_rig)
    delete(sqlite_rig, model)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_, **__: None)
        (failure,) = Collector(sqlite_rig.settings, sqlite_rig.database).collect().failures
    assert "cannot be removed" in failure
    collect(sqlite_rig)
    assert not directory_of(sqlite_rig, model).exists()


def test_a_state_outside_the_directory_of_runs_is_never_removed(sqlite_rig: Rig) -> None:
    _, _, model = trained(sqlite_rig)
    outside = sqlite_rig.settings.artifacts / "other"
    outside.mkdir()
    change(sqlite_rig, model, path="other")
    delete(sqlite_rig, model)
    report = Collector(sqlite_rig.settings, sqlite_rig.database).collect()
    assert len(report.failures) == 1
    assert outside.is_dir()


def test_every_table_whose_rows_belong_to_one_run_goes_with_it() -> None:
    for table in Base.metadata.sorted_tables:
        if "run_id" in table.primary_key.columns and table.name != "spendings":  # what was spent stays spent
            assert table.name in holders.OWN, f"{table.name}: delete its rows in store/deletion.py, and list it in OWN"


def test_states_that_a_succeeded_attempt_removed_are_no_checkpoints_any_more(rig: Rig) -> None:
    rig.submit()
    claim = rig.started()
    kept, gone = state(rig, claim, 1), state(rig, claim, 2)
    rig.finish(claim)
    with rig.database.write() as session:
        deletion.forget_states(session, claim.run_id, claim.attempt)
    with rig.database.read() as session:
        left = select(Checkpoint.id).where(Checkpoint.run_id == claim.run_id, Checkpoint.deleted_at.is_(None))
        assert session.scalars(left).all() == []
        assert {row.deleted_reason for row in map(session.get_one, [Checkpoint] * 2, [kept, gone])} == {
            "its run has succeeded"
        }
    collect(rig)
    assert not directory_of(rig, gone).exists()
