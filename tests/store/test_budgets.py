"""Budgets: what runs spend, and what ends when it is spent."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from lco.config import Config
from store import control
from store.artifacts import resolved_config
from store.budgets import enforce, priced_endpoints, spent_by_runs
from store.database import utc_now
from store.errors import Conflict, Invalid
from store.models.run import Attempt
from store.queue import Claim, append_metrics, guard
from store.rows import Collected, CompletionRow, ResultRow
from store.settings import Settings
from store.sources import spec_of
from store.specs import ExperimentSpec
from store.states import Desired, Outcome, RunState
from store.submission import submit_experiment
from tests.store.conftest import Rig

TRAIN: dict[str, Any] = {
    "policy": "job:sft",
    "prompts": {"name": "sums"},
    "algorithm": {"name": "grpo"},
    "prompts_per_iteration": 10,
    "group_size": 2,
}
ENDPOINT: dict[str, Any] = {
    "api": "openai",
    "base_url": "http://127.0.0.1:9/v1",
    "model": "judge",
    "prices": {"input_per_million": 2.0},
}
JUDGED = {"name": "alpaca-eval-2", "reference": "data:b.json", "judge": {"endpoint": ENDPOINT}}


def check(rig: Rig) -> int:
    """Runs that a round of the reconciler ends."""
    with rig.database.write() as session:
        return len(enforce(session))


def age(rig: Rig, taken: Claim, seconds: float) -> None:
    """Makes an attempt as old as it would be after some time."""
    with rig.database.write() as session:
        session.execute(
            update(Attempt)
            .where(Attempt.run_id == taken.run_id, Attempt.n == taken.attempt)
            .values(started_at=utc_now() - timedelta(seconds=seconds))
        )


def submitted(rig: Rig, *jobs: Any, **more: Any) -> dict[str, Any]:
    """Submits an experiment; its jobs by name."""
    document = rig.experiment_spec(*jobs).model_dump(mode="json", exclude={"jobs": {"__all__": {"config": {"seed"}}}})
    spec = ExperimentSpec.model_validate(document | more, strict=False)
    with rig.database.write() as session:
        experiment = submit_experiment(session, spec, rig.settings)
    return {"experiment": experiment, **rig.jobs_of(experiment)}


def test_a_run_over_its_wall_time_stops_at_a_checkpoint_and_fails_with_its_reason(rig: Rig) -> None:
    job = rig.submit(budget={"wall_seconds": 100})
    taken = rig.started()
    assert check(rig) == 0
    age(rig, taken, 101)
    assert (check(rig), check(rig)) == (1, 0)  # a second reconciler finds nothing to do
    (run,) = rig.runs(job.id)
    assert (run.state, run.desired) == (RunState.STOPPING, Desired.PAUSE)
    with rig.database.write() as session:
        assert guard(session, taken) is Desired.PAUSE  # what makes its worker ask it to stop
    rig.finish(taken, Outcome.STOPPED, "stopped on request")
    (run,) = rig.runs(job.id)
    assert (run.state, run.error_code) == (RunState.FAILED, "budget_exceeded")
    assert run.error_message.startswith("the run's budget is spent: 101")
    assert run.error_message.endswith("of 100 s of wall time")


def test_wall_time_adds_up_over_attempts_without_the_waiting_between_them(rig: Rig) -> None:
    job = rig.submit(budget={"wall_seconds": 100})
    first = rig.started()
    age(rig, first, 60)
    rig.finish(first, Outcome.STOPPED)
    second = rig.started()
    age(rig, second, 30)
    with rig.database.read() as session:
        spent = spent_by_runs(session, [taken.run_id for taken in (first,)])[first.run_id]
    assert spent.wall_seconds == pytest.approx(90, abs=5)
    assert check(rig) == 0
    age(rig, second, 45)
    assert check(rig) == 1
    assert rig.runs(job.id)[0].state == RunState.STOPPING


def test_a_run_that_ends_well_in_time_is_not_failed_for_a_budget_it_just_passed(rig: Rig) -> None:
    job = rig.submit(budget={"wall_seconds": 100})
    taken = rig.started()
    age(rig, taken, 101)
    assert check(rig) == 1
    rig.finish(taken)
    assert rig.runs(job.id)[0].state == RunState.SUCCEEDED


def test_tokens_are_those_generated_and_those_trained_on_and_a_step_counts_once(rig: Rig) -> None:
    found = submitted(rig, rig.spec("sft"), rig.spec("train", config=TRAIN, budget={"tokens": 500}))
    rig.finish(rig.started())
    taken = rig.started()
    rows = [(1, {"train/num_tokens": 100.0, "train/completion_tokens": 5.0}), (2, {"train/num_tokens": 100.0})]
    for _ in range(2):  # a resumed attempt writes a step again
        with rig.database.write() as session:
            append_metrics(session, taken, rows)
    with rig.database.read() as session:
        assert spent_by_runs(session, [taken.run_id])[taken.run_id].tokens == 200 + 5 * 20
    assert check(rig) == 0
    with rig.database.write() as session:
        append_metrics(session, taken, [(3, {"train/num_tokens": 200.0})])
    assert check(rig) == 1
    assert rig.runs(found["train"].id)[0].stop_reason == "the run's budget is spent: 500 of 500 tokens"


def test_an_experiments_budget_is_shared_and_what_waits_is_not_started(rig: Rig) -> None:
    jobs = [rig.spec("sft", name=name) for name in ("one", "two", "three")]
    later = rig.spec("evaluation", name="later", config={"policy": "job:three"})
    found = submitted(rig, *jobs, later, budget={"wall_seconds": 100})
    first = rig.started()
    age(rig, first, 70)
    rig.finish(first)
    second = rig.started()
    age(rig, second, 40)
    assert rig.claim() is None  # refused at once, not only by the next round of repairs
    assert check(rig) >= 2  # the one that waits for another may be cancelled with it
    states = {name: rig.runs(job.id)[0] for name, job in found.items() if name != "experiment"}
    assert {name: run.state for name, run in states.items()} == {
        "one": RunState.SUCCEEDED,
        "two": RunState.STOPPING,
        "three": RunState.CANCELLED,
        "later": RunState.CANCELLED,
    }
    assert states["three"].status_reason.startswith("the experiment's budget is spent: 110")
    assert states["three"].error_code == "budget_exceeded"


def test_a_run_whose_budget_is_spent_cannot_be_resumed(rig: Rig) -> None:
    job = rig.submit(budget={"wall_seconds": 100})
    taken = rig.started()
    age(rig, taken, 101)
    check(rig)
    (run,) = rig.runs(job.id)
    with pytest.raises(Conflict, match="budget is spent"), rig.database.write() as session:
        control.resume(session, run.id)


def test_what_judges_cost_is_counted_and_completions_are_tokens(rig: Rig) -> None:
    found = submitted(rig, rig.spec("sft"), rig.spec("evaluation"))
    rig.finish(rig.started())
    taken = rig.started()
    rows = [
        ResultRow(benchmark="x", metric=metric, decoding="t1.0", eval_seed=0, value=value, num_examples=1)
        for metric, value in (("judge_price", 1.25), ("win_rate", 40.0))
    ]
    completion = CompletionRow(
        benchmark="x", example_id="1", decoding="t1.0", eval_seed=0, prompt="", completion="", reference="",
        extracted=None, verdict="scored", correct=None, truncated=False, num_tokens=77,
    )  # fmt: skip
    rig.finish(taken, collected=Collected(results=rows, completions=[completion]))
    with rig.database.read() as session:
        spent = spent_by_runs(session, [taken.run_id])[taken.run_id]
    assert (spent.judge_usd, spent.tokens) == (1.25, 77)
    assert found["evaluation"].budget is None


def endpoint_settings(rig: Rig) -> Settings:
    """Settings that allow the endpoint, with the file that its benchmark reads."""
    rig.settings.data.mkdir(parents=True, exist_ok=True)
    (rig.settings.data / "b.json").write_text("[]")
    return rig.settings.model_copy(update={"endpoints": "http://127.0.0.1:9"})


def test_an_experiments_money_is_shared_out_over_the_runs_that_ask_for_it(sqlite_rig: Rig) -> None:
    rig = sqlite_rig
    rig.settings = endpoint_settings(rig)
    policy = {"endpoint": ENDPOINT | {"prices": {}}}
    judged = [
        rig.spec("evaluation", name=name, seeds=[0, 1], config={"policy": policy, "benchmarks": [JUDGED]})
        for name in ("first", "second")
    ]
    submitted(rig, *judged, budget={"judge_usd": 10.0})
    taken = rig.started()
    with rig.database.read() as session:
        document = resolved_config(session, rig.settings, taken)
    assert document["benchmarks"][0]["judge"]["endpoint"]["spending_cap"] == 2.5
    assert document["policy"]["endpoint"]["spending_cap"] == 0.0  # it asks nothing
    config: Config = spec_of(taken.spec).config
    assert priced_endpoints(config) == [(("benchmarks", "0", "judge", "endpoint"), 0.0)]


def test_a_budget_for_judges_needs_prices(sqlite_rig: Rig) -> None:
    with pytest.raises(Invalid) as wrong:
        sqlite_rig.submit(budget={"judge_usd": 1.0})
    assert wrong.value.pointer == "/budget/judge_usd"


def test_a_budget_that_limits_nothing_is_refused(sqlite_rig: Rig) -> None:
    with pytest.raises(ValueError, match="wall_seconds, tokens or judge_usd"):
        sqlite_rig.spec(budget={})
