"""Every table, imported so that `Base.metadata` is whole (migrations, tests)."""

from store.models.access import ApiKey, IdempotencyKey, Session
from store.models.base import Base
from store.models.dataset import Alias, Dataset
from store.models.job import Experiment, Job
from store.models.mirror import Mirror
from store.models.project import Project
from store.models.record import Checkpoint, Completion, Configuration, Event, LogChunk, Metric, Result
from store.models.run import Attempt, Run, RunDependency
from store.models.signal import Signal
from store.models.worker import Worker

__all__ = [
    "Alias",
    "ApiKey",
    "Attempt",
    "Base",
    "Checkpoint",
    "Completion",
    "Configuration",
    "Dataset",
    "Event",
    "Experiment",
    "IdempotencyKey",
    "Job",
    "LogChunk",
    "Metric",
    "Mirror",
    "Project",
    "Result",
    "Run",
    "RunDependency",
    "Session",
    "Signal",
    "Worker",
]
