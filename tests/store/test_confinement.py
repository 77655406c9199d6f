import pytest
from sqlalchemy import func, insert, select, update

from store.confinement import confine, project_of
from store.errors import Invalid, NotFound
from store.ids import encode_id, new_id
from store.models.job import Experiment, Job
from store.models.project import DEFAULT_PROJECT_ID, Project
from store.models.record import Checkpoint
from store.models.run import Run
from store.queue import record_checkpoint
from store.repositories.jobs import Jobs
from store.repositories.runs import Runs
from store.rows import CheckpointRow
from store.submission import submit_experiment, submit_job


@pytest.fixture
def other(rig):
    """A second project's id."""
    project = Project(id=new_id(), name="other")
    with rig.database.write() as session:
        session.add(project)
    return project.id


@pytest.fixture
def theirs(rig, other):
    """The database as the second project sees it."""
    return rig.database.confined(other)


def submit(database, rig, **fields) -> Job:
    with database.write() as session:
        return submit_job(session, rig.spec(**fields), rig.settings)


def test_what_nobody_assigned_belongs_to_the_default_project(rig):
    job = rig.submit()
    assert job.project_id == rig.runs(job.id)[0].project_id == DEFAULT_PROJECT_ID


def test_a_confined_submission_belongs_to_its_project(rig, theirs, other):
    with theirs.write() as session:
        assert project_of(session) == other
        experiment = submit_experiment(session, rig.experiment_spec(rig.spec()), rig.settings)
    (job,) = rig.jobs_of(experiment).values()
    assert {experiment.project_id, job.project_id, rig.runs(job.id)[0].project_id} == {other}


def test_foreign_rows_do_not_exist_for_a_confined_session(rig, theirs):
    job = rig.submit()
    with theirs.read() as session:
        assert session.get(Job, job.id) is None
        assert session.scalar(select(func.count()).select_from(Run)) == 0
        assert session.scalars(select(Run.id).join(Job, Job.id == Run.job_id)).all() == []
        assert session.scalars(select(Run.id).where(Run.job_id.in_(select(Job.id)))).all() == []
        assert Jobs(session).page().rows == []
        with pytest.raises(NotFound):
            Jobs(session).get(job.id)


def test_foreign_rows_are_not_changed_by_a_confined_session(rig, theirs):
    job = rig.submit()
    with theirs.write() as session:
        assert session.execute(update(Run).values(priority=9).returning(Run.id)).all() == []
    assert rig.runs(job.id)[0].priority == 0


def test_one_process_serves_projects_side_by_side(rig, theirs, other):
    """The criteria are cached by SQLAlchemy: each session must still get its own project's."""
    mine, foreign = rig.submit(), submit(theirs, rig)
    ours = rig.database.confined(DEFAULT_PROJECT_ID)
    for _ in range(2):
        for database, job in ((ours, mine), (theirs, foreign)):
            with database.read() as session:
                assert [row.id for row in Jobs(session).page().rows] == [job.id]
    with rig.database.read() as session:
        assert len(Runs(session).page().rows) == 2
        confine(session, other)
        assert [row.job_id for row in Runs(session).page().rows] == [foreign.id]


def test_a_foreign_input_is_an_unknown_input(rig, theirs):
    job = rig.submit()
    absent = "job_" + "0" * 26
    complaints = []
    for name in (encode_id("job", job.id), absent):
        with pytest.raises(Invalid) as caught:
            submit(theirs, rig, kind="pairs", config={"policy": name})
        complaints.append((caught.value.pointer, caught.value.message.replace(name, "ID")))
    assert complaints[0] == complaints[1]


def test_what_a_worker_records_belongs_to_the_runs_project(rig, theirs, other):
    submit(theirs, rig)
    taken = rig.started()
    assert taken.project_id == other
    with rig.database.write() as session:
        row = CheckpointRow(kind="state", step=1, path="x", manifest_sha256="0" * 64, size_bytes=1)
        record_checkpoint(session, taken, row)
    with theirs.read() as session:
        assert session.scalars(select(Checkpoint.project_id)).all() == [other]


def test_rows_inserted_in_bulk_get_the_sessions_project(theirs, other):
    with theirs.write() as session:
        session.execute(insert(Experiment), [{"name": "a", "document": {}}, {"name": "b", "document": {}}])
        assert session.scalars(select(Experiment.project_id)).all() == [other, other]
