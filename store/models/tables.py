"""Every table, imported so that `Base.metadata` is whole (migrations, tests)."""

from store.models.access import ApiKey, IdempotencyKey, Session
from store.models.base import Base
from store.models.dataset import Alias, Dataset
from store.models.job import Experiment, Job
from store.models.project import Project
from store.models.record import Checkpoint, Completion, Configuration, Event, LogChunk, Metric, Result, Rollout
from store.models.registry import Chore, Model, Removal, Tombstone
from store.models.run import Attempt, Run, RunDependency
from store.models.search import SearchTrial
from store.models.worker import Worker

__all__ = [
    "Alias",
    "ApiKey",
    "Attempt",
    "Base",
    "Checkpoint",
    "Chore",
    "Completion",
    "Configuration",
    "Dataset",
    "Event",
    "Experiment",
    "IdempotencyKey",
    "Job",
    "LogChunk",
    "Metric",
    "Model",
    "Project",
    "Removal",
    "Result",
    "Rollout",
    "Run",
    "RunDependency",
    "SearchTrial",
    "Session",
    "Tombstone",
    "Worker",
]
