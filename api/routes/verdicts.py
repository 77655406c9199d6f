"""Verdicts: list, look, try again."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy.orm import Session

from api import suite_schemas as schemas
from api import suite_views as views
from api.auth import requires
from api.bodies import no_body
from api.conditional import object_response
from api.dependencies import DatabaseDep, SettingsDep
from api.failures import may_fail
from api.idempotency import OnceDep, Reply
from api.ids import parse_id
from api.pagination import ListingDep, cursor, make_page, page_response
from api.routes.suites import Outcome, State
from api.schemas import Page
from store.regression import retry_verdict
from store.repositories.suites import Verdicts

router = APIRouter(prefix="/v1/verdicts", tags=["suites"])


@router.get("", operation_id="verdicts.list", response_model=Page[schemas.VerdictRead])
@requires("read")
def list_verdicts(
    request: Request,
    database: DatabaseDep,
    listing: ListingDep,
    suite: Annotated[str | None, Query(max_length=64, description="Only of this suite.")] = None,
    checkpoint: Annotated[str | None, Query(max_length=64, description="Only of this checkpoint.")] = None,
    state: State = None,
    outcome: Outcome = None,
) -> Response:
    """Verdicts, newest first."""
    after, before = listing.cursors("vrd")
    suite_id, checkpoint_id = cursor("suite", suite, "suite"), cursor("ckpt", checkpoint, "checkpoint")
    with database.read() as session:
        rows = Verdicts(session).page(
            listing.limit,
            after,
            before,
            listing.order,
            suite_id=suite_id,
            checkpoint_id=checkpoint_id,
            state=state,
            outcome=outcome,
        )
        data = views.verdicts(session, rows.rows)
    return page_response(request, make_page(data, rows.has_more, [item.id for item in data]))


@router.get("/{vrd_id}", operation_id="verdicts.get", response_model=schemas.VerdictRead)
@requires("read")
def get(request: Request, database: DatabaseDep, vrd_id: str) -> Response:
    """One verdict, with the numbers of every gate."""
    with database.read() as session:
        return object_response(request, views.verdict(session, Verdicts(session).get(parse_id("vrd", vrd_id))))


@router.post(
    "/{vrd_id}/retry",
    operation_id="verdicts.retry",
    response_model=schemas.VerdictRead,
    dependencies=[Depends(no_body)],
)
@may_fail("invalid_state")
@requires("write")
def retry(vrd_id: str, settings: SettingsDep, once: OnceDep) -> Response:
    """Tries a verdict that ended in an error again: the baseline is looked up anew, failed evaluations are repeated."""
    identifier = parse_id("vrd", vrd_id)

    def work(session: Session) -> Reply:
        return Reply(200, views.verdict(session, retry_verdict(session, settings, identifier)))

    return once.run(work)
