"""Data sets: their versions, and the rows of one."""

import itertools
import json
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from store.artifacts import dataset_file
from store.confinement import project_of
from store.database import database_time
from store.errors import Conflict, NotFound
from store.ids import encode_id
from store.models.dataset import Dataset
from store.quotas import admit_rows
from store.repositories.paging import Order, Page, keyset_page
from store.settings import Settings
from store.uploads import Format, Rows

_MAX_TRIES = 10


class Datasets:
    """Queries of data sets."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, dataset_id: UUID) -> Dataset:
        """One version of a data set.

        Raises:
            NotFound: there is none.
        """
        dataset = self._session.get(Dataset, dataset_id)
        if dataset is None:
            raise NotFound("data set", encode_id("ds", dataset_id))
        return dataset

    def page(
        self,
        limit: int = 20,
        after: UUID | None = None,
        before: UUID | None = None,
        order: Order = "desc",
        *,
        name: str | None = None,
        version: int | None = None,
    ) -> Page[Dataset]:
        """Versions that meet every filter given."""
        query = select(Dataset)
        for column, value in ((Dataset.name, name), (Dataset.version, version)):
            if value is not None:
                query = query.where(column == value)
        return keyset_page(self._session, query, Dataset.id, limit=limit, after=after, before=before, order=order)

    def add_version(self, name: str, form: Format, rows: Rows, origin: dict[str, Any]) -> tuple[Dataset, bool]:
        """The next version of a data set, and True; the newest one and False where its rows are equal.

        Args:
            origin: see `Dataset.origin`.

        Raises:
            Conflict: others added versions of the same name all the time; the project is archived; or these rows
                would exceed its storage.
        """
        project_id = project_of(self._session)
        versions = select(Dataset).where(Dataset.project_id == project_id, Dataset.name == name)
        newest = versions.order_by(Dataset.version.desc()).limit(1)
        for _ in range(_MAX_TRIES):
            last = self._session.scalar(newest)
            if last is not None and last.sha256 == rows.sha256:
                return last, False
            admit_rows(self._session, rows)
            dataset = Dataset(
                project_id=project_id,
                name=name,
                version=1 if last is None else last.version + 1,
                sha256=rows.sha256,
                format=form,
                path=rows.path,
                num_rows=rows.num_rows,
                size_bytes=rows.size_bytes,
                columns=rows.columns,
                origin=origin,
                created_at=database_time(self._session),
            )
            try:
                with self._session.begin_nested():
                    self._session.add(dataset)
            except IntegrityError:  # the same name at the same moment: count on from the other one's version
                continue
            return dataset, True
        raise Conflict("busy_name", "others add versions of this data set at this moment; retry")


def rows_of(settings: Settings, dataset: Dataset, limit: int, after: int = 0) -> tuple[list[dict[str, Any]], bool]:
    """Some rows of a data set, those after row number `after`; and whether more follow.

    Raises:
        NotFound: the file is gone.
    """
    try:
        place = dataset_file(settings, dataset)
    except ValueError:
        raise NotFound("file of the data set", dataset.path) from None
    with place.open("rb") as stream:
        lines = list(itertools.islice(stream, after, after + limit + 1))
    return [json.loads(line) for line in lines[:limit]], len(lines) > limit
