"""Texts of the wire that take one of a few values: closed in the OpenAPI document, plain text in the client.

A client of an older version thus still reads an object whose state it does not know.
"""

from collections.abc import Iterable
from typing import Annotated, Any, get_args

from pydantic.json_schema import WithJsonSchema

from store.specs import JobSpec
from store.states import Desired, Outcome, RunState


def _one_of(values: Iterable[str]) -> Any:
    return WithJsonSchema({"type": "string", "enum": list(values)})


KINDS = tuple(get_args(spec.model_fields["kind"].annotation)[0] for spec in get_args(get_args(JobSpec)[0]))
"""Every kind of job."""
STATUSES = ("queued", "running", "paused", "succeeded", "failed", "cancelled")
"""Every status of a job, and of an experiment."""

JobKind = Annotated[str, _one_of(KINDS)]
Status = Annotated[str, _one_of(STATUSES)]
State = Annotated[str, _one_of(RunState)]
Wish = Annotated[str, _one_of(Desired)]
AttemptOutcome = Annotated[str, _one_of(Outcome)]
Dispatcher = Annotated[str, _one_of(("local", "celery"))]
CheckpointKind = Annotated[str, _one_of(("state", "model"))]
KeyScope = Annotated[str, _one_of(("read", "write", "admin"))]
Level = Annotated[str, _one_of(("info", "warning", "error"))]
