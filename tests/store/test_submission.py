import json
from typing import get_args

import pytest

from store.errors import Invalid
from store.ids import encode_id, new_id
from store.models.record import Checkpoint
from store.repositories.records import Checkpoints, Events
from store.repositories.runs import Runs
from store.rows import CheckpointRow, Collected
from store.sources import GIVES, document_of, spec_of
from store.specs import JobSpec, Resources
from store.states import Outcome, RunState

MODEL = CheckpointRow(step=10, path="runs/r/1/model", manifest_sha256="0" * 64, size_bytes=1)


def test_a_job_has_a_queued_run_for_each_seed_and_an_event(rig):
    job = rig.submit(seeds=[3, 1], priority=5, metadata={"team": "a"})
    runs = rig.runs(job.id)
    assert [(run.seed, run.state, run.priority, run.queue) for run in runs] == [
        (1, "queued", 5, "lco.cpu"),
        (3, "queued", 5, "lco.cpu"),
    ]
    assert (job.status, job.kind, job.method, job.details, job.event_seq) == ("queued", "sft", "sft", {"team": "a"}, 1)
    with rig.database.read() as session:
        (event,) = Events(session).page(job.id).rows
    assert (event.seq, event.type, event.data["seeds"]) == (1, "job.created", [3, 1])


def test_a_stored_spec_reads_back_as_what_was_submitted(rig):
    job = rig.submit(seeds=[1], config={"steps": 7})
    spec = spec_of(rig.job(job.id).spec)
    assert (spec.config.steps, spec.seeds) == (7, [1])
    assert document_of(spec) == rig.job(job.id).spec


def test_every_kind_of_job_says_what_it_gives():
    kinds = {get_args(member.model_fields["kind"].annotation)[0] for member in get_args(get_args(JobSpec)[0])}
    assert kinds == GIVES.keys()


def test_gpus_decide_the_queue_and_labels_stay_with_the_run(rig):
    (run,) = rig.runs(rig.submit(resources={"gpus": 2, "labels": ["a100"]}).id)
    assert (run.queue, run.num_gpus, run.labels) == ("lco.gpu", 2, ["a100"])


def test_an_experiment_makes_each_run_wait_for_the_runs_of_its_seed(rig):
    experiment = rig.submit_experiment(
        rig.spec("dpo", seeds=[0, 1]), rig.spec("pairs", seeds=[0, 1]), rig.spec("sft", seeds=[0, 1])
    )
    jobs = rig.jobs_of(experiment)
    assert [run.state for run in rig.runs(jobs["sft"].id)] == ["queued", "queued"]
    assert [(run.state, run.blocked_on) for run in rig.runs(jobs["dpo"].id)] == [("blocked", 2), ("blocked", 2)]
    with rig.database.read() as session:
        for dpo, pairs, sft in zip(*(rig.runs(jobs[name].id) for name in ("dpo", "pairs", "sft")), strict=True):
            assert set(Runs(session).needs(dpo.id)) == {pairs.id, sft.id}


def test_jobs_named_in_after_are_waited_for_too(rig):
    experiment = rig.submit_experiment(rig.spec("sft", name="late", after=["early"]), rig.spec("sft", name="early"))
    (late,) = rig.runs(rig.jobs_of(experiment)["late"].id)
    assert (late.state, late.blocked_on) == ("blocked", 1)


def test_an_evaluation_is_tabled_under_the_job_that_made_its_policy(rig):
    experiment = rig.submit_experiment(
        rig.spec("evaluation"), rig.spec("evaluation", name="named", method="m"), rig.spec("sft")
    )
    jobs = rig.jobs_of(experiment)
    assert (jobs["evaluation"].method, jobs["named"].method) == ("sft", "m")


def test_a_job_waits_for_the_unfinished_job_that_it_names_by_id(rig):
    sft = rig.submit("sft", seeds=[0, 1])
    job = rig.submit("evaluation", seeds=[1], config={"policy": encode_id("job", sft.id)})
    (run,) = rig.runs(job.id)
    assert (run.state, run.blocked_on) == ("blocked", 1)
    with rig.database.read() as session:
        assert Runs(session).needs(run.id) == [rig.runs(sft.id)[1].id]


def test_a_job_does_not_wait_for_what_has_succeeded(rig):
    sft = rig.submit()
    rig.finish(rig.started())
    (run,) = rig.runs(rig.submit("evaluation", config={"policy": encode_id("job", sft.id)}).id)
    assert (run.state, run.blocked_on) == ("queued", 0)


def test_the_only_run_of_a_job_serves_every_seed(rig):
    sft = rig.submit("sft", seeds=[0])
    job = rig.submit("evaluation", seeds=[4, 5], config={"policy": encode_id("job", sft.id)})
    assert [run.blocked_on for run in rig.runs(job.id)] == [1, 1]


def refusal(rig, kind, **fields) -> Invalid:
    with pytest.raises(Invalid) as refused:
        rig.submit(kind, **fields)
    return refused.value


def test_what_an_input_names_must_exist(rig):
    for policy in (encode_id("job", new_id()), encode_id("ckpt", new_id()), "model:absent"):
        refused = refusal(rig, "evaluation", config={"policy": policy})
        assert refused.pointer == "/config/policy", policy
    prompts = {"name": "gsm8k", "path": "data:absent.jsonl"}
    assert refusal(rig, "sft", config={"prompts": prompts}).pointer == "/config/prompts/path"


def test_an_experiment_names_the_job_whose_input_is_absent(rig):
    with pytest.raises(Invalid) as refused:
        rig.submit_experiment(rig.spec("sft"), rig.spec("evaluation", config={"policy": "model:absent"}))
    assert refused.value.pointer == "/jobs/1/config/policy"


def test_a_refused_experiment_leaves_nothing(rig):
    with pytest.raises(Invalid):
        rig.submit_experiment(rig.spec("sft"), rig.spec("evaluation", config={"policy": "model:absent"}))
    assert rig.claim() is None


def test_what_a_job_gives_must_be_what_the_stage_needs(rig):
    sft = encode_id("job", rig.submit("sft").id)
    assert refusal(rig, "dpo", config={"policy": sft, "pairs": sft}).pointer == "/config/pairs"
    with pytest.raises(Invalid) as refused:
        rig.submit_experiment(rig.spec("sft"), rig.spec("dpo", config={"pairs": "job:sft"}))
    assert refused.value.pointer == "/jobs/1/config/pairs"


def test_a_seed_that_the_named_job_lacks_is_refused(rig):
    sft = rig.submit("sft", seeds=[0, 1])
    refused = refusal(rig, "evaluation", seeds=[0, 2], config={"policy": encode_id("job", sft.id)})
    assert (refused.pointer, "seed 2" in refused.message) == ("/config/policy", True)


def test_a_job_that_failed_cannot_be_an_input(rig):
    sft = rig.submit("sft")
    rig.finish(rig.started(), Outcome.USER, "bad")
    assert "is failed" in refusal(rig, "evaluation", config={"policy": encode_id("job", sft.id)}).message


def test_names_of_an_experiment_mean_nothing_to_a_job_of_its_own(rig):
    assert refusal(rig, "evaluation").pointer == "/config/policy"
    assert refusal(rig, "sft", after=["other"]).pointer == "/after"


def test_a_seed_that_no_database_holds_is_refused(rig):
    assert refusal(rig, "sft", seeds=[0, 2**63]).pointer == "/seeds/1"
    assert rig.submit("sft", seeds=[2**63 - 1]).status == "queued"


def test_a_published_model_can_be_an_input_and_a_resumable_state_cannot(rig):
    rig.submit("sft")
    rig.finish(rig.started(), collected=Collected(models=[MODEL]))
    with rig.database.write() as session:
        (model,) = Checkpoints(session).page().rows
        state = Checkpoint(
            run_id=model.run_id, attempt=1, kind="state", step=5, path="p", manifest_sha256="0", size_bytes=0
        )
        session.add(state)
    assert rig.submit("evaluation", config={"policy": encode_id("ckpt", model.id)}).status == "queued"
    refused = refusal(rig, "evaluation", config={"policy": encode_id("ckpt", state.id)})
    assert "resumable state" in refused.message


def test_the_document_of_an_experiment_is_kept_as_json(rig):
    experiment = rig.submit_experiment(rig.spec("sft"))
    assert json.loads(json.dumps(experiment.document))["jobs"][0]["name"] == "sft"
    assert rig.runs(rig.jobs_of(experiment)["sft"].id)[0].state == RunState.QUEUED


def test_processes_are_for_runs_without_gpus_and_an_evaluation_is_one(rig):
    assert Resources(gpus=2).num_processes == Resources(processes=2).num_processes == 2
    with pytest.raises(ValueError, match="processes: with `gpus` there is one process for each"):
        Resources(gpus=2, processes=2)
    for resources in ({"gpus": 2}, {"processes": 2}):
        with pytest.raises(ValueError, match="resources: an evaluation is one process"):
            rig.submit("evaluation", resources=resources)
