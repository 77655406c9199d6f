import pytest

from store.artifacts import resolved_config, run_directory
from store.ids import encode_id
from store.repositories.records import Events, Results
from store.rows import Collected, CompletionRow, ResultRow
from store.software import program_hash
from store.states import RunState

RESULT = ResultRow(benchmark="sums", metric="pass@1", decoding="t1.0", eval_seed=0, value=0.5, num_examples=2)
COMPLETION = CompletionRow(
    benchmark="sums",
    example_id="e",
    decoding="t1.0",
    eval_seed=0,
    prompt="1+1=",
    completion="2",
    reference="2",
    extracted="2",
    verdict="correct",
    correct=True,
    truncated=False,
)


def play(rig, collected=None):
    """Claims and ends every run, each leaving a published directory."""
    played = []
    while (claim := rig.claim()) is not None:
        directory = run_directory(rig.settings, claim.run_id, claim.attempt)
        (directory / "model").mkdir(parents=True)
        outputs = '{"model": "model", "pairs": "pairs.jsonl"}'
        (directory / "manifest.json").write_text(f'{{"step": 1, "outputs": {outputs}, "files": {{}}, "details": {{}}}}')
        rig.finish(claim, collected=collected if claim.kind == "evaluation" else None)
        played.append(claim)
    return played


def runs_of(rig, experiment):
    """Job name -> its only run."""
    return {name: rig.runs(job.id)[0] for name, job in rig.jobs_of(experiment).items()}


def test_submitted_again_finished_stages_are_taken_over_and_say_so(rig):
    first = rig.submit_experiment(rig.spec("sft"), rig.spec("evaluation"))
    play(rig, Collected(results=[RESULT], completions=[COMPLETION]))
    again = rig.submit_experiment(rig.spec("sft"), rig.spec("evaluation"))
    assert rig.claim() is None
    for name, run in runs_of(rig, again).items():
        original = runs_of(rig, first)[name]
        assert (run.state, run.reused_run_id, run.output_attempt) == ("succeeded", original.id, 1)
        assert encode_id("run", original.id) in run.status_reason
    assert rig.jobs_of(again)["sft"].status == "succeeded"
    with rig.database.read() as session:
        events = Events(session).page(rig.jobs_of(again)["sft"].id).rows
        results = Results(session).page(10, experiment_id=again.id).rows
        completions = Results(session).completions(runs_of(rig, again)["evaluation"].id).rows
    assert any("took over the output" in event.message for event in events)
    assert [(row.value, row.train_seed, row.job_id) for row in results] == [
        (0.5, 0, rig.jobs_of(again)["evaluation"].id)
    ]
    assert [row.completion for row in completions] == ["2"]


def test_a_change_runs_what_it_touches_and_all_that_follows(rig):
    rig.submit_experiment(rig.spec("sft"), rig.spec("pairs"), rig.spec("dpo"))
    play(rig)
    changed = rig.submit_experiment(
        rig.spec("sft"), rig.spec("pairs", config={"samples_per_prompt": 4}), rig.spec("dpo")
    )
    states = {name: run.state for name, run in runs_of(rig, changed).items()}
    assert states == {"sft": "succeeded", "pairs": "queued", "dpo": "blocked"}
    (pairs,) = [claim for claim in [rig.take()] if claim.kind == "pairs"]
    with rig.database.read() as session:
        config = resolved_config(session, rig.settings, pairs)
    original = runs_of(rig, changed)["sft"].reused_run_id
    assert config["policy"] == str(run_directory(rig.settings, original, 1) / "model")


def test_other_seeds_are_other_content(rig):
    rig.submit_experiment(rig.spec("sft", seeds=[0]))
    play(rig)
    experiment = rig.submit_experiment(rig.spec("sft", seeds=[0, 1]))
    assert [run.state for run in rig.runs(rig.jobs_of(experiment)["sft"].id)] == ["succeeded", "queued"]


def test_reuse_can_be_declined_and_a_job_of_its_own_always_runs(rig):
    spec = rig.experiment_spec(rig.spec("sft"))
    rig.submit_experiment(rig.spec("sft"))
    play(rig)
    from store.submission import submit_experiment

    with rig.database.write() as session:
        declined = submit_experiment(session, spec.model_copy(update={"reuse": False}), rig.settings)
    assert runs_of(rig, declined)["sft"].state == RunState.QUEUED
    assert rig.runs(rig.submit().id)[0].state == RunState.QUEUED


def test_an_output_that_is_gone_is_made_again(sqlite_rig):
    rig = sqlite_rig
    rig.submit_experiment(rig.spec("sft"))
    (claim,) = play(rig)
    (run_directory(rig.settings, claim.run_id, 1) / "manifest.json").unlink()
    assert runs_of(rig, rig.submit_experiment(rig.spec("sft")))["sft"].state == RunState.QUEUED


def test_a_reuse_of_a_reuse_leads_to_the_run_that_ran(sqlite_rig):
    rig = sqlite_rig
    rig.submit_experiment(rig.spec("sft"))
    (claim,) = play(rig)
    for _ in range(2):
        run = runs_of(rig, rig.submit_experiment(rig.spec("sft")))["sft"]
    assert run.reused_run_id == claim.run_id


def test_another_program_is_other_content(sqlite_rig, monkeypatch):
    rig = sqlite_rig
    rig.submit_experiment(rig.spec("sft"))
    play(rig)
    monkeypatch.setattr("store.reuse.program_hash", lambda: "changed")
    assert runs_of(rig, rig.submit_experiment(rig.spec("sft")))["sft"].state == RunState.QUEUED


def test_a_changed_data_file_is_other_content(sqlite_rig):
    rig = sqlite_rig
    rig.settings.data.mkdir(parents=True)
    place = rig.settings.data / "prompts.jsonl"
    place.write_text('{"prompt": "a"}\n')
    prompts = {"prompts": {"name": "jsonl", "path": "data:prompts.jsonl"}}
    rig.submit_experiment(rig.spec("sft", config=prompts))
    play(rig)
    assert runs_of(rig, rig.submit_experiment(rig.spec("sft", config=prompts)))["sft"].state == RunState.SUCCEEDED
    place.write_text('{"prompt": "ab"}\n')
    assert runs_of(rig, rig.submit_experiment(rig.spec("sft", config=prompts)))["sft"].state == RunState.QUEUED


def test_the_program_has_one_hash():
    assert len(program_hash()) == 64


@pytest.mark.parametrize("kind", ["sft", "pairs"])
def test_a_run_knows_its_content(sqlite_rig, kind):
    experiment = sqlite_rig.submit_experiment(sqlite_rig.spec("sft"), sqlite_rig.spec("pairs"))
    assert len(runs_of(sqlite_rig, experiment)[kind].content_hash) == 64
