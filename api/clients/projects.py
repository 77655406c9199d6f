"""Projects and the audit log."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from api.calls import base
from api.calls import projects as calls
from api.clients.base import Asking, AsyncAsking
from api.project_schemas import AuditEntryRead, ProjectRead


class Projects(Asking):
    """Projects and the audit log."""

    def projects(self, name: str | None = None) -> Iterator[ProjectRead]:
        """Projects with their quotas and what they use, newest first: all, or one's own."""
        return self._all(calls.projects(name))

    def project(self, identifier: str) -> ProjectRead:
        """One project."""
        return self._ask(base.get(identifier, ProjectRead))

    def create_project(self, name: str, **quotas: Any) -> ProjectRead:
        """A new project with quotas such as `max_running_runs`."""
        return self._ask(calls.create_project(name, quotas))

    def change_project(self, identifier: str, **values: Any) -> ProjectRead:
        """Sets quotas or the name of a project; None takes a bound away, what is left out stays."""
        return self._ask(calls.change_project(identifier, values))

    def archive_project(self, identifier: str) -> ProjectRead:
        """Ends a project: nothing new is taken, what is there stays readable."""
        return self._ask(calls.archive_project(identifier, "archive"))

    def unarchive_project(self, identifier: str) -> ProjectRead:
        """Takes a project up again."""
        return self._ask(calls.archive_project(identifier, "unarchive"))

    def audit_entries(
        self,
        *,
        action: str | None = None,
        object_id: str | None = None,
        key: str | None = None,
        project: str | None = None,
    ) -> Iterator[AuditEntryRead]:
        """Changes made over HTTP, newest first; all of one operation, object, API key or project where given."""
        return self._all(calls.audit_entries(action, object_id, key, project))


class AsyncProjects(AsyncAsking):
    """The same, asynchronously."""

    def projects(self, name: str | None = None) -> AsyncIterator[ProjectRead]:
        """Projects with their quotas and what they use, newest first: all, or one's own."""
        return self._all(calls.projects(name))

    async def project(self, identifier: str) -> ProjectRead:
        """One project."""
        return await self._ask(base.get(identifier, ProjectRead))

    async def create_project(self, name: str, **quotas: Any) -> ProjectRead:
        """A new project with quotas such as `max_running_runs`."""
        return await self._ask(calls.create_project(name, quotas))

    async def change_project(self, identifier: str, **values: Any) -> ProjectRead:
        """Sets quotas or the name of a project; None takes a bound away, what is left out stays."""
        return await self._ask(calls.change_project(identifier, values))

    async def archive_project(self, identifier: str) -> ProjectRead:
        """Ends a project: nothing new is taken, what is there stays readable."""
        return await self._ask(calls.archive_project(identifier, "archive"))

    async def unarchive_project(self, identifier: str) -> ProjectRead:
        """Takes a project up again."""
        return await self._ask(calls.archive_project(identifier, "unarchive"))

    def audit_entries(
        self,
        *,
        action: str | None = None,
        object_id: str | None = None,
        key: str | None = None,
        project: str | None = None,
    ) -> AsyncIterator[AuditEntryRead]:
        """Changes made over HTTP, newest first; all of one operation, object, API key or project where given."""
        return self._all(calls.audit_entries(action, object_id, key, project))
