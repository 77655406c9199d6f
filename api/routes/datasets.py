"""Data sets: upload, list, look, preview rows."""

from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field, model_validator
from sqlalchemy.orm import Session

from api import service_schemas
from api.auth import requires
from api.bodies import Body
from api.conditional import object_response
from api.dependencies import DatabaseDep, SettingsDep
from api.errors import ApiError, FieldError
from api.failures import may_fail
from api.idempotency import OnceDep, Reply
from api.ids import parse_id
from api.pagination import ListingDep, make_page, page_response
from api.schemas import Page
from api.upload_formats import FORMATS
from api.uploads import UploadDep
from lco.config import Config
from store.derived_datasets import add_parts, split_rows
from store.errors import Invalid
from store.ids import encode_id
from store.models.dataset import Dataset
from store.quotas import admit_rows
from store.repositories.datasets import Datasets, rows_of
from store.specs import NAME_PATTERN
from store.uploads import MAX_NAME_CHARACTERS, Rows, keep_rows

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

_FILE: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_MAX_FIELDS = 16
MAX_NAME = 64
Part = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,31}$")]


@router.post(
    "",
    operation_id="datasets.create",
    status_code=201,
    response_model=service_schemas.DatasetRead,
    responses={200: {"model": service_schemas.DatasetRead, "description": "The newest version has these very rows."}},
    openapi_extra={"requestBody": {"required": True, "content": dict.fromkeys(FORMATS, _FILE)}},
)
@may_fail("invalid_rows", "busy_name")
@requires("write")
def create(
    settings: SettingsDep,
    upload: UploadDep,
    name: Annotated[
        str, Query(pattern=NAME_PATTERN, description="Name of the data set; the upload is a version of it.")
    ],
    text_fields: Annotated[
        str, Query(max_length=1024, description="Fields that must hold text in every row, separated by commas.")
    ] = "",
    origin: Annotated[
        str, Query(max_length=512, description="Where the rows come from, for people: an address, a revision.")
    ] = "",
) -> Response:
    """Uploads rows as the body, each of which is checked; a repetition adds nothing."""

    def first_look(rows: Rows) -> None:  # so that no file is kept for nothing; `add_version` decides
        with upload.once.database.read() as session:
            admit_rows(session, rows)

    rows = keep_rows(settings, upload.path, upload.format, _fields(text_fields), first_look)

    def work(session: Session) -> Reply:
        row, is_new = Datasets(session).add_version(name, upload.format, rows, {"kind": "upload", "from": origin})
        found = view(row)
        return Reply(201, found, location=f"/v1/datasets/{found.id}") if is_new else Reply(200, found, is_change=False)

    return upload.once.run(work)


@router.get("", operation_id="datasets.list", response_model=Page[service_schemas.DatasetRead])
@requires("read")
def list_datasets(
    request: Request,
    database: DatabaseDep,
    listing: ListingDep,
    name: Annotated[str | None, Query(pattern=NAME_PATTERN, description="Only versions of this data set.")] = None,
    version: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="Only this version.")] = None,
) -> Response:
    """Versions of data sets, newest first."""
    after, before = listing.cursors("ds")
    with database.read() as session:
        rows = Datasets(session).page(listing.limit, after, before, listing.order, name=name, version=version)
    data = [view(row) for row in rows.rows]
    return page_response(request, make_page(data, rows.has_more, [item.id for item in data]))


@router.get("/{ds_id}", operation_id="datasets.get", response_model=service_schemas.DatasetRead)
@requires("read")
def get(request: Request, database: DatabaseDep, ds_id: str) -> Response:
    """One version of a data set."""
    with database.read() as session:
        return object_response(request, view(Datasets(session).get(parse_id("ds", ds_id))))


@router.get("/{ds_id}/rows", operation_id="datasets.rows", response_model=Page[service_schemas.DatasetRow])
@requires("read")
def list_rows(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    ds_id: str,
    limit: Annotated[int, Query(ge=1, le=100, description="Rows on the page.")] = 20,
    after: Annotated[int, Query(ge=0, le=2**31 - 1, description="Begin after the row of this number.")] = 0,
) -> Response:
    """Rows in their order, numbered from 1."""
    with database.read() as session:
        dataset = Datasets(session).get(parse_id("ds", ds_id))
    rows, has_more = rows_of(settings, dataset, limit, after)
    data = [service_schemas.DatasetRow(number=after + position, fields=row) for position, row in enumerate(rows, 1)]
    return page_response(request, make_page(data, has_more, [str(row.number) for row in data]))


class SplitRequest(Config):
    """Into which parts a data set is split."""

    parts: Annotated[dict[Part, Annotated[float, Field(gt=0, le=1)]], Field(min_length=1, max_length=8)]
    """Part -> share of the keys, 0 to 1, at most 1 together. A part is the data set `NAME-PART`."""
    key: Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS)] | None = None
    """Field that decides: rows with one value are in one part. Null takes the whole row."""

    @model_validator(mode="after")
    def _parts_are_disjoint(self) -> Self:
        if sum(self.parts.values()) > 1 + 1e-9:
            raise ValueError("parts: the shares are more than 1 together")
        return self


@router.post(
    "/{ds_id}/splits",
    operation_id="datasets.split",
    status_code=201,
    response_model=Page[service_schemas.DatasetRead],
)
@may_fail("invalid", "invalid_rows", "busy_name")
@requires("write")
def split(
    database: DatabaseDep,
    settings: SettingsDep,
    ds_id: str,
    spec: Annotated[Any, Depends(Body(SplitRequest))],
    once: OnceDep,
) -> Response:
    """Parts of a data set by the hash of a key, each a data set; rows that are in no part are left out."""
    with database.read() as session:
        dataset = Datasets(session).get(parse_id("ds", ds_id))
    if (longest := max(spec.parts, key=len)) and len(f"{dataset.name}-{longest}") > MAX_NAME:
        raise Invalid(f"/parts/{longest}", f"the name {dataset.name}-{longest} is longer than {MAX_NAME} characters")
    parts = split_rows(settings, dataset, spec.parts, spec.key)

    def work(session: Session) -> Reply:
        made = [view(row) for row in add_parts(session, dataset, parts, spec.parts, spec.key)]
        return Reply(201, make_page(made, False, [item.id for item in made]))

    return once.run(work)


def view(row: Dataset) -> service_schemas.DatasetRead:
    """One version of a data set, for the wire."""
    return service_schemas.DatasetRead(
        id=encode_id("ds", row.id),
        name=row.name,
        version=row.version,
        source=f"dataset:{row.name}@{row.version}",
        format=row.format,
        sha256=row.sha256,
        num_rows=row.num_rows,
        size_bytes=row.size_bytes,
        columns=row.columns,
        origin=row.origin,
        created_at=row.created_at,
    )


def _fields(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if len(names) > _MAX_FIELDS or any(len(name) > MAX_NAME_CHARACTERS for name in names):
        message = f"at most {_MAX_FIELDS} names of at most {MAX_NAME_CHARACTERS} characters"
        error = FieldError(pointer="/query/text_fields", code="invalid_fields", message=message)
        raise ApiError(422, "invalid_parameter", message, [error])
    return names
