"""What a call is, and those that every kind of object has."""

import re
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from api import registry_schemas, result_schemas, schemas, service_schemas, suite_schemas
from api.alert_schemas import WebhookDeliveryRead, WebhookEndpointRead
from api.project_schemas import AuditEntryRead, ProjectRead
from api.schedule_schemas import ScheduleRead
from api.transport import ApiFailure, Call

T = TypeVar("T", bound=BaseModel)
Object = schemas.JobRead | schemas.ExperimentRead | schemas.RunRead

_KINDS: dict[str, tuple[str, type[BaseModel]]] = {
    "job": ("/v1/jobs", schemas.JobRead),
    "exp": ("/v1/experiments", schemas.ExperimentRead),
    "run": ("/v1/runs", schemas.RunRead),
    "ckpt": ("/v1/checkpoints", schemas.CheckpointRead),
    "res": ("/v1/results", result_schemas.ResultRead),
    "ds": ("/v1/datasets", service_schemas.DatasetRead),
    "prj": ("/v1/projects", ProjectRead),
    "aud": ("/v1/audit_entries", AuditEntryRead),
    "mdl": ("/v1/models", registry_schemas.ModelRead),
    "sch": ("/v1/schedules", ScheduleRead),
    "whk": ("/v1/webhook_endpoints", WebhookEndpointRead),
    "dlv": ("/v1/webhook_deliveries", WebhookDeliveryRead),
    "wrk": ("/v1/workers", service_schemas.WorkerRead),
    "suite": ("/v1/suites", suite_schemas.SuiteRead),
    "vrd": ("/v1/verdicts", suite_schemas.VerdictRead),
}
FINAL_STATES = frozenset({"succeeded", "failed", "cancelled", "quarantined"})
_ID = re.compile(r"(?P<prefix>[a-z]+)_[0-9a-z]{26}")


@dataclass(frozen=True, slots=True)
class Ask(Generic[T]):
    """A request and what its answer is."""

    call: Call
    answer: type[T]


@dataclass(frozen=True, slots=True)
class AskList(Generic[T]):
    """A list, page by page."""

    path: str
    item: type[T]
    query: dict[str, Any]
    cursor: str = ""
    """Where the list begins; empty for its start."""

    def page(self, after: str) -> Ask[schemas.Page[T]]:
        """The page after a cursor."""
        query = {**self.query, "after": after or None}
        return Ask(Call("GET", self.path, query), schemas.Page[self.item])  # type: ignore[name-defined]


def address(identifier: str) -> tuple[str, type[BaseModel]]:
    """Path and type of the object with an id.

    Raises:
        ApiFailure: this is no id.
    """
    match = _ID.fullmatch(identifier)
    if match is None or match["prefix"] not in _KINDS:
        raise ApiFailure(
            0, "no-id", f"{identifier[:64]!r} is no id: it looks like job_..., exp_..., run_... or ckpt_..."
        )
    path, answer = _KINDS[match["prefix"]]
    return f"{path}/{identifier}", answer


def get(identifier: str, expected: type[T]) -> Ask[T]:
    """One object.

    Raises:
        ApiFailure: the id is of another kind of object.
    """
    path, answer = address(identifier)
    if not issubclass(answer, expected):
        raise ApiFailure(0, "no-id", f"{identifier} is the id of another kind of object")
    return Ask(Call("GET", path), answer)


def listing(path: str, item: type[T], filters: dict[str, Any], limit: int = 100) -> AskList[T]:
    """Objects of one kind; filters that are None are left out."""
    return AskList(path, item, {"limit": limit, **{k: v for k, v in filters.items() if v is not None}})


def whole(path: str, item: type[T]) -> AskList[T]:
    """A short list that comes on one page, and takes no parameter."""
    return AskList(path, item, {})


def is_final(found: Any) -> bool:
    """Whether a job, an experiment or a run has come to its end."""
    return getattr(found, "status", None) in FINAL_STATES or getattr(found, "state", None) in FINAL_STATES


def is_outage(error: ApiFailure) -> bool:
    """Whether a failure may pass by itself: no connection, or a server that is starting, stopping or overloaded."""
    return error.code == "unreachable" or error.status in (429, 502, 503, 504)
