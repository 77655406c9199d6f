"""Pages of data: data sets and the rows of one."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from api.auth import requires
from api.dashboard.lists import PER_PAGE, Cursor, pager
from api.dashboard.pages import page
from api.dependencies import DatabaseDep, SettingsDep
from api.ids import parse_id
from api.pagination import cursor
from api.routes.datasets import view
from store.repositories.datasets import Datasets, rows_of

router = APIRouter(include_in_schema=False)

_LONGEST_TEXT = 2000


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row as text, a cell for each field of the data set."""

    number: int
    texts: list[str]


@router.get("/datasets")
@requires("read")
def datasets(
    request: Request, database: DatabaseDep, settings: SettingsDep, after: Cursor = None, before: Cursor = None
) -> Response:
    """Versions of data sets, newest first, and the form that uploads one."""
    with database.read() as session:
        rows = Datasets(session).page(PER_PAGE, cursor("ds", after, "after"), cursor("ds", before, "before"))
    data = [view(row) for row in rows.rows]
    return page(
        request,
        "datasets.html",
        datasets=data,
        most=f"{settings.dataset_max_bytes / 1e6:g} MB",
        links=pager("/datasets", {}, rows, [item.id for item in data], after, before),
        twin="/v1/datasets",
    )


@router.get("/datasets/{ds_id}")
@requires("read")
def dataset(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    ds_id: str,
    after: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> Response:
    """One version of a data set, some of its rows at a time."""
    with database.read() as session:
        found = Datasets(session).get(parse_id("ds", ds_id))
    rows, has_more = rows_of(settings, found, PER_PAGE, after)
    here = f"/datasets/{ds_id}"
    return page(
        request,
        "dataset.html",
        dataset=view(found),
        rows=[
            ShownRow(after + position, [_text(row, name) for name in found.columns])
            for position, row in enumerate(rows, 1)
        ],
        links={
            "before": f"{here}?after={max(0, after - PER_PAGE)}" if after else None,
            "after": f"{here}?after={after + PER_PAGE}" if has_more else None,
        },
        twin=f"/v1/datasets/{ds_id}",
    )


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name, "")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
