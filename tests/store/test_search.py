"""Searches: what is drawn, who goes on, who is stopped, and what is refused."""

import json
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import select

from api.bodies import experiment_of
from store import control
from store.errors import Conflict, Invalid
from store.models.job import Experiment, Job
from store.models.search import SearchTrial
from store.queue import Claim, append_metrics
from store.repositories.jobs import Experiments
from store.search import advance_searches, trials_now
from store.search_spec import SearchSpec, rung_steps, trials_of
from store.states import Outcome, RunState
from store.submission import submit_experiment
from tests.store.conftest import Rig

VALIDATION = {"prompts": {"name": "sums", "split": "validation"}, "every_steps": 2}
DOCUMENT: dict[str, Any] = {
    "name": "search",
    "seeds": [0, 1],
    "search": {
        "trials": 6,
        "space": {"rate": {"log_uniform": [1e-4, 1e-2]}, "size": {"choice": [8, 16]}},
        "halving": {"factor": 2, "min_iterations": 2},
    },
    "jobs": [
        {
            "kind": "sft",
            "each": ["trial"],
            "name": "sft-{trial.name}",
            "config": {
                "policy": {"name": "llama"},
                "prompts": {"name": "sums"},
                "steps": 8,
                "batch_size": "{trial.size}",
                "optimizer": {"learning_rate": "{trial.rate}"},
                "validation": VALIDATION,
            },
        },
        {
            "kind": "evaluation",
            "each": ["trial"],
            "name": "eval-{trial.name}",
            "config": {"policy": "job:sft-{trial.name}", "benchmarks": [{"name": "sums"}]},
        },
    ],
}


def changed(**changes: Any) -> dict[str, Any]:
    """The document with some fields of its search replaced."""
    document: dict[str, Any] = json.loads(json.dumps(DOCUMENT))
    document["search"] |= changes
    return document


class Race:
    """A submitted search, and hands that play its workers."""

    def __init__(self, rig: Rig, document: dict[str, Any] = DOCUMENT) -> None:
        self.rig = rig
        submitted = experiment_of(document)
        self.search = submitted.spec.search
        with rig.database.write() as session:
            self.id = submit_experiment(session, submitted.spec, rig.settings, document=document).id

    def reach(self, values: dict[str, float | None], *, is_end: bool = False) -> dict[str, int | None]:
        """Every run of some jobs comes to the end of its rung, or fails where the value is None."""
        pauses = {}
        for _ in range(2 * len(values)):
            taken = self.rig.started()
            pauses[taken.job_name] = taken.pause_at_step
            self.end(taken, values[taken.job_name], is_end=is_end)
        assert self.rig.claim() is None
        return pauses

    def end(self, taken: Claim, value: float | None, *, is_end: bool) -> None:
        if value is None:
            self.rig.finish(taken, Outcome.NON_FINITE)
            return
        step = taken.pause_at_step or 8
        with self.rig.database.write() as session:
            append_metrics(session, taken, [(step, {"eval/accuracy": value + 0.01 * taken.seed})])
        self.rig.finish(taken, Outcome.SUCCEEDED if is_end else Outcome.BOUNDARY)

    def advance(self) -> int:
        with self.rig.database.write() as session:
            return advance_searches(session)

    def trials(self) -> dict[str, SearchTrial]:
        with self.rig.database.read() as session:
            rows = session.scalars(select(SearchTrial).where(SearchTrial.experiment_id == self.id))
            return {row.name: row for row in rows}

    def states(self, prefix: str) -> dict[str, set[str]]:
        with self.rig.database.read() as session:
            experiment = session.get_one(Experiment, self.id)
        jobs = self.rig.jobs_of(experiment)
        return {
            name.rpartition("-")[2]: {run.state for run in self.rig.runs(job.id)}
            for name, job in jobs.items()
            if name.startswith(prefix)
        }


def test_halving_lets_the_better_half_go_on_from_where_they_are_and_stops_the_others_with_a_reason(rig: Rig) -> None:
    race = Race(rig)
    accuracies = {"t00": 0.1, "t01": 0.6, "t02": 0.3, "t03": 0.6, "t04": None, "t05": 0.2}
    assert race.advance() == 0
    pauses = race.reach({f"sft-{name}": value for name, value in accuracies.items()})
    assert set(pauses.values()) == {2}
    assert (race.advance(), race.advance()) == (6, 0)  # whoever comes second finds nothing to decide
    found = race.trials()
    assert {name: trial.state for name, trial in found.items()} == {
        **dict.fromkeys(("t01", "t02", "t03"), "running"),
        **dict.fromkeys(("t00", "t04", "t05"), "stopped"),
    }
    assert found["t05"].reason == ("stopped by the search after step 2: eval/accuracy 0.205, place 4 of 6, 3 went on")
    assert found["t04"].values == [None]
    assert race.states("sft")["t01"] == {RunState.QUEUED}
    assert race.states("sft")["t05"] == {RunState.CANCELLED}
    assert race.states("sft")["t04"] == {RunState.FAILED}
    assert race.states("eval")["t05"] == {RunState.CANCELLED}  # there is nothing to evaluate
    assert race.states("eval")["t01"] == {RunState.BLOCKED}
    pauses = race.reach({"sft-t01": 0.7, "sft-t02": 0.9, "sft-t03": 0.8})
    assert set(pauses.values()) == {4}
    assert race.advance() == 3
    assert [name for name, trial in race.trials().items() if trial.state == "running"] == ["t02"]


def test_the_winner_runs_to_its_own_end_and_is_the_best(rig: Rig) -> None:
    race = Race(rig, changed(trials=2))
    race.reach({"sft-t00": 0.5, "sft-t01": 0.4})
    race.advance()
    (name,) = [name for name, trial in race.trials().items() if trial.state == "running"]
    assert name == "t00"
    for expected in (4, None):
        for _ in range(2):
            taken = rig.started()
            assert (taken.job_name, taken.pause_at_step, taken.attempt > 1) == ("sft-t00", expected, True)
            race.end(taken, 0.8, is_end=expected is None)
        race.advance()
    assert race.trials()["t00"].state == "finished"
    assert race.trials()["t00"].values == pytest.approx([0.505, 0.805, 0.805])
    assert race.search is not None
    with rig.database.read() as session:
        now = trials_now(session, race.id, race.search)
    assert [(one.trial.name, one.is_best) for one in now] == [("t00", True), ("t01", False)]
    assert race.states("eval")["t00"] == {RunState.QUEUED}
    for _ in range(2):
        rig.finish(rig.started())
    with rig.database.read() as session:
        assert Experiments(session).statuses([race.id]) == {race.id: "succeeded"}


def test_nothing_is_decided_while_a_trial_is_under_way_and_nobody_can_push_one_past_its_rung(rig: Rig) -> None:
    race = Race(rig, changed(trials=2))
    taken = rig.started()
    race.end(taken, 0.5, is_end=False)
    assert race.advance() == 0
    with pytest.raises(Conflict, match="waits for its search"), rig.database.write() as session:
        control.resume(session, taken.run_id)
    assert rig.run(taken.run_id).is_held


def test_less_is_better_where_the_goal_says_so(rig: Rig) -> None:
    race = Race(rig, changed(trials=2, goal="min"))
    race.reach({"sft-t00": 0.5, "sft-t01": 0.4})
    race.advance()
    assert race.trials()["t00"].state == "stopped"


def test_an_equal_budget_over_methods_lets_each_keep_its_best(rig: Rig) -> None:
    document = changed(trials=2, equal_budget_over="kind")
    document["axes"] = {"kind": ["a", "b"]}
    for job in document["jobs"]:
        job["each"] = ["kind", "trial"]
        job["name"] = job["name"].replace("-", "-{kind}-", 1)
    document["jobs"][1]["config"]["policy"] = "job:sft-{kind}-{trial.name}"
    race = Race(rig, document)
    race.reach({"sft-a-t00": 0.9, "sft-a-t01": 0.8, "sft-b-t00": 0.1, "sft-b-t01": 0.2})
    assert race.advance() == 4
    with rig.database.read() as session:
        rows = session.execute(select(Job.name, SearchTrial.state).join(Job, Job.id == SearchTrial.job_id)).all()
    assert {name for name, state in rows if state == "running"} == {"sft-a-t00", "sft-b-t01"}


def test_draws_are_the_same_again_lie_in_their_ranges_and_differ(sqlite_rig: Rig) -> None:
    space = {
        "beta": {"log_uniform": [0.01, 1.0]},
        "size": {"int_uniform": [4, 64]},
        "share": {"uniform": [0.0, 0.5]},
        "loss": {"choice": ["a", {"name": "b"}]},
    }
    search = SearchSpec.model_validate({"trials": 40, "space": space}, strict=False)
    drawn = trials_of(search)
    assert drawn == trials_of(search)
    assert len({json.dumps(point, sort_keys=True) for point in drawn}) == 40
    assert all(0.01 <= point["beta"] <= 1 and 4 <= point["size"] <= 64 and point["share"] <= 0.5 for point in drawn)
    assert 12 < sum(point["beta"] < 0.1 for point in drawn) < 28  # as many below the middle factor as above
    fewer = SearchSpec.model_validate({"trials": 40, "space": {"beta": space["beta"]}}, strict=False)
    assert [point["beta"] for point in trials_of(fewer)] == [point["beta"] for point in drawn]
    with pytest.raises(ValueError, match="fewer than 3"):
        trials_of(SearchSpec.model_validate({"trials": 3, "space": {"x": {"choice": [1, 2]}}}, strict=False))


def test_a_grid_takes_every_combination() -> None:
    document = changed(method="grid", space={"rate": {"choice": [1e-3, 1e-2]}, "size": {"choice": [8, 16, 32]}})
    del document["search"]["trials"]
    spec = experiment_of(document).spec
    assert len(spec.jobs) == 12
    assert spec.search is not None
    assert spec.search.members[5].parameters == {"rate": 1e-2, "size": 32}
    assert rung_steps(spec.search, spec.jobs[0].config) == [2, 4, 8]


@pytest.mark.parametrize(
    ("change", "pointer", "message"),
    [
        ({"metric": "pass@1"}, "/search", "never choose by what you report"),
        ({"metric": "eval/math-500/pass@1"}, "/search", "none that a training run reports"),
        ({"trials": None}, "/search", "a random search needs their number"),
        ({"space": {"rate": {"log_uniform": [0.0, 1.0]}}}, "/search/space/rate", "two positive numbers"),
        ({"space": {"rate": {"uniforn": [0.0, 1.0]}}}, "/search/space/rate", "this is one of choice"),
        ({"members": []}, "/search/members", "the expansion writes these"),
        ({"halving": {"min_iterations": 9}}, "/search/halving/min_iterations", "end before the first rung"),
        (
            {"halving": {"min_iterations": 3}},
            "/jobs/0/config/validation/every_steps",
            "is measured after step 3",
        ),
        ({"equal_budget_over": "kind"}, "/search/equal_budget_over", "not over this axis"),
        ({"job": "other"}, "/search/job", "no template of this name"),
    ],
)
def test_a_search_that_cannot_be_is_refused_at_its_place(change: dict[str, Any], pointer: str, message: str) -> None:
    with pytest.raises(Invalid) as wrong:
        experiment_of(changed(**change))
    assert wrong.value.pointer == pointer
    assert message in wrong.value.message


@pytest.mark.parametrize(
    ("validation", "pointer", "message"),
    [
        ({"prompts": {"name": "sums", "split": "test"}}, "/prompts/split", "never choose by the test split"),
        ({"prompts": {"name": "gsm8k", "path": "data:gsm8k/test.jsonl"}}, "/prompts/path", "never choose by a test"),
        ({"prompts": {"name": "gsm8k", "path": "data:gsm8k/dev.jsonl"}}, "/prompts/path", "jobs.eval-t00 reports on"),
        (None, "", "say on which problems"),
    ],
)
def test_nothing_is_chosen_by_what_is_reported(validation: dict[str, Any] | None, pointer: str, message: str) -> None:
    document = changed()
    document["jobs"][0]["config"]["validation"] = validation and {"every_steps": 2} | validation
    gsm8k = {"name": "gsm8k", "problems": {"path": "data:gsm8k/dev.jsonl"}}
    document["jobs"][1]["config"]["benchmarks"] = [gsm8k]
    with pytest.raises(Invalid) as wrong:
        experiment_of(document)
    assert wrong.value.pointer == f"/jobs/0/config/validation{pointer}"
    assert message in wrong.value.message


def test_a_searched_value_is_an_axis_and_must_be_used() -> None:
    document = changed()
    document["jobs"] = [json.loads(json.dumps(DOCUMENT["jobs"][0]))]
    document["jobs"][0] |= {"each": [], "name": "sft"}
    document["jobs"][0]["config"] |= {"batch_size": 8, "optimizer": {}}
    with pytest.raises(Invalid, match="no job names this axis in its `each`: trial"):
        experiment_of(document)
    with pytest.raises(ValidationError):
        SearchSpec.model_validate({"method": "grid", "space": {"x": {"uniform": [0.0, 1.0]}}}, strict=False)
