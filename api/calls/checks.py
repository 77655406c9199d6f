"""Calls that try documents out."""

from typing import Any

from api.calls.base import Ask
from api.check_schemas import CheckRead
from api.transport import Call, body_of


def check_experiment(spec: Any) -> Ask[CheckRead]:
    """What a document would make."""
    return Ask(Call("POST", "/v1/experiments/check", content=body_of(spec)), CheckRead)


def check_clone(identifier: str, patch: dict[str, Any]) -> Ask[CheckRead]:
    """What a changed copy would make, and what differs."""
    return Ask(Call("POST", f"/v1/experiments/{identifier}/clone/check", content=body_of(patch)), CheckRead)
