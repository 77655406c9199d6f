"""From runs and checkpoints side by side to their wire model."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from api import subject_schemas as schemas
from api.errors import ApiError, FieldError
from api.result_views import unit_of
from store.ids import encode_id
from store.subjects import Subject, configuration_differences, label, measured, newest_metrics, subjects

MAX_SUBJECTS = 8


def identifiers(text: str) -> list[str]:
    """The ids of a query parameter, separated by commas.

    Raises:
        ApiError: there are fewer than two or too many, or one stands twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not 2 <= len(names) <= MAX_SUBJECTS or len(set(names)) != len(names):
        message = f"name 2 to {MAX_SUBJECTS} different runs or checkpoints, separated by commas"
        raise ApiError(
            422, "invalid_parameter", message, [FieldError(pointer="/query/ids", code="invalid_ids", message=message)]
        )
    return names


def side_by_side(session: Session, names: Sequence[str]) -> schemas.SideBySide:
    """Runs and checkpoints side by side.

    Raises:
        Invalid: one does not exist.
    """
    found = subjects(session, names)
    return schemas.SideBySide(
        subjects=[_subject(one) for one in found],
        configuration=[
            schemas.DifferenceOverSubjects(pointer=pointer, values=values)
            for pointer, values in configuration_differences(found)
        ],
        metrics=[schemas.MetricOverSubjects(key=row.key, values=row.values) for row in newest_metrics(found)],
        results=[
            schemas.ResultOverSubjects(
                benchmark=row.benchmark,
                metric=row.metric,
                decoding=row.decoding,
                configuration=row.configuration,
                unit=unit_of(row.benchmark, row.metric),
                values=row.values,
                num_eval_seeds=row.num_eval_seeds,
            )
            for row in measured(session, found)
        ],
    )


def _subject(one: Subject) -> schemas.SubjectRead:
    return schemas.SubjectRead(
        id=one.id,
        label=label(one),
        run_id=encode_id("run", one.run.id),
        job_id=encode_id("job", one.job.id),
        kind=one.run.kind,
        method=one.job.method,
        seed=one.run.seed,
        state=one.run.state,
    )
