"""From suites and verdicts to wire models."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from api import suite_schemas as schemas
from api.views import shown_id
from store.ids import encode_id
from store.models.job import Job
from store.models.record import Checkpoint
from store.models.run import Run
from store.models.suite import Suite, Verdict
from store.repositories.suites import Counts, Suites, Verdicts
from store.suite_specs import Plan, whole_gates


def suites(session: Session, rows: Sequence[Suite]) -> list[schemas.SuiteRead]:
    """Suites as they are now."""
    versions = Suites(session).plans((row.id, row.version) for row in rows)
    counts = Verdicts(session).counts(row.id for row in rows)
    return [
        _suite(row, Plan.model_validate(versions[row.id, row.version].plan, strict=False), counts[row.id])
        for row in rows
    ]


def suite(session: Session, row: Suite) -> schemas.SuiteRead:
    """One suite as it is now."""
    return suites(session, [row])[0]


def _suite(row: Suite, plan: Plan, counts: Counts) -> schemas.SuiteRead:
    document = plan.model_dump(mode="json")
    return schemas.SuiteRead(
        id=encode_id("suite", row.id),
        name=row.name,
        description=row.description,
        version=row.version,
        benchmarks=document["benchmarks"],
        decodings=plan.decodings,
        eval_seeds=plan.eval_seeds,
        samples_per_example=plan.samples_per_example,
        baseline=plan.baseline,
        gates=[
            schemas.GateRead(
                benchmark=gate.benchmark,
                metric=gate.metric,
                decoding=gate.decoding,
                unit=gate.unit,
                min_value=gate.min_value,
                max_drop=gate.max_drop,
            )
            for gate in whole_gates(plan)
        ],
        level=plan.level,
        promote=document["promote"],
        triggers=row.triggers,
        spec={"name": row.name, "description": row.description, **document, "triggers": row.triggers},
        counts=schemas.VerdictCounts(
            passed=counts.by_outcome.get("pass", 0),
            regressed=counts.by_outcome.get("regressed", 0),
            improved=counts.by_outcome.get("improved", 0),
            inconclusive=counts.by_outcome.get("inconclusive", 0),
            open=counts.num_open,
            error=counts.num_errors,
        ),
        archived_at=row.archived_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def verdicts(session: Session, rows: Sequence[Verdict]) -> list[schemas.VerdictRead]:
    """Verdicts."""
    names = Suites(session).names(row.suite_id for row in rows)
    checkpoints = checkpoint_names(
        session, [one for row in rows for one in (row.checkpoint_id, row.baseline_id) if one]
    )
    runs = _runs(session, [one for row in rows for one in (row.job_id, row.baseline_job_id) if one])
    return [
        schemas.VerdictRead(
            id=encode_id("vrd", row.id),
            suite_id=encode_id("suite", row.suite_id),
            suite_name=names[row.suite_id],
            version=row.version,
            checkpoint_id=encode_id("ckpt", row.checkpoint_id),
            checkpoint_name=checkpoints[row.checkpoint_id],
            baseline_id=shown_id("ckpt", row.baseline_id),
            baseline_name=checkpoints[row.baseline_id] if row.baseline_id else "",
            cause=row.cause,
            state=row.state,
            outcome=row.outcome,
            reason=row.reason,
            level=row.level,
            gates=[schemas.GateVerdict(**figures) for figures in row.figures],
            job_id=shown_id("job", row.job_id),
            run_id=shown_id("run", runs.get(row.job_id) if row.job_id else None),
            baseline_job_id=shown_id("job", row.baseline_job_id),
            baseline_run_id=shown_id("run", runs.get(row.baseline_job_id) if row.baseline_job_id else None),
            promoted_alias=row.promoted_alias or None,
            promotion_note=row.promotion_note or None,
            created_at=row.created_at,
            decided_at=row.decided_at,
        )
        for row in rows
    ]


def verdict(session: Session, row: Verdict) -> schemas.VerdictRead:
    """One verdict."""
    return verdicts(session, [row])[0]


def history(session: Session, suite_id: UUID, limit: int) -> schemas.HistoryRead:
    """How the gated metrics of a suite went over its newest verdicts."""
    rows = Verdicts(session).history(suite_id, limit)
    names = checkpoint_names(session, [checkpoint.id for _, checkpoint in rows])
    series: dict[tuple[str, str, str], schemas.HistorySeries] = {}
    for row, checkpoint in rows:
        for figures in row.figures:
            place = figures["benchmark"], figures["metric"], figures["decoding"]
            one = series.setdefault(
                place,
                schemas.HistorySeries(
                    benchmark=place[0], metric=place[1], decoding=place[2], unit=figures["unit"], points=[]
                ),
            )
            one.points.append(_point(row, checkpoint, names[checkpoint.id], figures))
    return schemas.HistoryRead(suite_id=encode_id("suite", suite_id), series=list(series.values()))


def _point(row: Verdict, checkpoint: Checkpoint, name: str, figures: dict[str, Any]) -> schemas.HistoryPoint:
    assert row.baseline_id is not None, row.id
    baseline, stderr = figures["baseline_value"], figures["baseline_stderr"]
    half = None if baseline is None or stderr is None else 1.96 * stderr
    return schemas.HistoryPoint(
        verdict_id=encode_id("vrd", row.id),
        version=row.version,
        checkpoint_id=encode_id("ckpt", checkpoint.id),
        checkpoint_name=name,
        checkpoint_created_at=checkpoint.created_at,
        outcome=figures["outcome"],
        value=figures["value"],
        stderr=figures["stderr"],
        baseline_id=encode_id("ckpt", row.baseline_id),
        baseline_value=baseline,
        baseline_low=None if half is None else baseline - half,
        baseline_high=None if half is None else baseline + half,
        min_value=figures["min_value"],
        max_drop=figures["max_drop"],
    )


def checkpoint_names(session: Session, checkpoint_ids: Sequence[UUID]) -> dict[UUID, str]:
    """What checkpoints are called for a person: the job that made each, its seed and step."""
    query = (
        select(Checkpoint.id, Checkpoint.step, Job.name, Run.seed)
        .outerjoin(Run, Run.id == Checkpoint.run_id)
        .outerjoin(Job, Job.id == Run.job_id)
        .where(Checkpoint.id.in_(sorted(set(checkpoint_ids))))
    )
    return {
        row.id: f"{row.name}, seed {row.seed}, step {row.step}" if row.name else f"step {row.step}"
        for row in session.execute(query)
    }


def _runs(session: Session, job_ids: Sequence[UUID]) -> dict[UUID, UUID]:
    """The first run of each of some evaluation jobs, which has one."""
    query = select(Run.job_id, Run.id).where(Run.job_id.in_(sorted(set(job_ids)))).order_by(Run.id.desc())
    return {row.job_id: row.id for row in session.execute(query)}
