"""MLflow: a run below an experiment, through its tracking API. A point sent twice is one point there."""

import os
import re

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from worker.trackers.base import Card, Points

# Read when a request is made: a server that is away is tried again by the mirror, not for minutes inside one call.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

_MAX_METRICS = 500
_MAX_PARAMS = 90
_MAX_TEXT = 500
_FOREIGN = re.compile(r"[^\w\-. :/]", re.ASCII)
_RUN_TAG = "lco.run"


class Mlflow:
    """Sends batches to a tracking server or store."""

    def __init__(self, target: str) -> None:
        self._client = MlflowClient(tracking_uri=target)
        self._experiments: dict[str, str] = {}

    def write(self, card: Card, points: Points, external_id: str, first_step: int) -> str:
        """Adds points to the run. Their times follow from their steps, so that MLflow knows a repeated one again."""
        run_id = external_id or self._begin(card)
        metrics = [
            Metric(_name(key), value, card.created_at_ms + step, step)
            for step, values in points
            for key, value in values.items()
        ]
        for start in range(0, len(metrics), _MAX_METRICS):
            self._client.log_batch(run_id, metrics=metrics[start : start + _MAX_METRICS])
        return run_id

    def _begin(self, card: Card) -> str:
        """The run, made with its parameters and tags; the one of a try that ended halfway, where there is one."""
        experiment_id = self._experiment(card.group)
        earlier = self._client.search_runs([experiment_id], f"tags.`{_RUN_TAG}` = '{card.id}'", max_results=1)
        if earlier:
            run_id = str(earlier[0].info.run_id)
        else:
            tags = {_RUN_TAG: card.id, **{f"lco.{name}": value for name, value in card.tags.items()}}
            run = self._client.create_run(experiment_id, start_time=card.created_at_ms, tags=tags, run_name=card.name)
            run_id = str(run.info.run_id)
        params = [Param(_name(name), str(value)[:_MAX_TEXT]) for name, value in card.config.items()]
        for start in range(0, len(params), _MAX_PARAMS):
            self._client.log_batch(run_id, params=params[start : start + _MAX_PARAMS])
        return run_id

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            found = self._client.get_experiment_by_name(name)
            self._experiments[name] = found.experiment_id if found else self._client.create_experiment(name)
        return self._experiments[name]

    def end(self, card: Card, external_id: str, *, succeeded: bool) -> None:
        """Marks the run as finished or failed."""
        self._client.set_terminated(external_id, "FINISHED" if succeeded else "FAILED")

    def close(self) -> None:
        """Nothing is held."""


def _name(text: str) -> str:
    """A metric's or parameter's name in the characters that MLflow takes: `pass@1` is `pass_1`."""
    return _FOREIGN.sub("_", text)[:250]
