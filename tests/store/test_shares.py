"""Which run is next where several projects wait, and what quotas hold back."""

import threading

import pytest
from sqlalchemy import update

from store.errors import Conflict, Invalid
from store.ids import new_id
from store.models.project import DEFAULT_PROJECT_ID, Project, Spending
from store.queue import report_spending
from store.quotas import waits
from store.repositories.projects import Projects
from store.repositories.runs import Runs
from store.rows import CheckpointRow, Collected
from store.states import Outcome
from store.submission import submit_job

GPUS = list(range(8))


def make_project(rig, name="other", **quotas):
    """A project's id."""
    project = Project(id=new_id(), name=name, **quotas)
    with rig.database.write() as session:
        session.add(project)
    return project.id


def submit(rig, project_id=DEFAULT_PROJECT_ID, gpus=0, **fields):
    """A job of a project."""
    fields |= {"resources": {"gpus": gpus}}
    with rig.database.confined(project_id).write() as session:
        return submit_job(session, rig.spec(**fields), rig.settings)


def order(rig, **offer):
    """Projects of the runs that a worker gets, one after the other."""
    found = []
    while (taken := rig.claim(free_gpus=GPUS, **offer)) is not None:
        found.append(taken.project_id)
    return found


def test_projects_take_turns_however_much_each_has_queued(rig):
    other = make_project(rig)
    submit(rig, seeds=[0, 1, 2, 3])
    submit(rig, other, seeds=[0, 1])
    mine = DEFAULT_PROJECT_ID
    assert order(rig) == [mine, other, mine, other, mine, mine]


def test_the_project_with_the_fewest_gpus_comes_first(rig):
    other = make_project(rig)
    submit(rig, seeds=[0, 1], gpus=4)
    submit(rig, other, seeds=[0, 1, 2], gpus=1)
    mine = DEFAULT_PROJECT_ID
    assert order(rig) == [mine, other, other, other, mine]


def test_a_higher_priority_goes_before_any_share(rig):
    other = make_project(rig)
    submit(rig, other, seeds=[0])
    submit(rig, seeds=[0, 1], priority=5)
    assert order(rig) == [DEFAULT_PROJECT_ID, DEFAULT_PROJECT_ID, other]


def test_within_a_project_the_oldest_comes_first(rig):
    make_project(rig)
    first, second = submit(rig), submit(rig)
    assert [rig.take().job_id, rig.take().job_id] == [first.id, second.id]


def test_what_a_worker_cannot_serve_does_not_hide_what_is_behind_it(rig):
    other = make_project(rig)
    with rig.database.confined(other).write() as session:
        submit_job(session, rig.spec(resources={"labels": ["a100"]}, priority=9), rig.settings)
    behind = submit(rig, other)
    assert rig.take().job_id == behind.id
    assert rig.claim() is None
    assert rig.claim(labels=["a100"]) is not None


def test_a_claim_over_a_quota_is_passed_over_and_the_run_says_why(rig):
    other = make_project(rig, max_running_runs=1)
    job = submit(rig, other, seeds=[0, 1], priority=9)
    mine = submit(rig)
    assert order(rig) == [other, DEFAULT_PROJECT_ID]
    with rig.database.read() as session:
        runs = Runs(session).of_jobs([job.id, mine.id])
        queued = next(run for run in runs[job.id] if run.state == "queued")
        reasons = waits(session, [*runs[job.id], *runs[mine.id]])
    assert reasons.keys() == {queued.id}
    assert "1 of the 1 live runs that its quota max_running_runs allows" in reasons[queued.id]


def test_gpu_slots_are_bounded_and_runs_without_gpus_go_on(rig):
    other = make_project(rig, max_gpu_slots=3)
    large = submit(rig, other, seeds=[0, 1], gpus=2)
    small = submit(rig, other, gpus=1, seeds=[0, 1])
    none = submit(rig, other, seeds=[0])
    taken = [rig.claim(free_gpus=GPUS) for _ in range(3)]
    assert {one.job_id for one in taken if one} == {large.id, small.id, none.id}
    assert rig.claim(free_gpus=GPUS) is None
    with rig.database.read() as session:
        reasons = waits(session, Runs(session).of_jobs([large.id])[large.id])
        assert Projects(session).usage([other])[other].gpu_slots == 3
    assert [reason for reason in reasons.values() if "3 of the 3 that its quota max_gpu_slots" in reason]


def test_room_is_there_again_when_a_run_ends(rig):
    other = make_project(rig, max_running_runs=1)
    submit(rig, other, seeds=[0, 1])
    first = rig.take()
    assert rig.claim() is None
    rig.finish(first, Outcome.USER, "wrong")
    assert rig.claim() is not None


def test_workers_at_once_never_exceed_a_quota(rig):
    other = make_project(rig, max_running_runs=3, max_gpu_slots=3)
    submit(rig, other, seeds=list(range(12)), gpus=1)
    taken, failures = [], []

    def work():
        try:
            for _ in range(2):
                taken.append(rig.claim(free_gpus=GPUS, worker_id=new_id()))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len([one for one in taken if one is not None]) == 3


def test_an_archived_project_takes_nothing_and_what_is_queued_goes_on(rig):
    other = make_project(rig)
    submit(rig, other)
    with rig.database.write() as session:
        Projects(session).archive(other)
    with pytest.raises(Conflict, match="archived"):
        submit(rig, other)
    assert rig.claim() is not None


def test_submissions_need_storage_that_is_left(rig):
    other = make_project(rig, max_storage_bytes=1000)
    submit(rig, other, seeds=[0])
    model = CheckpointRow(step=1, path="x", manifest_sha256="0" * 64, size_bytes=1000)
    rig.finish(rig.started(), collected=Collected(models=[model]))
    with pytest.raises(Conflict, match=r"max_storage_bytes: .* keeps 0.001 MB of the 0.001 MB") as caught:
        submit(rig, other)
    assert (caught.value.code, caught.value.current) == ("quota_exceeded", "1000 of 1000 bytes")
    submit(rig)


JUDGE = {
    "api": "openai",
    "base_url": "https://judge.example/v1",
    "model": "m",
    "api_key_variable": "JUDGE_KEY",
    "prices": {"input_per_million": 1.0, "output_per_million": 2.0},
}


@pytest.fixture
def judged(rig):
    """Submits an evaluation of a policy behind an endpoint that costs money."""
    rig.settings = rig.settings.model_copy(update={"endpoints": "https://judge.example/v1=JUDGE_KEY"})

    def judged(project_id, cap=2.0, **fields):
        endpoint = JUDGE | ({"spending_cap": cap} if cap else {})
        policy = {"endpoint": endpoint}
        config = {"policy": policy, "benchmarks": [{"name": "sums"}]}
        return submit(rig, project_id, kind="evaluation", config=config, **fields)

    return judged


def test_a_judge_budget_covers_what_is_spent_and_the_caps_of_unfinished_runs(rig, judged):
    other = make_project(rig, max_judge_spend=5.0)
    judged(other, seeds=[0, 1])
    with pytest.raises(Conflict, match=r"\$0.00 are spent, \$4.00 .* and this could cost \$2.00") as caught:
        judged(other, seeds=[0])
    assert caught.value.code == "quota_exceeded"
    taken = rig.started()
    with rig.database.write() as session:
        report_spending(session, taken, 0.5)
        report_spending(session, taken, 0.25)
        report_spending(session, taken, 1.5)
    rig.finish(taken, Outcome.USER, "wrong")
    with rig.database.read() as session:
        usage = Projects(session).usage([other])[other]
    assert (usage.judge_spend, usage.judge_reserved) == (1.5, 2.0)
    judged(other, cap=1.5, seeds=[0])
    with rig.database.write() as session:
        session.execute(update(Spending).values(month="2020-01"))
    with rig.database.read() as session:
        assert Projects(session).usage([other])[other].judge_spend == 0.0


def test_a_project_with_a_judge_budget_wants_a_cap(rig, judged):
    other = make_project(rig, max_judge_spend=5.0)
    with pytest.raises(Invalid) as caught:
        judged(other, cap=0.0)
    assert caught.value.pointer == "/config/policy/endpoint/spending_cap"
    judged(DEFAULT_PROJECT_ID, cap=0.0)
    submit(rig, other)


def test_submissions_at_once_never_exceed_a_judge_budget(rig, judged):
    other = make_project(rig, max_judge_spend=5.0)
    taken = []

    def work():
        try:
            judged(other, seeds=[0])
            taken.append(True)
        except Conflict:
            taken.append(False)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [False] * 4 + [True] * 2


def test_a_run_remembers_its_cap(rig, judged):
    job, plain = judged(DEFAULT_PROJECT_ID, cap=2.0), submit(rig)
    assert [rig.runs(one.id)[0].spending_cap for one in (job, plain)] == [2.0, 0.0]
