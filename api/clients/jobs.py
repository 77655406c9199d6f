"""Jobs, experiments and runs: submit, follow, steer."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from api import price_schemas, schemas, service_schemas, transport
from api.calls import base
from api.calls import jobs as calls
from api.calls.base import Object
from api.calls.jobs import Verb
from api.clients.base import Asking, AsyncAsking
from api.transport import ApiFailure


class Jobs(Asking):
    """Jobs, experiments and runs: submit, follow, steer."""

    def submit(self, spec: Any) -> schemas.JobRead:
        """Submits a job: a `JobSpec`, or a document with the same fields."""
        return self._ask(calls.submit(spec))

    def submit_experiment(self, spec: Any) -> schemas.ExperimentRead:
        """Submits an experiment: an `ExperimentSpec`, or a document with the same fields."""
        return self._ask(calls.submit_experiment(spec))

    def price_experiment(self, spec: Any, *, device: str = "h100") -> price_schemas.PriceRead:
        """What an experiment costs; its inputs need not be there yet."""
        return self._ask(calls.price_experiment(spec, device))

    def experiment_document(self, identifier: str) -> dict[str, Any]:
        """The document that an experiment was submitted as."""
        found: dict[str, Any] = transport.document(self._send(calls.experiment_document(identifier)))
        return found

    def clone_experiment(self, identifier: str, patch: dict[str, Any] | None = None) -> schemas.ExperimentRead:
        """Submits a changed copy of an experiment; the patch is a JSON Merge Patch of its document."""
        return self._ask(calls.clone_experiment(identifier, patch or {}))

    def diff_experiments(self, before: str, after: str) -> Iterator[service_schemas.DiffRead]:
        """What differs between the documents of two experiments."""
        return self._all(calls.diff_experiments(before, after))

    def job(self, identifier: str) -> schemas.JobRead:
        """One job."""
        return self._ask(base.get(identifier, schemas.JobRead))

    def experiment(self, identifier: str) -> schemas.ExperimentRead:
        """One experiment."""
        return self._ask(base.get(identifier, schemas.ExperimentRead))

    def run(self, identifier: str) -> schemas.RunRead:
        """One run."""
        return self._ask(base.get(identifier, schemas.RunRead))

    def jobs(self, **filters: Any) -> Iterator[schemas.JobRead]:
        """Jobs, newest first; filters: status, kind, experiment, order."""
        return self._all(base.listing("/v1/jobs", schemas.JobRead, filters))

    def experiments(self, **filters: Any) -> Iterator[schemas.ExperimentRead]:
        """Experiments, newest first."""
        return self._all(base.listing("/v1/experiments", schemas.ExperimentRead, filters, limit=20))

    def runs(self, **filters: Any) -> Iterator[schemas.RunRead]:
        """Runs, newest first; filters: job, experiment, state, kind, order."""
        return self._all(base.listing("/v1/runs", schemas.RunRead, filters))

    def attempts(self, run: str) -> Iterator[schemas.AttemptRead]:
        """The tries at a run, first one first."""
        return self._all(base.whole(f"/v1/runs/{run}/attempts", schemas.AttemptRead))

    def workers(self) -> Iterator[service_schemas.WorkerRead]:
        """Workers, newest first."""
        return self._all(base.listing("/v1/workers", service_schemas.WorkerRead, {}))

    def outputs(self, run: str) -> Iterator[service_schemas.OutputRead]:
        """Files that a run published."""
        return self._all(base.whole(f"/v1/runs/{run}/outputs", service_schemas.OutputRead))

    def output(self, run: str, name: str) -> bytes:
        """One published file, whole."""
        return transport.content(self._send(calls.output(run, name)))

    def events(self, identifier: str, *, after: int = 0) -> Iterator[schemas.EventRead]:
        """Events so far of a job or a run, oldest first."""
        return self._all(calls.events(identifier, after))

    def logs(self, run: str, *, after: str = "") -> Iterator[schemas.LogChunkRead]:
        """Output so far of a run, oldest first."""
        return self._all(calls.logs(run, after))

    def cancel(self, identifier: str) -> Object:
        """Cancels a job, an experiment or a run."""
        return self._verb(identifier, "cancel")

    def pause(self, identifier: str) -> Object:
        """Pauses a job, an experiment or a run at its next checkpoint."""
        return self._verb(identifier, "pause")

    def resume(self, identifier: str) -> Object:
        """Resumes what was paused."""
        return self._verb(identifier, "resume")

    def retry(self, identifier: str) -> Object:
        """Ends the back-off before the next attempt."""
        return self._verb(identifier, "retry")

    def wait(
        self,
        identifier: str,
        *,
        timeout_seconds: float | None = None,
        poll_seconds: float = 1.0,
        patience_seconds: float = 120.0,
    ) -> Object:
        """Waits until a job, an experiment or a run has ended, and returns it.

        Args:
            patience_seconds: how long the API may be away, for a restart.

        Raises:
            TimeoutError: it has not ended in time.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        last_answer = time.monotonic()
        while True:
            try:
                found = self.show(identifier)
                last_answer = time.monotonic()
                if base.is_final(found):
                    return found  # type: ignore[return-value]
            except ApiFailure as error:
                if not base.is_outage(error) or time.monotonic() - last_answer > patience_seconds:
                    raise
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"{identifier} has not ended within {timeout_seconds:g} s")
            time.sleep(poll_seconds)

    def follow(
        self, identifier: str, *, after: int = 0, patience_seconds: float = 120.0
    ) -> Iterator[schemas.EventRead]:
        """Events of a job or a run as they come, until it ends; from the server's stream, also through its restarts.

        Args:
            after: number of the last event that is known already.
            patience_seconds: how long the API may be away.
        """
        for sent in self._stream(calls.event_stream(identifier), str(after or ""), patience_seconds):
            if sent.id:
                yield schemas.EventRead.model_validate_json(sent.data)

    def follow_logs(
        self, run: str, *, after: str = "", patience_seconds: float = 120.0
    ) -> Iterator[schemas.LogChunkRead]:
        """Output of a run as it comes, until the run ends."""
        for sent in self._stream(calls.log_stream(run), after, patience_seconds):
            if sent.id:
                yield schemas.LogChunkRead.model_validate_json(sent.data)

    def _verb(self, identifier: str, name: Verb) -> Object:
        found: Object = self._ask(calls.verb(identifier, name))
        return found


class AsyncJobs(AsyncAsking):
    """The same, asynchronously."""

    async def submit(self, spec: Any) -> schemas.JobRead:
        """Submits a job: a `JobSpec`, or a document with the same fields."""
        return await self._ask(calls.submit(spec))

    async def submit_experiment(self, spec: Any) -> schemas.ExperimentRead:
        """Submits an experiment: an `ExperimentSpec`, or a document with the same fields."""
        return await self._ask(calls.submit_experiment(spec))

    async def price_experiment(self, spec: Any, *, device: str = "h100") -> price_schemas.PriceRead:
        """What an experiment costs; its inputs need not be there yet."""
        return await self._ask(calls.price_experiment(spec, device))

    async def experiment_document(self, identifier: str) -> dict[str, Any]:
        """The document that an experiment was submitted as."""
        found: dict[str, Any] = transport.document(await self._send(calls.experiment_document(identifier)))
        return found

    async def clone_experiment(self, identifier: str, patch: dict[str, Any] | None = None) -> schemas.ExperimentRead:
        """Submits a changed copy of an experiment; the patch is a JSON Merge Patch of its document."""
        return await self._ask(calls.clone_experiment(identifier, patch or {}))

    def diff_experiments(self, before: str, after: str) -> AsyncIterator[service_schemas.DiffRead]:
        """What differs between the documents of two experiments."""
        return self._all(calls.diff_experiments(before, after))

    async def job(self, identifier: str) -> schemas.JobRead:
        """One job."""
        return await self._ask(base.get(identifier, schemas.JobRead))

    async def experiment(self, identifier: str) -> schemas.ExperimentRead:
        """One experiment."""
        return await self._ask(base.get(identifier, schemas.ExperimentRead))

    async def run(self, identifier: str) -> schemas.RunRead:
        """One run."""
        return await self._ask(base.get(identifier, schemas.RunRead))

    def jobs(self, **filters: Any) -> AsyncIterator[schemas.JobRead]:
        """Jobs, newest first; filters: status, kind, experiment, order."""
        return self._all(base.listing("/v1/jobs", schemas.JobRead, filters))

    def experiments(self, **filters: Any) -> AsyncIterator[schemas.ExperimentRead]:
        """Experiments, newest first."""
        return self._all(base.listing("/v1/experiments", schemas.ExperimentRead, filters, limit=20))

    def runs(self, **filters: Any) -> AsyncIterator[schemas.RunRead]:
        """Runs, newest first; filters: job, experiment, state, kind, order."""
        return self._all(base.listing("/v1/runs", schemas.RunRead, filters))

    def attempts(self, run: str) -> AsyncIterator[schemas.AttemptRead]:
        """The tries at a run, first one first."""
        return self._all(base.whole(f"/v1/runs/{run}/attempts", schemas.AttemptRead))

    def workers(self) -> AsyncIterator[service_schemas.WorkerRead]:
        """Workers, newest first."""
        return self._all(base.listing("/v1/workers", service_schemas.WorkerRead, {}))

    def outputs(self, run: str) -> AsyncIterator[service_schemas.OutputRead]:
        """Files that a run published."""
        return self._all(base.whole(f"/v1/runs/{run}/outputs", service_schemas.OutputRead))

    async def output(self, run: str, name: str) -> bytes:
        """One published file, whole."""
        return transport.content(await self._send(calls.output(run, name)))

    def events(self, identifier: str, *, after: int = 0) -> AsyncIterator[schemas.EventRead]:
        """Events so far of a job or a run, oldest first."""
        return self._all(calls.events(identifier, after))

    def logs(self, run: str, *, after: str = "") -> AsyncIterator[schemas.LogChunkRead]:
        """Output so far of a run, oldest first."""
        return self._all(calls.logs(run, after))

    async def cancel(self, identifier: str) -> Object:
        """Cancels a job, an experiment or a run."""
        return await self._verb(identifier, "cancel")

    async def pause(self, identifier: str) -> Object:
        """Pauses a job, an experiment or a run at its next checkpoint."""
        return await self._verb(identifier, "pause")

    async def resume(self, identifier: str) -> Object:
        """Resumes what was paused."""
        return await self._verb(identifier, "resume")

    async def retry(self, identifier: str) -> Object:
        """Ends the back-off before the next attempt."""
        return await self._verb(identifier, "retry")

    async def wait(
        self,
        identifier: str,
        *,
        timeout_seconds: float | None = None,
        poll_seconds: float = 1.0,
        patience_seconds: float = 120.0,
    ) -> Object:
        """Waits until a job, an experiment or a run has ended, and returns it; see `Client.wait`."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        last_answer = time.monotonic()
        while True:
            try:
                found = await self.show(identifier)
                last_answer = time.monotonic()
                if base.is_final(found):
                    return found  # type: ignore[return-value]
            except ApiFailure as error:
                if not base.is_outage(error) or time.monotonic() - last_answer > patience_seconds:
                    raise
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"{identifier} has not ended within {timeout_seconds:g} s")
            await asyncio.sleep(poll_seconds)

    async def follow(
        self, identifier: str, *, after: int = 0, patience_seconds: float = 120.0
    ) -> AsyncIterator[schemas.EventRead]:
        """Events of a job or a run as they come, until it ends; see `Client.follow`."""
        async for sent in self._stream(calls.event_stream(identifier), str(after or ""), patience_seconds):
            if sent.id:
                yield schemas.EventRead.model_validate_json(sent.data)

    async def follow_logs(
        self, run: str, *, after: str = "", patience_seconds: float = 120.0
    ) -> AsyncIterator[schemas.LogChunkRead]:
        """Output of a run as it comes, until the run ends."""
        async for sent in self._stream(calls.log_stream(run), after, patience_seconds):
            if sent.id:
                yield schemas.LogChunkRead.model_validate_json(sent.data)

    async def _verb(self, identifier: str, name: Verb) -> Object:
        found: Object = await self._ask(calls.verb(identifier, name))
        return found
