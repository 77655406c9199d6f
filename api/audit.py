"""The audit trail of a request: who changes what, added to the transaction of the change.

The database that a request is given writes it (`store.database.Database.confined`), so no route can forget to. A
request leaves one entry at most; one that fails, or is the replay of an earlier one, leaves none.
"""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from fastapi import Request
from pydantic import BaseModel
from sqlalchemy.orm import Session

from api.auth import Principal
from store.repositories.audit import Audit, Change

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_TELLING = ("name", "kind", "scope")
"""Fields of an object that its entry repeats, where it has them."""


@dataclass(slots=True)
class Trail:
    """What will stand in the audit log about one request."""

    principal: Principal
    action: str
    """The operation."""
    request_id: str
    object_id: str | None
    """Of the path; of a new object once there is one."""
    project_id: UUID
    """Where the entry is read: the caller's project, unless the object is another one's."""
    details: dict[str, Any] = field(default_factory=dict)
    is_over: bool = False
    """Nothing more is written."""

    def tell(self, body: BaseModel) -> None:
        """Takes the object that the request leads to."""
        self.object_id = getattr(body, "id", None) or self.object_id
        told = {name: getattr(body, name) for name in _TELLING if hasattr(body, name)}
        self.details = told | self.details

    def __call__(self, session: Session) -> None:
        """Adds the entry, before the commit."""
        if self.is_over:
            return
        self.is_over = True
        change = Change(
            api_key_id=self.principal.key_id,
            key_name=self.principal.name,
            via=self.principal.via,
            action=self.action,
            object_id=self.object_id,
            request_id=self.request_id,
            details=self.details,
        )
        Audit(session).add(change, self.project_id)


def trail_of(request: Request, principal: Principal) -> Trail | None:
    """The request's trail, the same each time; None for one that only reads."""
    if request.method in _SAFE_METHODS:
        return None
    found: Trail | None = getattr(request.state, "trail", None)
    if found is None:
        route = request.scope["route"]
        named = next((str(value) for value in request.path_params.values()), None)
        action = route.operation_id or route.name
        request_id = request.scope.get("lco.request_id", "")
        found = Trail(principal, action, request_id, named, principal.project_id)
        request.state.trail = found
    return found
