"""The audit log: who changed what."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.database import database_time
from store.errors import NotFound
from store.ids import encode_id
from store.models.project import AuditEntry
from store.repositories.paging import Order, Page, keyset_page


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Who changed what, for the audit log."""

    api_key_id: UUID
    key_name: str
    via: str
    action: str
    object_id: str | None
    request_id: str
    details: dict[str, Any] = field(default_factory=dict)


class Audit:
    """Queries of the audit log; entries are added and read, and never anything else."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, change: Change, project_id: UUID) -> None:
        """Adds an entry to the caller's transaction."""
        self._session.add(
            AuditEntry(
                project_id=project_id,
                api_key_id=change.api_key_id,
                key_name=change.key_name,
                via=change.via,
                action=change.action,
                object_id=change.object_id,
                request_id=change.request_id,
                details=change.details,
                created_at=database_time(self._session),
            )
        )

    def get(self, entry_id: UUID) -> AuditEntry:
        """One entry.

        Raises:
            NotFound: there is none.
        """
        entry = self._session.get(AuditEntry, entry_id)
        if entry is None:
            raise NotFound("audit entry", encode_id("aud", entry_id))
        return entry

    def page(
        self,
        limit: int = 20,
        after: UUID | None = None,
        before: UUID | None = None,
        order: Order = "desc",
        *,
        action: str | None = None,
        object_id: str | None = None,
        api_key_id: UUID | None = None,
        project_id: UUID | None = None,
    ) -> Page[AuditEntry]:
        """Entries that meet every filter given."""
        query = select(AuditEntry)
        for column, value in (
            (AuditEntry.action, action),
            (AuditEntry.object_id, object_id),
            (AuditEntry.api_key_id, api_key_id),
            (AuditEntry.project_id, project_id),
        ):
            if value is not None:
                query = query.where(column == value)
        return keyset_page(self._session, query, AuditEntry.id, limit=limit, after=after, before=before, order=order)
