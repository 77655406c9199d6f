"""What runs leave behind: events, logs, checkpoints, results and completions. Metrics have a file of their own."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session, aliased

from store.errors import Gone, NotFound
from store.ids import encode_id
from store.models.job import Job
from store.models.record import Checkpoint, Completion, Configuration, Event, LogChunk, Result
from store.models.run import Run
from store.repositories.paging import Order, Page, keyset_page
from store.tombstones import absent

Change = Literal["gained", "lost", "flipped"]
_SAME = ("benchmark", "decoding", "example_id", "sample_index")


class Events:
    """Queries of events."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def page(
        self,
        job_id: UUID,
        limit: int = 100,
        after: int | None = None,
        before: int | None = None,
        order: Order = "asc",
        *,
        run_id: UUID | None = None,
        type: str | None = None,
        level: str | None = None,
    ) -> Page[Event]:
        """Events of a job by their gapless sequence number."""
        query = select(Event).where(Event.job_id == job_id)
        for column, value in ((Event.run_id, run_id), (Event.type, type), (Event.level, level)):
            if value is not None:
                query = query.where(column == value)
        return keyset_page(self._session, query, Event.seq, limit=limit, after=after, before=before, order=order)


class Logs:
    """Queries of the output of runs."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def chunks(
        self, run_id: UUID, after: tuple[int, int] | None = None, limit: int = 100, attempt: int | None = None
    ) -> Page[LogChunk]:
        """Pieces of a run's output in their order.

        Args:
            after: (attempt, chunk) of the last piece seen.
            attempt: of this attempt alone.
        """
        query = select(LogChunk).where(LogChunk.run_id == run_id)
        if attempt is not None:
            query = query.where(LogChunk.attempt == attempt)
        if after is not None:
            last_attempt, last_chunk = after
            query = query.where(
                (LogChunk.attempt > last_attempt) | ((LogChunk.attempt == last_attempt) & (LogChunk.chunk > last_chunk))
            )
        found = list(self._session.scalars(query.order_by(LogChunk.attempt, LogChunk.chunk).limit(limit + 1)))
        return Page(found[:limit], len(found) > limit)

    def heads(self, run_ids: Iterable[UUID]) -> dict[UUID, tuple[int, int]]:
        """For each of some runs with output: newest attempt, and how many pieces there are."""
        query = (
            select(LogChunk.run_id, func.max(LogChunk.attempt), func.count())
            .where(LogChunk.run_id.in_(list(run_ids)))
            .group_by(LogChunk.run_id)
        )
        return {run_id: (attempt, count) for run_id, attempt, count in self._session.execute(query)}

    def tail(self, run_id: UUID, num_chunks: int = 20, attempt: int | None = None) -> list[LogChunk]:
        """The last pieces of a run's output, in their order."""
        query = select(LogChunk).where(LogChunk.run_id == run_id)
        if attempt is not None:
            query = query.where(LogChunk.attempt == attempt)
        newest = query.order_by(LogChunk.attempt.desc(), LogChunk.chunk.desc()).limit(num_chunks)
        return list(self._session.scalars(newest))[::-1]


class Checkpoints:
    """Queries of checkpoints."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, checkpoint_id: UUID, *, is_deleted_too: bool = False, is_locked: bool = False) -> Checkpoint:
        """One checkpoint.

        Args:
            is_deleted_too: also one whose files are no more.
            is_locked: nobody else changes it before this transaction ends.

        Raises:
            NotFound: there is none.
            Gone: it was deleted.
        """
        checkpoint = self._session.get(Checkpoint, checkpoint_id, with_for_update=is_locked)
        if checkpoint is None:
            raise absent(self._session, "checkpoint", checkpoint_id)
        if checkpoint.deleted_at is not None and not is_deleted_too:
            shown = encode_id("ckpt", checkpoint_id)
            raise Gone("checkpoint", shown, checkpoint.deleted_reason, checkpoint.deleted_at)
        return checkpoint

    def pin(self, checkpoint_id: UUID, *, is_pinned: bool = True) -> Checkpoint:
        """Marks a checkpoint as one to keep, or takes the mark away.

        Raises:
            NotFound: there is none.
        """
        checkpoint = self.get(checkpoint_id)
        checkpoint.is_pinned = is_pinned
        self._session.flush()
        return checkpoint

    def page(
        self,
        limit: int = 20,
        after: UUID | None = None,
        before: UUID | None = None,
        order: Order = "desc",
        *,
        run_id: UUID | None = None,
        job_id: UUID | None = None,
        kind: str | None = None,
        experiment_id: UUID | None = None,
        is_pinned: bool | None = None,
        is_deleted: bool = False,
    ) -> Page[Checkpoint]:
        """Checkpoints that meet every filter given."""
        query = select(Checkpoint).where(
            Checkpoint.deleted_at.is_not(None) if is_deleted else Checkpoint.deleted_at.is_(None)
        )
        if job_id is not None or experiment_id is not None:
            query = query.join(Run, Run.id == Checkpoint.run_id)
        if job_id is not None:
            query = query.where(Run.job_id == job_id)
        if experiment_id is not None:
            query = query.join(Job, Job.id == Run.job_id).where(Job.experiment_id == experiment_id)
        if is_pinned is not None:
            query = query.where(Checkpoint.is_pinned == is_pinned)
        if run_id is not None:
            query = query.where(Checkpoint.run_id == run_id)
        if kind is not None:
            query = query.where(Checkpoint.kind == kind)
        return keyset_page(self._session, query, Checkpoint.id, limit=limit, after=after, before=before, order=order)


class Results:
    """Queries of results and completions."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, result_id: UUID) -> Result:
        """One result.

        Raises:
            NotFound: there is none.
        """
        result = self._session.get(Result, result_id)
        if result is None:
            raise NotFound("result", encode_id("res", result_id))
        return result

    def page(
        self,
        limit: int = 20,
        after: UUID | None = None,
        before: UUID | None = None,
        order: Order = "desc",
        *,
        experiment_id: UUID | None = None,
        job_id: UUID | None = None,
        run_id: UUID | None = None,
        checkpoint_id: UUID | None = None,
        method: str | None = None,
        benchmark: str | None = None,
        metric: str | None = None,
        decoding: str | None = None,
        train_seed: int | None = None,
        eval_seed: int | None = None,
    ) -> Page[Result]:
        """Results that meet every filter given."""
        query = select(Result)
        for column, value in (
            (Result.experiment_id, experiment_id),
            (Result.job_id, job_id),
            (Result.run_id, run_id),
            (Result.checkpoint_id, checkpoint_id),
            (Result.method, method),
            (Result.benchmark, benchmark),
            (Result.metric, metric),
            (Result.decoding, decoding),
            (Result.train_seed, train_seed),
            (Result.eval_seed, eval_seed),
        ):
            if value is not None:
                query = query.where(column == value)
        return keyset_page(self._session, query, Result.id, limit=limit, after=after, before=before, order=order)

    def of_checkpoint(self, checkpoint_id: UUID) -> list[Result]:
        """Every result that was measured on a checkpoint."""
        mine = select(Result).where(Result.checkpoint_id == checkpoint_id)
        return list(self._session.scalars(mine.order_by(Result.id)))

    def all(self, *, experiment_id: UUID | None = None, job_id: UUID | None = None) -> list[Result]:
        """Every result of an experiment or a job, for `statistics.results_table`."""
        assert (experiment_id is None) != (job_id is None)
        is_wanted = Result.job_id == job_id if experiment_id is None else Result.experiment_id == experiment_id
        return list(self._session.scalars(select(Result).where(is_wanted).order_by(Result.id)))

    def configurations(self, hashes: Iterable[str]) -> dict[str, dict[str, Any]]:
        """What results of these configurations measured, by hash; unknown hashes are left out."""
        query = select(Configuration.hash, Configuration.document).where(Configuration.hash.in_(sorted(set(hashes))))
        return {row.hash: row.document for row in self._session.execute(query.order_by(Configuration.hash))}

    def expected_seeds(self, *, experiment_id: UUID | None = None, job_id: UUID | None = None) -> dict[str, set[int]]:
        """The train seeds that each method was to be evaluated on, whether or not it was."""
        assert (experiment_id is None) != (job_id is None)
        is_wanted = Job.id == job_id if experiment_id is None else Job.experiment_id == experiment_id
        query = select(Job.method, Run.seed).join(Run, Run.job_id == Job.id).where(is_wanted, Job.kind == "evaluation")
        seeds: dict[str, set[int]] = defaultdict(set)
        for method, seed in self._session.execute(query):
            seeds[method].add(seed)
        return dict(seeds)

    def completions(
        self,
        run_id: UUID,
        limit: int = 100,
        after: int | None = None,
        before: int | None = None,
        order: Order = "asc",
        *,
        benchmark: str | None = None,
        decoding: str | None = None,
        eval_seed: int | None = None,
        example_id: str | None = None,
        verdict: str | None = None,
    ) -> Page[Completion]:
        """Completions of a run, or of the run that it reused, by their position."""
        reused = self._session.scalar(select(Run.reused_run_id).where(Run.id == run_id))
        query = select(Completion).where(Completion.run_id == (reused or run_id))
        for column, value in (
            (Completion.benchmark, benchmark),
            (Completion.decoding, decoding),
            (Completion.eval_seed, eval_seed),
            (Completion.example_id, example_id),
            (Completion.verdict, verdict),
        ):
            if value is not None:
                query = query.where(column == value)
        return keyset_page(
            self._session, query, Completion.position, limit=limit, after=after, before=before, order=order
        )

    def side_by_side(
        self,
        run_id: UUID,
        other_id: UUID,
        limit: int = 100,
        after: int | None = None,
        before: int | None = None,
        order: Order = "asc",
        *,
        change: Change | None = None,
    ) -> Page[tuple[Completion, Completion]]:
        """Pairs of completions by two runs: the same problem, decoding, eval seed and sample, in the first run's order.

        Args:
            change: `gained` where the second run is right and the first wrong, `lost` the other way, `flipped` for
                either; all pairs unless told.
        """
        owners = select(func.coalesce(Run.reused_run_id, Run.id))
        first_run, second_run = (self._session.scalar(owners.where(Run.id == one)) for one in (run_id, other_id))
        second = aliased(Completion)
        is_same = and_(
            second.run_id == second_run,
            second.eval_seed.is_not_distinct_from(Completion.eval_seed),
            *(getattr(second, name) == getattr(Completion, name) for name in _SAME),
        )
        query = select(Completion).join(second, is_same).where(Completion.run_id == first_run)
        if change is not None:
            gained = and_(second.correct.is_(True), Completion.correct.is_(False))
            lost = and_(second.correct.is_(False), Completion.correct.is_(True))
            query = query.where({"gained": gained, "lost": lost, "flipped": or_(gained, lost)}[change])
        found = keyset_page(
            self._session, query, Completion.position, limit=limit, after=after, before=before, order=order
        )
        examples = {row.example_id for row in found.rows}
        others = select(Completion).where(Completion.run_id == second_run, Completion.example_id.in_(examples))
        by_place = {_place(row): row for row in self._session.scalars(others)}
        return Page([(row, by_place[_place(row)]) for row in found.rows], found.has_more)

    def num_completions(self, run_id: UUID) -> int:
        """How many completions a run has."""
        return self._session.execute(
            select(func.count()).select_from(Completion).where(Completion.run_id == run_id)
        ).scalar_one()

    def all_completions(self, run_id: UUID, batch: int = 500) -> Iterator[Completion]:
        """Every completion of a run in its order, read in batches."""
        after: int | None = None
        while True:
            page = self.completions(run_id, batch, after=after)
            yield from page.rows
            if not page.has_more:
                return
            after = page.rows[-1].position


def _place(row: Completion) -> tuple[Any, ...]:
    return row.eval_seed, *(getattr(row, name) for name in _SAME)
