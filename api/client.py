"""The API from Python: `Client`, and `AsyncClient` with the same methods.

    with Client() as client:                      # address and key of the platform that `lco up` started here
        experiment = client.submit_experiment(document)
        client.wait(experiment.id)
        for row in client.results_table(experiment=experiment.id).rows:
            print(row.method, row.mean, row.std)

Requests are tried again after 429, 5xx and lost connections; an Idempotency-Key makes that safe. An error raises
`ApiFailure`.
"""

import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2
from pydantic import BaseModel

from api import calls, result_schemas, schemas, service_schemas, transport
from api.calls import Ask, AskList, Object, Verb
from api.result_schemas import ResultsTable
from api.transport import ApiFailure
from store.settings import Settings
from store.uploads import Format

T = TypeVar("T", bound=BaseModel)

TIMEOUT_SECONDS = 30.0


class Client:
    """A connection to the API.

    Args:
        url: address; by default `LCO_URL`, else what `lco up` wrote into the data directory.
        key: API key; by default `LCO_API_KEY`, else the admin key in the data directory.
        http: a client to send with instead, such as FastAPI's TestClient.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        settings: Settings | None = None,
        http: httpx2.Client | None = None,
    ) -> None:
        self.url, key = transport.connection(settings, url, key)
        self._headers = transport.headers_of(key)
        self._http = http or httpx2.Client(base_url=self.url, timeout=TIMEOUT_SECONDS, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def submit(self, spec: Any) -> schemas.JobRead:
        """Submits a job: a `JobSpec`, or a document with the same fields."""
        return self._ask(calls.submit(spec))

    def submit_score(self, request: Any) -> schemas.JobRead:
        """Submits outputs to be graded: a `ScoreRequest`, or a document with the same fields."""
        return self._ask(calls.score(request))

    def score(self, job: str) -> service_schemas.ScoreRead:
        """A score job with its figures."""
        return self._ask(calls.scored(job))

    def submit_experiment(self, spec: Any) -> schemas.ExperimentRead:
        """Submits an experiment: an `ExperimentSpec`, or a document with the same fields."""
        return self._ask(calls.submit_experiment(spec))

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
        return self._ask(calls.get(identifier, schemas.JobRead))

    def experiment(self, identifier: str) -> schemas.ExperimentRead:
        """One experiment."""
        return self._ask(calls.get(identifier, schemas.ExperimentRead))

    def run(self, identifier: str) -> schemas.RunRead:
        """One run."""
        return self._ask(calls.get(identifier, schemas.RunRead))

    def show(self, identifier: str) -> BaseModel:
        """The object with an id, of whatever kind."""
        return self._ask(calls.get(identifier, BaseModel))

    def jobs(self, **filters: Any) -> Iterator[schemas.JobRead]:
        """Jobs, newest first; filters: status, kind, experiment, order."""
        return self._all(calls.listing("/v1/jobs", schemas.JobRead, filters))

    def experiments(self, **filters: Any) -> Iterator[schemas.ExperimentRead]:
        """Experiments, newest first."""
        return self._all(calls.listing("/v1/experiments", schemas.ExperimentRead, filters, limit=20))

    def runs(self, **filters: Any) -> Iterator[schemas.RunRead]:
        """Runs, newest first; filters: job, experiment, state, kind, order."""
        return self._all(calls.listing("/v1/runs", schemas.RunRead, filters))

    def attempts(self, run: str) -> Iterator[schemas.AttemptRead]:
        """The tries at a run, first one first."""
        return self._all(calls.whole(f"/v1/runs/{run}/attempts", schemas.AttemptRead))

    def workers(self) -> Iterator[service_schemas.WorkerRead]:
        """Workers, newest first."""
        return self._all(calls.listing("/v1/workers", service_schemas.WorkerRead, {}))

    def checkpoints(self, **filters: Any) -> Iterator[schemas.CheckpointRead]:
        """Checkpoints, newest first; filters: run, job, kind, order."""
        return self._all(calls.listing("/v1/checkpoints", schemas.CheckpointRead, filters))

    def pin(self, checkpoint: str) -> schemas.CheckpointRead:
        """Marks a checkpoint as one to keep."""
        return self._ask(calls.pin(checkpoint, "pin"))

    def unpin(self, checkpoint: str) -> schemas.CheckpointRead:
        """Takes that mark away."""
        return self._ask(calls.pin(checkpoint, "unpin"))

    def aliases(self) -> Iterator[service_schemas.AliasRead]:
        """Names for checkpoints, in alphabetical order."""
        return self._all(calls.listing("/v1/aliases", service_schemas.AliasRead, {}))

    def set_alias(self, name: str, checkpoint: str) -> service_schemas.AliasRead:
        """Gives a published model a name: jobs take it as `alias:NAME`."""
        return self._ask(calls.put_alias(name, checkpoint))

    def remove_alias(self, name: str) -> None:
        """Takes a name away; the checkpoint stays."""
        transport.content(self._send(calls.delete_alias(name)))

    def upload_dataset(
        self, name: str, content: bytes, form: Format, *, text_fields: Sequence[str] = ()
    ) -> service_schemas.DatasetRead:
        """Uploads rows as a new version of a data set; equal rows again add none.

        Args:
            form: how the content is written: `jsonl`, `csv` or `parquet`.
            text_fields: fields that must hold text in every row.
        """
        return self._ask(calls.upload_dataset(name, content, form, text_fields))

    def dataset(self, reference: str) -> service_schemas.DatasetRead:
        """A version of a data set: by id, `NAME@VERSION`, or `NAME` for the newest."""
        if reference.startswith("ds_"):
            return self._ask(calls.get(reference, service_schemas.DatasetRead))
        return calls.only_dataset(self._ask(calls.named_dataset(reference)), reference)

    def datasets(self, **filters: Any) -> Iterator[service_schemas.DatasetRead]:
        """Versions of data sets, newest first; filters: name, version, order."""
        return self._all(calls.listing("/v1/datasets", service_schemas.DatasetRead, filters))

    def dataset_rows(self, identifier: str, *, after: int = 0) -> Iterator[service_schemas.DatasetRow]:
        """Rows of a data set in their order."""
        return self._all(calls.dataset_rows(identifier, after))

    def results(self, **filters: Any) -> Iterator[result_schemas.ResultRead]:
        """Results; filters: experiment, job, run, method, benchmark, metric, decoding, train_seed, order."""
        return self._all(calls.listing("/v1/results", result_schemas.ResultRead, filters))

    def completions(self, run: str, **filters: Any) -> Iterator[result_schemas.CompletionRead]:
        """Completions of an evaluation run, in their order; filters: verdict, decoding, eval_seed, benchmark."""
        return self._all(calls.completions(run, filters))

    def side_by_side(self, run: str, other: str, change: str | None = None) -> Iterator[result_schemas.CompletionPair]:
        """Completions of two evaluation runs by problem; `change`: gained, lost or flipped."""
        return self._all(calls.side_by_side(run, other, change))

    def scores(self) -> Iterator[service_schemas.ScoreRead]:
        """Score jobs with their figures, newest first."""
        return self._all(calls.listing("/v1/scores", service_schemas.ScoreRead, {}))

    def outputs(self, run: str) -> Iterator[service_schemas.OutputRead]:
        """Files that a run published."""
        return self._all(calls.whole(f"/v1/runs/{run}/outputs", service_schemas.OutputRead))

    def output(self, run: str, name: str) -> bytes:
        """One published file, whole."""
        return transport.content(self._send(calls.output(run, name)))

    def benchmarks(self) -> Iterator[service_schemas.BenchmarkRead]:
        """Benchmarks that an evaluation may name."""
        return self._all(calls.whole("/v1/benchmarks", service_schemas.BenchmarkRead))

    def results_table(self, *, experiment: str | None = None, job: str | None = None) -> ResultsTable:
        """Exact statistics over seeds, of an experiment or a job."""
        return self._ask(calls.results_table(experiment, job))

    def printed_table(
        self, experiment: str, form: str, *, metric: str | None = None, baseline: str | None = None
    ) -> str:
        """The table of an experiment as `csv`, `markdown`, `latex` or `html`."""
        return transport.content(self._send(calls.printed_table(experiment, form, metric, baseline))).decode()

    def comparisons(self, experiment: str, baseline: str, **filters: Any) -> Iterator[service_schemas.ComparisonRead]:
        """Every other method against a baseline; filters: metric, benchmark, decoding."""
        return self._all(calls.comparisons(experiment, baseline, filters))

    def metrics(
        self, run: str, keys: list[str] | None = None, *, from_step: int = 0, max_points: int = 1000
    ) -> schemas.MetricsRead:
        """Metrics of a run."""
        return self._ask(calls.metrics(run, keys, from_step, max_points))

    def curves(
        self, experiment: str, keys: list[str] | None = None, *, kind: str | None = None, max_points: int = 500
    ) -> schemas.CurvesRead:
        """Metrics of an experiment's jobs by step: mean, spread and number of seeds; by default those of stability."""
        return self._ask(calls.curves(experiment, keys, kind, max_points))

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
                if calls.is_final(found):
                    return found  # type: ignore[return-value]
            except ApiFailure as error:
                if not calls.is_outage(error) or time.monotonic() - last_answer > patience_seconds:
                    raise
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"{identifier} has not ended within {timeout_seconds:g} s")
            time.sleep(poll_seconds)

    def follow(self, identifier: str, *, after: int = 0, poll_seconds: float = 1.0) -> Iterator[schemas.EventRead]:
        """Events of a job or a run as they come, until it ends."""
        while True:
            is_over = calls.is_final(self.show(identifier))
            for event in self.events(identifier, after=after):
                after = event.seq
                yield event
            if is_over:
                return
            time.sleep(poll_seconds)

    def follow_logs(self, run: str, *, after: str = "", poll_seconds: float = 0.5) -> Iterator[schemas.LogChunkRead]:
        """Output of a run as it comes, until the run ends."""
        while True:
            is_over = calls.is_final(self.show(run))
            for chunk in self.logs(run, after=after):
                after = chunk.cursor
                yield chunk
            if is_over:
                return
            time.sleep(poll_seconds)

    def login_link(self) -> str:
        """A link that opens one browser session, once."""
        return self.url + self._ask(calls.login_link()).path

    def api_keys(self) -> Iterator[service_schemas.ApiKeyRead]:
        """API keys, newest first."""
        return self._all(calls.listing("/v1/api_keys", service_schemas.ApiKeyRead, {}))

    def create_key(self, name: str, scope: str, expires_in_days: int | None = None) -> service_schemas.ApiKeyCreated:
        """A new API key with the scope `read`, `write` or `admin`."""
        return self._ask(calls.create_key(name, scope, expires_in_days))

    def revoke_key(self, identifier: str) -> service_schemas.ApiKeyRead:
        """Ends an API key, and the sessions that came from it."""
        return self._ask(calls.revoke_key(identifier))

    def _verb(self, identifier: str, name: Verb) -> Object:
        found: Object = self._ask(calls.verb(identifier, name))
        return found

    def _all(self, ask: AskList[T]) -> Iterator[T]:
        after = ask.cursor
        while True:
            page = self._ask(ask.page(after))
            yield from page.data
            if not page.has_more or page.last_id is None:
                return
            after = page.last_id

    def _ask(self, ask: Ask[T]) -> T:
        return ask.answer.model_validate(transport.document(self._send(ask.call)))

    def _send(self, call: transport.Call) -> httpx2.Response:
        """Sends a request, again where that may help."""
        arguments = call.arguments()
        arguments["headers"] = {**self._headers, **arguments["headers"]}
        for tries in range(transport.MAX_TRIES):
            try:
                response = self._http.request(**arguments)
            except httpx2.TransportError as error:
                if tries + 1 == transport.MAX_TRIES:
                    raise transport.unreachable(error, self.url) from error
                response = None
            if response is not None and not transport.is_retried(call, response, tries):
                return response
            time.sleep(transport.wait_seconds(tries, response))
        raise AssertionError("the last try returns or raises")
