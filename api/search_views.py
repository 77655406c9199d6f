"""From a search's rows to its wire model."""

from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from api.search_schemas import SearchRead, TrialRead
from store.errors import NotFound
from store.ids import encode_id
from store.models.job import Experiment
from store.repositories.jobs import Experiments
from store.search import TrialNow, trials_now
from store.search_spec import SearchSpec


def search_of(document: dict[str, Any]) -> SearchSpec | None:
    """The search of an experiment's document; None where it has none."""
    found = document.get("search")
    return None if found is None else SearchSpec.model_validate(found, strict=False)


def search(session: Session, experiment_id: UUID) -> SearchRead:
    """The search of an experiment.

    Raises:
        NotFound: there is no such experiment, or it searches nothing.
    """
    row: Experiment = Experiments(session).get(experiment_id)
    spec = search_of(row.document)
    if spec is None:
        raise NotFound("search of experiment", encode_id("exp", experiment_id))
    trials = [_trial(one) for one in trials_now(session, experiment_id, spec)]
    states = [trial.state for trial in trials]
    return SearchRead(
        experiment_id=encode_id("exp", experiment_id),
        method=spec.method,
        metric=spec.metric,
        goal=spec.goal,
        seed=spec.seed,
        factor=None if spec.halving is None else spec.halving.factor,
        equal_budget_over=spec.equal_budget_over,
        space={name: found.model_dump(mode="json") for name, found in spec.space.items()},
        num_running=states.count("running"),
        num_stopped=states.count("stopped"),
        num_finished=states.count("finished"),
        trials=trials,
    )


def _trial(now: TrialNow) -> TrialRead:
    trial = now.trial
    return TrialRead(
        trial=trial.name,
        job_id=encode_id("job", trial.job_id),
        job=now.job.name,
        arm=trial.arm,
        parameters=trial.parameters,
        state=trial.state,
        rung=trial.rung + 1,
        num_rungs=len(trial.steps),
        steps=trial.steps,
        values=trial.values,
        value=now.value,
        is_best=now.is_best,
        reason=trial.reason,
    )
