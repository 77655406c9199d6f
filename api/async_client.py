"""The API from asynchronous Python: `AsyncClient` has `Client`'s methods, as coroutines and asynchronous iterators."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2
from pydantic import BaseModel

from api import calls, result_schemas, schemas, service_schemas, transport
from api.calls import Ask, AskList, Object, Verb
from api.client import TIMEOUT_SECONDS
from api.result_schemas import ResultsTable
from api.transport import ApiFailure
from store.settings import Settings
from store.uploads import Format

T = TypeVar("T", bound=BaseModel)


class AsyncClient:
    """A connection to the API; the arguments are those of `Client`."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        settings: Settings | None = None,
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        self.url, key = transport.connection(settings, url, key)
        self._headers = transport.headers_of(key)
        self._http = http or httpx2.AsyncClient(base_url=self.url, timeout=TIMEOUT_SECONDS, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def submit(self, spec: Any) -> schemas.JobRead:
        """Submits a job: a `JobSpec`, or a document with the same fields."""
        return await self._ask(calls.submit(spec))

    async def submit_score(self, request: Any) -> schemas.JobRead:
        """Submits outputs to be graded: a `ScoreRequest`, or a document with the same fields."""
        return await self._ask(calls.score(request))

    async def score(self, job: str) -> service_schemas.ScoreRead:
        """A score job with its figures."""
        return await self._ask(calls.scored(job))

    async def submit_experiment(self, spec: Any) -> schemas.ExperimentRead:
        """Submits an experiment: an `ExperimentSpec`, or a document with the same fields."""
        return await self._ask(calls.submit_experiment(spec))

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
        return await self._ask(calls.get(identifier, schemas.JobRead))

    async def experiment(self, identifier: str) -> schemas.ExperimentRead:
        """One experiment."""
        return await self._ask(calls.get(identifier, schemas.ExperimentRead))

    async def run(self, identifier: str) -> schemas.RunRead:
        """One run."""
        return await self._ask(calls.get(identifier, schemas.RunRead))

    async def show(self, identifier: str) -> BaseModel:
        """The object with an id, of whatever kind."""
        return await self._ask(calls.get(identifier, BaseModel))

    def jobs(self, **filters: Any) -> AsyncIterator[schemas.JobRead]:
        """Jobs, newest first; filters: status, kind, experiment, order."""
        return self._all(calls.listing("/v1/jobs", schemas.JobRead, filters))

    def experiments(self, **filters: Any) -> AsyncIterator[schemas.ExperimentRead]:
        """Experiments, newest first."""
        return self._all(calls.listing("/v1/experiments", schemas.ExperimentRead, filters, limit=20))

    def runs(self, **filters: Any) -> AsyncIterator[schemas.RunRead]:
        """Runs, newest first; filters: job, experiment, state, kind, order."""
        return self._all(calls.listing("/v1/runs", schemas.RunRead, filters))

    def attempts(self, run: str) -> AsyncIterator[schemas.AttemptRead]:
        """The tries at a run, first one first."""
        return self._all(calls.whole(f"/v1/runs/{run}/attempts", schemas.AttemptRead))

    def workers(self) -> AsyncIterator[service_schemas.WorkerRead]:
        """Workers, newest first."""
        return self._all(calls.listing("/v1/workers", service_schemas.WorkerRead, {}))

    def checkpoints(self, **filters: Any) -> AsyncIterator[schemas.CheckpointRead]:
        """Checkpoints, newest first; filters: run, job, kind, order."""
        return self._all(calls.listing("/v1/checkpoints", schemas.CheckpointRead, filters))

    async def pin(self, checkpoint: str) -> schemas.CheckpointRead:
        """Marks a checkpoint as one to keep."""
        return await self._ask(calls.pin(checkpoint, "pin"))

    async def unpin(self, checkpoint: str) -> schemas.CheckpointRead:
        """Takes that mark away."""
        return await self._ask(calls.pin(checkpoint, "unpin"))

    def aliases(self) -> AsyncIterator[service_schemas.AliasRead]:
        """Names for checkpoints, in alphabetical order."""
        return self._all(calls.listing("/v1/aliases", service_schemas.AliasRead, {}))

    async def set_alias(self, name: str, checkpoint: str) -> service_schemas.AliasRead:
        """Gives a published model a name: jobs take it as `alias:NAME`."""
        return await self._ask(calls.put_alias(name, checkpoint))

    async def remove_alias(self, name: str) -> None:
        """Takes a name away; the checkpoint stays."""
        transport.content(await self._send(calls.delete_alias(name)))

    async def upload_dataset(
        self, name: str, content: bytes, form: Format, *, text_fields: Sequence[str] = ()
    ) -> service_schemas.DatasetRead:
        """Uploads rows as a new version of a data set; equal rows again add none.

        Args:
            form: how the content is written: `jsonl`, `csv` or `parquet`.
            text_fields: fields that must hold text in every row.
        """
        return await self._ask(calls.upload_dataset(name, content, form, text_fields))

    async def dataset(self, reference: str) -> service_schemas.DatasetRead:
        """A version of a data set: by id, `NAME@VERSION`, or `NAME` for the newest."""
        if reference.startswith("ds_"):
            return await self._ask(calls.get(reference, service_schemas.DatasetRead))
        return calls.only_dataset(await self._ask(calls.named_dataset(reference)), reference)

    def datasets(self, **filters: Any) -> AsyncIterator[service_schemas.DatasetRead]:
        """Versions of data sets, newest first; filters: name, version, order."""
        return self._all(calls.listing("/v1/datasets", service_schemas.DatasetRead, filters))

    def dataset_rows(self, identifier: str, *, after: int = 0) -> AsyncIterator[service_schemas.DatasetRow]:
        """Rows of a data set in their order."""
        return self._all(calls.dataset_rows(identifier, after))

    def results(self, **filters: Any) -> AsyncIterator[result_schemas.ResultRead]:
        """Results; filters: experiment, job, run, method, benchmark, metric, decoding, train_seed, order."""
        return self._all(calls.listing("/v1/results", result_schemas.ResultRead, filters))

    def completions(self, run: str, **filters: Any) -> AsyncIterator[result_schemas.CompletionRead]:
        """Completions of an evaluation run, in their order; filters: verdict, decoding, eval_seed, benchmark."""
        return self._all(calls.completions(run, filters))

    def side_by_side(
        self, run: str, other: str, change: str | None = None
    ) -> AsyncIterator[result_schemas.CompletionPair]:
        """Completions of two evaluation runs by problem; `change`: gained, lost or flipped."""
        return self._all(calls.side_by_side(run, other, change))

    def scores(self) -> AsyncIterator[service_schemas.ScoreRead]:
        """Score jobs with their figures, newest first."""
        return self._all(calls.listing("/v1/scores", service_schemas.ScoreRead, {}))

    def outputs(self, run: str) -> AsyncIterator[service_schemas.OutputRead]:
        """Files that a run published."""
        return self._all(calls.whole(f"/v1/runs/{run}/outputs", service_schemas.OutputRead))

    async def output(self, run: str, name: str) -> bytes:
        """One published file, whole."""
        return transport.content(await self._send(calls.output(run, name)))

    def benchmarks(self) -> AsyncIterator[service_schemas.BenchmarkRead]:
        """Benchmarks that an evaluation may name."""
        return self._all(calls.whole("/v1/benchmarks", service_schemas.BenchmarkRead))

    async def results_table(self, *, experiment: str | None = None, job: str | None = None) -> ResultsTable:
        """Exact statistics over seeds, of an experiment or a job."""
        return await self._ask(calls.results_table(experiment, job))

    async def printed_table(
        self, experiment: str, form: str, *, metric: str | None = None, baseline: str | None = None
    ) -> str:
        """The table of an experiment as `csv`, `markdown`, `latex` or `html`."""
        return transport.content(await self._send(calls.printed_table(experiment, form, metric, baseline))).decode()

    def comparisons(
        self, experiment: str, baseline: str, **filters: Any
    ) -> AsyncIterator[service_schemas.ComparisonRead]:
        """Every other method against a baseline; filters: metric, benchmark, decoding."""
        return self._all(calls.comparisons(experiment, baseline, filters))

    async def metrics(
        self, run: str, keys: list[str] | None = None, *, from_step: int = 0, max_points: int = 1000
    ) -> schemas.MetricsRead:
        """Metrics of a run."""
        return await self._ask(calls.metrics(run, keys, from_step, max_points))

    async def curves(
        self, experiment: str, keys: list[str] | None = None, *, kind: str | None = None, max_points: int = 500
    ) -> schemas.CurvesRead:
        """Metrics of an experiment's jobs by step: mean, spread and number of seeds; by default those of stability."""
        return await self._ask(calls.curves(experiment, keys, kind, max_points))

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
                if calls.is_final(found):
                    return found  # type: ignore[return-value]
            except ApiFailure as error:
                if not calls.is_outage(error) or time.monotonic() - last_answer > patience_seconds:
                    raise
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"{identifier} has not ended within {timeout_seconds:g} s")
            await asyncio.sleep(poll_seconds)

    async def follow(
        self, identifier: str, *, after: int = 0, poll_seconds: float = 1.0
    ) -> AsyncIterator[schemas.EventRead]:
        """Events of a job or a run as they come, until it ends."""
        while True:
            is_over = calls.is_final(await self.show(identifier))
            async for event in self.events(identifier, after=after):
                after = event.seq
                yield event
            if is_over:
                return
            await asyncio.sleep(poll_seconds)

    async def follow_logs(
        self, run: str, *, after: str = "", poll_seconds: float = 0.5
    ) -> AsyncIterator[schemas.LogChunkRead]:
        """Output of a run as it comes, until the run ends."""
        while True:
            is_over = calls.is_final(await self.show(run))
            async for chunk in self.logs(run, after=after):
                after = chunk.cursor
                yield chunk
            if is_over:
                return
            await asyncio.sleep(poll_seconds)

    async def login_link(self) -> str:
        """A link that opens one browser session, once."""
        return self.url + (await self._ask(calls.login_link())).path

    def api_keys(self) -> AsyncIterator[service_schemas.ApiKeyRead]:
        """API keys, newest first."""
        return self._all(calls.listing("/v1/api_keys", service_schemas.ApiKeyRead, {}))

    async def create_key(
        self, name: str, scope: str, expires_in_days: int | None = None
    ) -> service_schemas.ApiKeyCreated:
        """A new API key with the scope `read`, `write` or `admin`."""
        return await self._ask(calls.create_key(name, scope, expires_in_days))

    async def revoke_key(self, identifier: str) -> service_schemas.ApiKeyRead:
        """Ends an API key, and the sessions that came from it."""
        return await self._ask(calls.revoke_key(identifier))

    async def _verb(self, identifier: str, name: Verb) -> Object:
        found: Object = await self._ask(calls.verb(identifier, name))
        return found

    async def _all(self, ask: AskList[T]) -> AsyncIterator[T]:
        after = ask.cursor
        while True:
            page = await self._ask(ask.page(after))
            for item in page.data:
                yield item
            if not page.has_more or page.last_id is None:
                return
            after = page.last_id

    async def _ask(self, ask: Ask[T]) -> T:
        return ask.answer.model_validate(transport.document(await self._send(ask.call)))

    async def _send(self, call: transport.Call) -> httpx2.Response:
        """Sends a request, again where that may help."""
        arguments = call.arguments()
        arguments["headers"] = {**self._headers, **arguments["headers"]}
        for tries in range(transport.MAX_TRIES):
            try:
                response = await self._http.request(**arguments)
            except httpx2.TransportError as error:
                if tries + 1 == transport.MAX_TRIES:
                    raise transport.unreachable(error, self.url) from error
                response = None
            if response is not None and not transport.is_retried(call, response, tries):
                return response
            await asyncio.sleep(transport.wait_seconds(tries, response))
        raise AssertionError("the last try returns or raises")
