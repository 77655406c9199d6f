"""What the wire shows of projects, and of the audit log."""

from datetime import datetime
from typing import Any, Literal

from api.schemas import Wire


class QuotasRead(Wire):
    """What a project may use; null where there is no bound."""

    max_gpu_slots: int | None
    """GPUs that its live runs may hold at once."""
    max_running_runs: int | None
    """Live runs at once."""
    max_storage_bytes: int | None
    """Checkpoints and data sets together."""
    max_judge_spend: float | None
    """USD that judges may cost in a calendar month (UTC)."""


class UsageRead(Wire):
    """What a project uses now."""

    gpu_slots: int
    """GPUs that its live runs hold."""
    running_runs: int
    """Runs that a worker holds."""
    queued_runs: int
    storage_bytes: int
    """Checkpoints, and data sets without those whose rows are equal."""
    judge_spend: float
    """USD in this calendar month (UTC)."""
    judge_reserved: float
    """USD that unfinished runs may still spend by their caps."""


class ProjectRead(Wire):
    """A project: keys of one share its experiments, jobs and data, and see nothing of others."""

    object: Literal["project"] = "project"
    id: str
    name: str
    is_default: bool
    """Its admin keys manage all projects."""
    quotas: QuotasRead
    usage: UsageRead
    created_at: datetime
    archived_at: datetime | None
    """Since when nothing new is taken; null while it is in use."""


class AuditEntryRead(Wire):
    """One change that somebody made over HTTP."""

    object: Literal["audit_entry"] = "audit_entry"
    id: str
    project_id: str
    key_id: str
    """The API key, also behind a browser session."""
    key_name: str
    """The key's name then."""
    via: str
    """`bearer` or `cookie`."""
    action: str
    """The operation: `jobs.cancel`."""
    object_id: str | None
    """What it was done to."""
    details: dict[str, Any]
    """More about it, such as the quotas that were set."""
    request_id: str
    """Also in the server's log, and in the answer's `X-Request-ID`."""
    created_at: datetime
