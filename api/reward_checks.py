"""Submitted training jobs, their rewards tried on a few of their prompts before anything is written."""

import time

from lco.algorithms import TrainConfig
from store.database import Database
from store.errors import Invalid
from store.reward_trials import check_reward, prompts_to_try
from store.settings import Settings
from store.specs import ExperimentSpec, JobSpec, TrainingSpec

MAX_SECONDS = 10.0
"""After so long the jobs that are left are accepted untried; their runs try them again."""


def check_submitted(database: Database, settings: Settings, submitted: JobSpec | ExperimentSpec) -> None:
    """Refuses a job whose prompts cannot be read, or whose rule rewards no right answer.

    Raises:
        Invalid: names the field.
    """
    jobs: list[tuple[str, JobSpec]]
    if isinstance(submitted, ExperimentSpec):
        jobs = [(f"/jobs/{number}", job) for number, job in enumerate(submitted.jobs)]
    else:
        jobs = [("", submitted)]
    deadline = time.monotonic() + MAX_SECONDS
    seen = set()
    for pointer, job in jobs:
        if not isinstance(job, TrainingSpec) or time.monotonic() > deadline:
            continue
        content = (job.config.reward.model_dump_json(), job.config.prompts.model_dump_json())
        if content in seen:
            continue
        seen.add(content)
        try:
            _check(database, settings, job.config)
        except Invalid as error:
            raise Invalid(f"{pointer}/config{error.pointer}", error.message) from error


def _check(database: Database, settings: Settings, config: TrainConfig) -> None:
    with database.read() as session:
        prompts = prompts_to_try(session, settings, config)
    if prompts:
        check_reward(config, prompts)
