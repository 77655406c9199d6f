"""What the wire shows of the service itself: benchmarks, API keys, login links."""

from datetime import datetime
from typing import Any, Literal

from api.schemas import Wire


class BenchmarkRead(Wire):
    """A benchmark that an evaluation may name."""

    object: Literal["benchmark"] = "benchmark"
    id: str
    """Its name."""
    description: str
    """Source and metric."""
    version: int
    """Grows when anything changes a number."""
    metrics: list[str]
    """What it measures, the headline first."""
    config_schema: dict[str, Any]
    """JSON Schema of its entry in `config.benchmarks`."""


class ApiKeyRead(Wire):
    """An API key, without its secret."""

    object: Literal["api_key"] = "api_key"
    id: str
    name: str
    scope: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class ApiKeyCreated(ApiKeyRead):
    """A new API key."""

    key: str
    """The key itself: shown this once; empty in a replayed reply."""


class LoginLink(Wire):
    """A link that opens one browser session, once."""

    object: Literal["login_link"] = "login_link"
    path: str
    """Path and query on this server; empty in a replayed reply."""
    expires_in_seconds: int


class WorkerRead(Wire):
    """A supervisor process and what it offers."""

    object: Literal["worker"] = "worker"
    id: str
    host: str
    pid: int
    dispatcher: str
    queues: list[str]
    labels: list[str]
    slots: int
    gpus: list[int]
    is_draining: bool
    """It finishes what it has and takes nothing."""
    is_alive: bool
    """It was seen lately."""
    started_at: datetime
    last_seen_at: datetime
