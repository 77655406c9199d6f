"""Every table, imported so that `Base.metadata` is whole (migrations, tests)."""

from store.models.access import ApiKey, IdempotencyKey, Session
from store.models.base import Base
from store.models.dataset import Alias, Dataset
from store.models.job import Experiment, Job
from store.models.mirror import Mirror
from store.models.notification import Delivery, DeliveryTry, Notification, WebhookEndpoint
from store.models.project import AuditEntry, Project, Spending
from store.models.record import Checkpoint, Completion, Configuration, Event, LogChunk, Metric, Result, Rollout
from store.models.registry import Chore, Model, Removal, Tombstone
from store.models.run import Attempt, Run, RunDependency
from store.models.schedule import Schedule, ScheduleFire
from store.models.search import SearchTrial
from store.models.signal import Signal
from store.models.suite import Suite, SuiteEvaluation, SuiteVersion, Verdict
from store.models.worker import Worker

__all__ = [
    "Alias",
    "ApiKey",
    "Attempt",
    "AuditEntry",
    "Base",
    "Checkpoint",
    "Chore",
    "Completion",
    "Configuration",
    "Dataset",
    "Delivery",
    "DeliveryTry",
    "Event",
    "Experiment",
    "IdempotencyKey",
    "Job",
    "LogChunk",
    "Metric",
    "Mirror",
    "Model",
    "Notification",
    "Project",
    "Removal",
    "Result",
    "Rollout",
    "Run",
    "RunDependency",
    "Schedule",
    "ScheduleFire",
    "SearchTrial",
    "Session",
    "Signal",
    "Spending",
    "Suite",
    "SuiteEvaluation",
    "SuiteVersion",
    "Tombstone",
    "Verdict",
    "WebhookEndpoint",
    "Worker",
]
