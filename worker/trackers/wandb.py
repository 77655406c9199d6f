"""Weights & Biases. A run has our id there, so that it is resumed, and steps that it has are not taken twice.

`WANDB_MODE=offline` keeps everything in files for `wandb sync`; WANDB_API_KEY, WANDB_BASE_URL and WANDB_DIR as usual.
"""

from typing import Any

import wandb

from worker.trackers.base import Card, Points

_SETTINGS = {"silent": True, "console": "off", "disable_git": True, "disable_code": True, "x_disable_stats": True}


class WeightsAndBiases:
    """Holds a run of W&B open for each of ours that goes on."""

    def __init__(self, target: str) -> None:
        self._entity, _, self._project = target.rpartition("/")
        self._runs: dict[str, Any] = {}

    def write(self, card: Card, points: Points, external_id: str, first_step: int) -> str:
        """Adds points to the run."""
        run = self._runs.get(card.id)
        if run is None:
            run = self._runs[card.id] = wandb.init(
                entity=self._entity or None,
                project=self._project,
                id=card.id,
                name=card.name,
                group=card.group[:128],
                job_type=card.tags.get("kind"),
                config={**card.config, "lco": dict(card.tags)},
                tags=[f"{name}:{value}"[:64] for name, value in card.tags.items() if value],
                resume="allow",
                reinit="create_new",
                settings=wandb.Settings(**_SETTINGS),
            )
        for step, values in points:
            run.log(dict(values), step=step)
        return card.id

    def end(self, card: Card, external_id: str, *, succeeded: bool) -> None:
        """Sends what is left, and marks the run as finished or failed."""
        run = self._runs.pop(card.id, None)
        if run is not None:
            run.finish(exit_code=0 if succeeded else 1)

    def close(self) -> None:
        """Sends what is left of every run."""
        while self._runs:
            self._runs.popitem()[1].finish()
