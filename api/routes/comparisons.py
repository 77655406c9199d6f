"""Comparisons: every method against a baseline, over train seeds and over examples."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from api import service_schemas, subject_schemas
from api.auth import requires
from api.conditional import object_response
from api.dependencies import DatabaseDep
from api.errors import ApiError, FieldError
from api.failures import may_fail
from api.ids import parse_id
from api.pagination import make_page, page_response
from api.result_views import unit_of
from api.schemas import Page
from api.subject_views import identifiers, side_by_side
from store.comparison import MethodComparison, compare_methods, example_shares
from store.errors import Invalid
from store.repositories.jobs import Experiments
from store.repositories.records import Results
from store.statistics import results_table

router = APIRouter(prefix="/v1/comparisons", tags=["comparisons"])
SIGNIFICANCE = 0.05
"""Level of the mark in tables, after Holm's correction."""


@router.get("", operation_id="comparisons.list", response_model=Page[service_schemas.ComparisonRead])
@may_fail("invalid", "not_found")
@requires("read")
def list_comparisons(
    request: Request,
    database: DatabaseDep,
    experiment: Annotated[
        str | None, Query(max_length=64, description="The experiment whose methods are compared.")
    ] = None,
    baseline: Annotated[
        str | None, Query(max_length=64, description="The method that the others are compared with.")
    ] = None,
    metric: Annotated[str | None, Query(max_length=128, description="Only this metric.")] = None,
    benchmark: Annotated[str | None, Query(max_length=128, description="Only this benchmark.")] = None,
    decoding: Annotated[str | None, Query(max_length=128, description="Only this decoding.")] = None,
) -> Response:
    """Every other method less the baseline, paired by train seed and, for Pass@1, by example; all on one page.

    The t-test's p-values are corrected for many comparisons (Holm), over all that this request returns.
    """
    for name, value in (("experiment", experiment), ("baseline", baseline)):
        if value is None:
            error = FieldError(pointer=f"/query/{name}", code="missing", message="this is required")
            raise ApiError(422, "invalid_parameter", f"{error.pointer}: {error.message}", [error])
    with database.read() as session:
        found = comparisons(
            session, experiment or "", baseline or "", metric=metric, benchmark=benchmark, decoding=decoding
        )
    data = [shown(one) for one in found]
    return page_response(request, make_page(data, False, [f"{item.method}/{item.metric}" for item in data]))


@router.get("/runs", operation_id="comparisons.runs", response_model=subject_schemas.SideBySide)
@may_fail("invalid", "not_found")
@requires("read")
def compare_runs(
    request: Request,
    database: DatabaseDep,
    ids: Annotated[str, Query(max_length=512, description="Ids of 2 to 8 runs or checkpoints, separated by commas.")],
) -> Response:
    """Runs and checkpoints side by side: where their configurations differ, newest metrics, what was measured."""
    with database.read() as session:
        return object_response(request, side_by_side(session, identifiers(ids)))


def comparisons(session: Session, experiment: str, baseline: str, **filters: str | None) -> list[MethodComparison]:
    """The comparisons of an experiment's methods with one of them.

    Raises:
        NotFound: there is no such experiment.
        Invalid: it has no results of the baseline.
    """
    experiment_id = parse_id("exp", experiment)
    Experiments(session).get(experiment_id)
    rows = results_table(Results(session).all(experiment_id=experiment_id))
    kept = [row for row in rows if all(value in (None, getattr(row, name)) for name, value in filters.items())]
    try:
        return compare_methods(kept, baseline, example_shares(session, experiment_id=experiment_id))
    except ValueError as error:
        raise Invalid("/query/baseline", str(error)) from error


def shown(one: MethodComparison) -> service_schemas.ComparisonRead:
    """A comparison as the wire shows it."""
    return service_schemas.ComparisonRead(**asdict(one), unit=unit_of(one.benchmark, one.metric))
