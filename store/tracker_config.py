"""Trackers that people have already, as `LCO_TRACKERS` names them: `tensorboard:DIR,mlflow:URI,wandb:PROJECT`."""

import importlib.util
from dataclasses import dataclass
from typing import Literal, cast, get_args

TrackerKind = Literal["tensorboard", "mlflow", "wandb"]


@dataclass(frozen=True, slots=True)
class TrackerConfig:
    """One tracker that metrics are mirrored to."""

    kind: TrackerKind
    target: str
    """A directory, MLflow's tracking URI, or a project of Weights & Biases (`ENTITY/PROJECT` or `PROJECT`)."""

    @property
    def name(self) -> str:
        """As it stands in the settings."""
        return f"{self.kind}:{self.target}"


def tracker_configs(text: str) -> tuple[TrackerConfig, ...]:
    """The trackers in a setting, in their order.

    Raises:
        ValueError: an entry has another form, or stands twice.
    """
    found: list[TrackerConfig] = []
    for number, entry in enumerate((part.strip() for part in text.split(",") if part.strip()), start=1):
        kind, colon, target = entry.partition(":")
        if kind not in get_args(TrackerKind) or not colon or not target.strip():
            raise ValueError(f"LCO_TRACKERS: entry {number} is not tensorboard:DIR, mlflow:URI or wandb:PROJECT")
        config = TrackerConfig(cast(TrackerKind, kind), target.strip())
        if config in found:
            raise ValueError(f"LCO_TRACKERS: entry {number} stands twice")
        found.append(config)
    return tuple(found)


def missing_package(config: TrackerConfig) -> str:
    """What to install for a tracker, in a sentence; empty where its package is there."""
    if importlib.util.find_spec(config.kind) is not None:
        return ""
    return f"LCO_TRACKERS names {config.kind}, which is not installed: pip install 'lco-platform[{config.kind}]'"
