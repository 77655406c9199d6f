"""Suites: create, list, look, change, archive; the verdicts and the history of one."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field, TypeAdapter, ValidationError
from sqlalchemy.orm import Session

from api import suite_schemas as schemas
from api import suite_views as views
from api.auth import requires
from api.bodies import Body, no_body
from api.conditional import object_response
from api.dependencies import DatabaseDep, PrincipalDep, SettingsDep
from api.errors import ApiError, body_errors, describe
from api.failures import may_fail
from api.idempotency import Once, OnceDep, Reply
from api.ids import parse_id
from api.pagination import ListingDep, cursor, make_page, page_response
from api.schemas import Page
from lco.config import Config
from store.documents import merged
from store.errors import Invalid, NotFound
from store.regression import change_suite, create_suite, document_of_suite, request_verdict, resolve_checkpoint
from store.repositories.suites import Suites, Verdicts
from store.specs import NAME_PATTERN
from store.suite_specs import BASELINE_PATTERN, SuiteSpec

router = APIRouter(prefix="/v1/suites", tags=["suites"])

State = Annotated[str | None, Query(pattern="^(pending|running|decided|error)$", description="Only this state.")]
Outcome = Annotated[
    str | None, Query(pattern="^(pass|regressed|improved|inconclusive)$", description="Only this outcome.")
]
_SPEC: TypeAdapter[SuiteSpec] = TypeAdapter(SuiteSpec)


class VerdictRequest(Config):
    """What is to be judged."""

    checkpoint: Annotated[str, Field(pattern=BASELINE_PATTERN)]
    """A published model: `ckpt_...`, or `alias:NAME` for the one that has the name now."""
    cause: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]+$")] = "manual"
    """What asks, for a person."""


@router.post("", operation_id="suites.create", status_code=201, response_model=schemas.SuiteRead)
@may_fail("invalid", "name_taken")
@requires("write")
def create(spec: Annotated[Any, Depends(Body(SuiteSpec, toml=True))], once: OnceDep) -> Response:
    """Creates a suite: its first version."""

    def work(session: Session) -> Reply:
        found = views.suite(session, create_suite(session, spec))
        return Reply(201, found, location=f"/v1/suites/{found.id}")

    return once.run(work)


@router.get("", operation_id="suites.list", response_model=Page[schemas.SuiteRead])
@requires("read")
def list_suites(
    request: Request,
    database: DatabaseDep,
    listing: ListingDep,
    name: Annotated[str | None, Query(pattern=NAME_PATTERN, description="Only the suite of this name.")] = None,
    archived: Annotated[
        bool | None, Query(description="Only those out of use, or only those in use; all unless told.")
    ] = None,
) -> Response:
    """Suites, newest first."""
    after, before = listing.cursors("suite")
    with database.read() as session:
        rows = Suites(session).page(listing.limit, after, before, listing.order, name=name, is_archived=archived)
        data = views.suites(session, rows.rows)
    return page_response(request, make_page(data, rows.has_more, [item.id for item in data]))


@router.get("/{suite_id}", operation_id="suites.get", response_model=schemas.SuiteRead)
@requires("read")
def get(request: Request, database: DatabaseDep, suite_id: str) -> Response:
    """One suite, as it is now."""
    with database.read() as session:
        return object_response(request, views.suite(session, Suites(session).get(parse_id("suite", suite_id))))


@router.patch("/{suite_id}", operation_id="suites.update", response_model=schemas.SuiteRead)
@may_fail("invalid", "name_taken", "archived")
@requires("write")
def update(
    request: Request,
    database: DatabaseDep,
    suite_id: str,
    patch: Annotated[Any, Depends(Body(dict[str, Any]))],
) -> Response:
    """Changes a suite: the body is a JSON Merge Patch (RFC 7396) of its `spec`.

    A new version is made where what is measured or asked changes; name, description and triggers make none.
    """
    identifier = parse_id("suite", suite_id)
    with database.write() as session:
        suite = Suites(session).locked(identifier)
        document = merged(document_of_suite(session, suite), patch)
        try:
            spec = _SPEC.validate_json(json.dumps(document).encode())
        except ValidationError as error:
            errors = body_errors(error, document)
            raise ApiError(422, "invalid_body", describe(errors), errors) from None
        found = views.suite(session, change_suite(session, identifier, spec))
    return object_response(request, found)


@router.post(
    "/{suite_id}/archive",
    operation_id="suites.archive",
    response_model=schemas.SuiteRead,
    dependencies=[Depends(no_body)],
)
@requires("write")
def archive(suite_id: str, once: OnceDep) -> Response:
    """Takes a suite out of use: nothing triggers it, and no verdict may be asked for. What it said stays."""
    return _archived(suite_id, once, is_archived=True)


@router.post(
    "/{suite_id}/restore",
    operation_id="suites.restore",
    response_model=schemas.SuiteRead,
    dependencies=[Depends(no_body)],
)
@requires("write")
def restore(suite_id: str, once: OnceDep) -> Response:
    """Takes an archived suite into use again; checkpoints that were written meanwhile trigger nothing."""
    return _archived(suite_id, once, is_archived=False)


def _archived(suite_id: str, once: Once, *, is_archived: bool) -> Response:
    identifier = parse_id("suite", suite_id)

    def work(session: Session) -> Reply:
        return Reply(200, views.suite(session, Suites(session).archive(identifier, is_archived=is_archived)))

    return once.run(work)


@router.post(
    "/{suite_id}/verdicts",
    operation_id="suites.judge",
    status_code=201,
    response_model=schemas.VerdictRead,
    responses={200: {"model": schemas.VerdictRead, "description": "The verdict was asked for before."}},
)
@may_fail("invalid", "archived")
@requires("write")
def judge(
    suite_id: str,
    asked: Annotated[Any, Depends(Body(VerdictRequest))],
    settings: SettingsDep,
    principal: PrincipalDep,
    once: OnceDep,
) -> Response:
    """Asks for the current version's verdict on a checkpoint; there is one, however often it is asked for."""
    identifier = parse_id("suite", suite_id)

    def work(session: Session) -> Reply:
        suite = Suites(session).get(identifier)
        try:
            checkpoint_id = resolve_checkpoint(session, asked.checkpoint)
        except (NotFound, ValueError) as error:
            raise Invalid("/checkpoint", str(error)) from None
        known = Verdicts(session).page(100, suite_id=identifier, checkpoint_id=checkpoint_id).rows
        is_known = any(row.version == suite.version for row in known)
        row = request_verdict(
            session,
            settings,
            suite_id=identifier,
            checkpoint_id=checkpoint_id,
            cause=asked.cause,
            project_id=principal.project_id,
        )
        found = views.verdict(session, row)
        return Reply(200 if is_known else 201, found, location=f"/v1/verdicts/{found.id}")

    return once.run(work)


@router.get("/{suite_id}/verdicts", operation_id="suites.verdicts", response_model=Page[schemas.VerdictRead])
@requires("read")
def list_verdicts(
    request: Request,
    database: DatabaseDep,
    suite_id: str,
    listing: ListingDep,
    state: State = None,
    outcome: Outcome = None,
    checkpoint: Annotated[str | None, Query(max_length=64, description="Only of this checkpoint.")] = None,
) -> Response:
    """Verdicts of a suite, of all its versions, newest first."""
    after, before = listing.cursors("vrd")
    checkpoint_id = cursor("ckpt", checkpoint, "checkpoint")
    with database.read() as session:
        suite = Suites(session).get(parse_id("suite", suite_id))
        rows = Verdicts(session).page(
            listing.limit,
            after,
            before,
            listing.order,
            suite_id=suite.id,
            checkpoint_id=checkpoint_id,
            state=state,
            outcome=outcome,
        )
        data = views.verdicts(session, rows.rows)
    return page_response(request, make_page(data, rows.has_more, [item.id for item in data]))


@router.get("/{suite_id}/history", operation_id="suites.history", response_model=schemas.HistoryRead)
@may_fail("not_found")
@requires("read")
def history(
    request: Request,
    database: DatabaseDep,
    suite_id: str,
    limit: Annotated[int, Query(ge=1, le=500, description="The newest decided verdicts that are shown.")] = 100,
) -> Response:
    """Every gated metric from checkpoint to checkpoint, in the order of their writing, beside the baseline."""
    with database.read() as session:
        suite = Suites(session).get(parse_id("suite", suite_id))
        return object_response(request, views.history(session, suite.id, limit))
