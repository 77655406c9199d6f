"""Results, their statistics, completions and curves."""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from api import result_schemas, schemas, service_schemas, subject_schemas, transport
from api.calls import base
from api.calls import results as calls
from api.clients.base import Asking, AsyncAsking
from api.result_schemas import ResultsTable


def frame_of(rows: list[dict[str, Any]]) -> Any:
    """Rows as a pandas DataFrame; pandas is no dependency, and loaded here alone.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise ImportError(
            "results_frame needs pandas: pip install 'lco-platform[pandas]'; or use results_dicts"
        ) from None
    return pandas.DataFrame(rows)


class Results(Asking):
    """Results, their statistics, completions and curves."""

    def submit_score(self, request: Any) -> schemas.JobRead:
        """Submits outputs to be graded: a `ScoreRequest`, or a document with the same fields."""
        return self._ask(calls.score(request))

    def score(self, job: str) -> service_schemas.ScoreRead:
        """A score job with its figures."""
        return self._ask(calls.scored(job))

    def results(self, **filters: Any) -> Iterator[result_schemas.ResultRead]:
        """Results; filters: experiment, job, run, method, benchmark, metric, decoding, train_seed, order."""
        return self._all(base.listing("/v1/results", result_schemas.ResultRead, filters))

    def results_dicts(self, **filters: Any) -> list[dict[str, Any]]:
        """Results as plain dictionaries; filters as of `results`."""
        return [row.model_dump() for row in self.results(**filters)]

    def results_frame(self, **filters: Any) -> Any:
        """Results as a pandas DataFrame, a row each; filters as of `results`.

        Raises:
            ImportError: pandas is not installed.
        """
        return frame_of(self.results_dicts(**filters))

    def completions(self, run: str, **filters: Any) -> Iterator[result_schemas.CompletionRead]:
        """Completions of an evaluation run, in their order; filters: verdict, decoding, eval_seed, benchmark."""
        return self._all(calls.completions(run, filters))

    def side_by_side(self, run: str, other: str, change: str | None = None) -> Iterator[result_schemas.CompletionPair]:
        """Completions of two evaluation runs by problem; `change`: gained, lost or flipped."""
        return self._all(calls.side_by_side(run, other, change))

    def scores(self) -> Iterator[service_schemas.ScoreRead]:
        """Score jobs with their figures, newest first."""
        return self._all(base.listing("/v1/scores", service_schemas.ScoreRead, {}))

    def benchmarks(self) -> Iterator[service_schemas.BenchmarkRead]:
        """Benchmarks that an evaluation may name."""
        return self._all(base.whole("/v1/benchmarks", service_schemas.BenchmarkRead))

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

    def compare(self, ids: Sequence[str]) -> subject_schemas.SideBySide:
        """Two to eight runs or checkpoints side by side: configurations, newest metrics, results."""
        return self._ask(calls.side_by_side_of(ids))

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


class AsyncResults(AsyncAsking):
    """The same, asynchronously."""

    async def submit_score(self, request: Any) -> schemas.JobRead:
        """Submits outputs to be graded: a `ScoreRequest`, or a document with the same fields."""
        return await self._ask(calls.score(request))

    async def score(self, job: str) -> service_schemas.ScoreRead:
        """A score job with its figures."""
        return await self._ask(calls.scored(job))

    def results(self, **filters: Any) -> AsyncIterator[result_schemas.ResultRead]:
        """Results; filters: experiment, job, run, method, benchmark, metric, decoding, train_seed, order."""
        return self._all(base.listing("/v1/results", result_schemas.ResultRead, filters))

    async def results_dicts(self, **filters: Any) -> list[dict[str, Any]]:
        """Results as plain dictionaries; filters as of `results`."""
        return [row.model_dump() async for row in self.results(**filters)]

    async def results_frame(self, **filters: Any) -> Any:
        """Results as a pandas DataFrame, a row each; see `Client.results_frame`."""
        return frame_of(await self.results_dicts(**filters))

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
        return self._all(base.listing("/v1/scores", service_schemas.ScoreRead, {}))

    def benchmarks(self) -> AsyncIterator[service_schemas.BenchmarkRead]:
        """Benchmarks that an evaluation may name."""
        return self._all(base.whole("/v1/benchmarks", service_schemas.BenchmarkRead))

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

    async def compare(self, ids: Sequence[str]) -> subject_schemas.SideBySide:
        """Two to eight runs or checkpoints side by side: configurations, newest metrics, results."""
        return await self._ask(calls.side_by_side_of(ids))

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
