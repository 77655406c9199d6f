"""Suites and verdicts."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from api import suite_schemas
from api.calls import base
from api.calls import suites as calls
from api.clients.base import Asking, AsyncAsking
from api.transport import ApiFailure


class Suites(Asking):
    """Suites and verdicts."""

    def create_suite(self, spec: Any) -> suite_schemas.SuiteRead:
        """Creates a suite: a `SuiteSpec`, or a document with the same fields."""
        return self._ask(calls.create(spec))

    def suites(self, **filters: Any) -> Iterator[suite_schemas.SuiteRead]:
        """Suites, newest first; filters: name, archived, order."""
        return self._all(base.listing("/v1/suites", suite_schemas.SuiteRead, filters))

    def suite(self, reference: str) -> suite_schemas.SuiteRead:
        """A suite by its id or its name."""
        ask: Any = calls.one(reference)
        return calls.only(self._ask(ask), reference)

    def update_suite(self, reference: str, patch: Any) -> suite_schemas.SuiteRead:
        """Changes a suite by a JSON Merge Patch of its `spec`; a new version where what it measures or asks changes."""
        return self._ask(calls.update(self._suite_id(reference), patch))

    def archive_suite(self, reference: str) -> suite_schemas.SuiteRead:
        """Takes a suite out of use."""
        return self._ask(calls.verb(self._suite_id(reference), "archive"))

    def restore_suite(self, reference: str) -> suite_schemas.SuiteRead:
        """Takes it into use again."""
        return self._ask(calls.verb(self._suite_id(reference), "restore"))

    def suite_history(self, reference: str, *, limit: int = 100) -> suite_schemas.HistoryRead:
        """How the gated metrics of a suite went from checkpoint to checkpoint."""
        return self._ask(calls.history(self._suite_id(reference), limit))

    def request_verdict(self, suite: str, checkpoint: str, *, cause: str = "manual") -> suite_schemas.VerdictRead:
        """Asks for a suite's verdict on a checkpoint, `ckpt_...` or `alias:NAME`; the known one where there is one."""
        return self._ask(calls.judge(self._suite_id(suite), checkpoint, cause))

    def verdicts(self, **filters: Any) -> Iterator[suite_schemas.VerdictRead]:
        """Verdicts, newest first; filters: suite (an id), checkpoint, state, outcome, order."""
        return self._all(base.listing("/v1/verdicts", suite_schemas.VerdictRead, filters))

    def verdict(self, identifier: str) -> suite_schemas.VerdictRead:
        """One verdict, with the numbers of every gate."""
        return self._ask(base.get(identifier, suite_schemas.VerdictRead))

    def retry_verdict(self, identifier: str) -> suite_schemas.VerdictRead:
        """Tries a verdict that ended in an error again."""
        return self._ask(calls.retry(identifier))

    def wait_verdict(
        self,
        identifier: str,
        *,
        timeout_seconds: float | None = None,
        poll_seconds: float = 1.0,
        patience_seconds: float = 120.0,
    ) -> suite_schemas.VerdictRead:
        """Waits until a verdict is decided or ended in an error, and returns it.

        Args:
            patience_seconds: how long the API may be away, for a restart.

        Raises:
            TimeoutError: it is not decided in time.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        last_answer = time.monotonic()
        while True:
            try:
                found = self.verdict(identifier)
                last_answer = time.monotonic()
                if found.state in calls.FINAL:
                    return found
            except ApiFailure as error:
                if not base.is_outage(error) or time.monotonic() - last_answer > patience_seconds:
                    raise
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"{identifier} is not decided within {timeout_seconds:g} s")
            time.sleep(poll_seconds)

    def _suite_id(self, reference: str) -> str:
        return reference if reference.startswith("suite_") else self.suite(reference).id


class AsyncSuites(AsyncAsking):
    """The same, asynchronously."""

    async def create_suite(self, spec: Any) -> suite_schemas.SuiteRead:
        """Creates a suite: a `SuiteSpec`, or a document with the same fields."""
        return await self._ask(calls.create(spec))

    def suites(self, **filters: Any) -> AsyncIterator[suite_schemas.SuiteRead]:
        """Suites, newest first; filters: name, archived, order."""
        return self._all(base.listing("/v1/suites", suite_schemas.SuiteRead, filters))

    async def suite(self, reference: str) -> suite_schemas.SuiteRead:
        """A suite by its id or its name."""
        ask: Any = calls.one(reference)
        return calls.only(await self._ask(ask), reference)

    async def update_suite(self, reference: str, patch: Any) -> suite_schemas.SuiteRead:
        """Changes a suite by a JSON Merge Patch of its `spec`; a new version where what it measures or asks changes."""
        return await self._ask(calls.update(await self._suite_id(reference), patch))

    async def archive_suite(self, reference: str) -> suite_schemas.SuiteRead:
        """Takes a suite out of use."""
        return await self._ask(calls.verb(await self._suite_id(reference), "archive"))

    async def restore_suite(self, reference: str) -> suite_schemas.SuiteRead:
        """Takes it into use again."""
        return await self._ask(calls.verb(await self._suite_id(reference), "restore"))

    async def suite_history(self, reference: str, *, limit: int = 100) -> suite_schemas.HistoryRead:
        """How the gated metrics of a suite went from checkpoint to checkpoint."""
        return await self._ask(calls.history(await self._suite_id(reference), limit))

    async def request_verdict(self, suite: str, checkpoint: str, *, cause: str = "manual") -> suite_schemas.VerdictRead:
        """Asks for a suite's verdict on a checkpoint, `ckpt_...` or `alias:NAME`; the known one where there is one."""
        return await self._ask(calls.judge(await self._suite_id(suite), checkpoint, cause))

    def verdicts(self, **filters: Any) -> AsyncIterator[suite_schemas.VerdictRead]:
        """Verdicts, newest first; filters: suite (an id), checkpoint, state, outcome, order."""
        return self._all(base.listing("/v1/verdicts", suite_schemas.VerdictRead, filters))

    async def verdict(self, identifier: str) -> suite_schemas.VerdictRead:
        """One verdict, with the numbers of every gate."""
        return await self._ask(base.get(identifier, suite_schemas.VerdictRead))

    async def retry_verdict(self, identifier: str) -> suite_schemas.VerdictRead:
        """Tries a verdict that ended in an error again."""
        return await self._ask(calls.retry(identifier))

    async def wait_verdict(
        self,
        identifier: str,
        *,
        timeout_seconds: float | None = None,
        poll_seconds: float = 1.0,
        patience_seconds: float = 120.0,
    ) -> suite_schemas.VerdictRead:
        """Waits until a verdict is decided or ended in an error, and returns it.

        Args:
            patience_seconds: how long the API may be away, for a restart.

        Raises:
            TimeoutError: it is not decided in time.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        last_answer = time.monotonic()
        while True:
            try:
                found = await self.verdict(identifier)
                last_answer = time.monotonic()
                if found.state in calls.FINAL:
                    return found
            except ApiFailure as error:
                if not base.is_outage(error) or time.monotonic() - last_answer > patience_seconds:
                    raise
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"{identifier} is not decided within {timeout_seconds:g} s")
            await asyncio.sleep(poll_seconds)

    async def _suite_id(self, reference: str) -> str:
        return reference if reference.startswith("suite_") else (await self.suite(reference)).id
