"""Samplings: what a few policies say to a few prompts, by a job of kind `sample`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy.orm import Session

from api import schemas, views
from api.auth import requires
from api.bodies import Body
from api.conditional import object_response
from api.dependencies import DatabaseDep, SettingsDep
from api.failures import may_fail
from api.idempotency import OnceDep, Reply
from api.ids import parse_id
from api.pagination import ListingDep, make_page, page_response
from api.sample_schemas import SampledPolicy, SampledRow, SampleRead
from evaluation.sample_config import SAMPLES, SampleConfig
from store.artifacts import run_directory
from store.errors import Invalid, NotFound
from store.repositories.jobs import Jobs
from store.repositories.runs import Runs
from store.settings import Settings
from store.sources import spec_of
from store.specs import SampleRequest, SampleSpec
from store.submission import submit_job

router = APIRouter(prefix="/v1/samples", tags=["samples"])

MAX_BYTES = 1 << 25
"""Of the file of a sampling that is read."""


@router.post("", operation_id="samples.create", status_code=201, response_model=SampleRead)
@may_fail("invalid")
@requires("write")
def create(
    sample: Annotated[Any, Depends(Body(SampleRequest, toml=True))], settings: SettingsDep, once: OnceDep
) -> Response:
    """Submits prompts to be completed by one to four policies."""

    def work(session: Session) -> Reply:
        try:
            job = submit_job(session, sample.spec(), settings)
        except Invalid as error:
            raise Invalid(error.pointer.removeprefix("/config"), error.message) from error
        found = read(session, settings, job.id)
        return Reply(201, found, location=f"/v1/samples/{found.id}")

    return once.run(work)


@router.get("", operation_id="samples.list", response_model=schemas.Page[SampleRead])
@requires("read")
def list_samples(request: Request, database: DatabaseDep, settings: SettingsDep, listing: ListingDep) -> Response:
    """Samplings without their completions, newest first."""
    after, before = listing.cursors("job")
    with database.read() as session:
        rows = Jobs(session).page(listing.limit, after, before, listing.order, kind="sample")
        data = [read(session, settings, row.id, with_rows=False) for row in rows.rows]
    return page_response(request, make_page(data, rows.has_more, [item.id for item in data]))


@router.get("/{job_id}", operation_id="samples.get", response_model=SampleRead)
@requires("read")
def get(request: Request, database: DatabaseDep, settings: SettingsDep, job_id: str) -> Response:
    """One sampling with the completions that are there so far."""
    with database.read() as session:
        return object_response(request, read(session, settings, parse_id("job", job_id)))


def read(session: Session, settings: Settings, job_id: UUID, *, with_rows: bool = True) -> SampleRead:
    """A sampling as the wire shows it.

    Raises:
        NotFound: there is no such job, or it samples nothing.
    """
    job = views.job(session, job_id)
    if job.kind != "sample":
        raise NotFound("sample", job.id)
    spec = spec_of(Jobs(session).get(job_id).spec)
    assert isinstance(spec, SampleSpec)
    (row,) = Runs(session).of_jobs([job_id])[job_id]
    run = views.run(session, row.id)
    directory = run_directory(settings, row.reused_run_id or row.id, row.output_attempt or row.attempt)
    return SampleRead(
        id=job.id,
        run_id=run.id,
        name=job.name,
        status=job.status,
        progress=run.progress,
        error=run.error,
        policies=_policies(spec.config),
        prompts=spec.config.prompts,
        decodings=spec.config.decodings,
        eval_seeds=spec.config.eval_seeds,
        max_tokens=spec.config.max_tokens,
        num_completions=spec.config.num_completions,
        rows=list(_rows(directory / SAMPLES)) if with_rows else [],
        created_at=job.created_at,
    )


def _policies(config: SampleConfig) -> list[SampledPolicy]:
    found = []
    for one in config.policies:
        source = one.policy if isinstance(one.policy, str) else "pi*"
        found.append(SampledPolicy(source=source, label=one.label or source))
    return found


def _rows(path: Path) -> Iterator[SampledRow]:
    """The whole lines of the file, which may grow; none before it is there."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES)
    except OSError:
        return
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        try:
            yield SampledRow.model_validate_json(line)
        except ValueError:
            continue
