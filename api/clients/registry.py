"""Checkpoints, their names, and data sets."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from api import schemas, service_schemas, transport
from api.calls import base
from api.calls import registry as calls
from api.clients.base import Asking, AsyncAsking
from store.uploads import Format


class Registry(Asking):
    """Checkpoints, their names, and data sets."""

    def checkpoints(self, **filters: Any) -> Iterator[schemas.CheckpointRead]:
        """Checkpoints, newest first; filters: run, job, experiment, kind, pinned, deleted, order."""
        return self._all(base.listing("/v1/checkpoints", schemas.CheckpointRead, filters))

    def pin(self, checkpoint: str) -> schemas.CheckpointRead:
        """Marks a checkpoint as one to keep."""
        return self._ask(calls.pin(checkpoint, "pin"))

    def unpin(self, checkpoint: str) -> schemas.CheckpointRead:
        """Takes that mark away."""
        return self._ask(calls.pin(checkpoint, "unpin"))

    def aliases(self) -> Iterator[service_schemas.AliasRead]:
        """Names for checkpoints, in alphabetical order."""
        return self._all(base.listing("/v1/aliases", service_schemas.AliasRead, {}))

    def set_alias(self, name: str, checkpoint: str) -> service_schemas.AliasRead:
        """Gives a published model a name: jobs take it as `alias:NAME`."""
        return self._ask(calls.put_alias(name, checkpoint))

    def remove_alias(self, name: str) -> None:
        """Takes a name away; the checkpoint stays."""
        transport.content(self._send(calls.delete_alias(name)))

    def upload_dataset(
        self, name: str, content: bytes, form: Format, *, text_fields: Sequence[str] = (), origin: str = ""
    ) -> service_schemas.DatasetRead:
        """Uploads rows as a new version of a data set; equal rows again add none.

        Args:
            form: how the content is written: `jsonl`, `csv` or `parquet`.
            text_fields: fields that must hold text in every row.
            origin: where the rows come from, for people.
        """
        return self._ask(calls.upload_dataset(name, content, form, text_fields, origin))

    def split_dataset(
        self, identifier: str, parts: Mapping[str, float], *, key: str | None = None
    ) -> list[service_schemas.DatasetRead]:
        """Parts of a data set by the hash of a key, each the data set `NAME-PART`; parts: name -> share of the keys."""
        return (self._ask(calls.split_dataset(identifier, parts, key))).data

    def keep_output(self, run: str, output: str, name: str) -> service_schemas.DatasetRead:
        """Makes a data set of the pairs or completions that a run published."""
        return self._ask(calls.keep_output(run, output, name))

    def dataset(self, reference: str) -> service_schemas.DatasetRead:
        """A version of a data set: by id, `NAME@VERSION`, or `NAME` for the newest."""
        if reference.startswith("ds_"):
            return self._ask(base.get(reference, service_schemas.DatasetRead))
        return calls.only_dataset(self._ask(calls.named_dataset(reference)), reference)

    def datasets(self, **filters: Any) -> Iterator[service_schemas.DatasetRead]:
        """Versions of data sets, newest first; filters: name, version, order."""
        return self._all(base.listing("/v1/datasets", service_schemas.DatasetRead, filters))

    def dataset_rows(self, identifier: str, *, after: int = 0) -> Iterator[service_schemas.DatasetRow]:
        """Rows of a data set in their order."""
        return self._all(calls.dataset_rows(identifier, after))


class AsyncRegistry(AsyncAsking):
    """The same, asynchronously."""

    def checkpoints(self, **filters: Any) -> AsyncIterator[schemas.CheckpointRead]:
        """Checkpoints, newest first; filters: run, job, experiment, kind, pinned, deleted, order."""
        return self._all(base.listing("/v1/checkpoints", schemas.CheckpointRead, filters))

    async def pin(self, checkpoint: str) -> schemas.CheckpointRead:
        """Marks a checkpoint as one to keep."""
        return await self._ask(calls.pin(checkpoint, "pin"))

    async def unpin(self, checkpoint: str) -> schemas.CheckpointRead:
        """Takes that mark away."""
        return await self._ask(calls.pin(checkpoint, "unpin"))

    def aliases(self) -> AsyncIterator[service_schemas.AliasRead]:
        """Names for checkpoints, in alphabetical order."""
        return self._all(base.listing("/v1/aliases", service_schemas.AliasRead, {}))

    async def set_alias(self, name: str, checkpoint: str) -> service_schemas.AliasRead:
        """Gives a published model a name: jobs take it as `alias:NAME`."""
        return await self._ask(calls.put_alias(name, checkpoint))

    async def remove_alias(self, name: str) -> None:
        """Takes a name away; the checkpoint stays."""
        transport.content(await self._send(calls.delete_alias(name)))

    async def upload_dataset(
        self, name: str, content: bytes, form: Format, *, text_fields: Sequence[str] = (), origin: str = ""
    ) -> service_schemas.DatasetRead:
        """Uploads rows as a new version of a data set; equal rows again add none.

        Args:
            form: how the content is written: `jsonl`, `csv` or `parquet`.
            text_fields: fields that must hold text in every row.
            origin: where the rows come from, for people.
        """
        return await self._ask(calls.upload_dataset(name, content, form, text_fields, origin))

    async def split_dataset(
        self, identifier: str, parts: Mapping[str, float], *, key: str | None = None
    ) -> list[service_schemas.DatasetRead]:
        """Parts of a data set by the hash of a key, each the data set `NAME-PART`; parts: name -> share of the keys."""
        return (await self._ask(calls.split_dataset(identifier, parts, key))).data

    async def keep_output(self, run: str, output: str, name: str) -> service_schemas.DatasetRead:
        """Makes a data set of the pairs or completions that a run published."""
        return await self._ask(calls.keep_output(run, output, name))

    async def dataset(self, reference: str) -> service_schemas.DatasetRead:
        """A version of a data set: by id, `NAME@VERSION`, or `NAME` for the newest."""
        if reference.startswith("ds_"):
            return await self._ask(base.get(reference, service_schemas.DatasetRead))
        return calls.only_dataset(await self._ask(calls.named_dataset(reference)), reference)

    def datasets(self, **filters: Any) -> AsyncIterator[service_schemas.DatasetRead]:
        """Versions of data sets, newest first; filters: name, version, order."""
        return self._all(base.listing("/v1/datasets", service_schemas.DatasetRead, filters))

    def dataset_rows(self, identifier: str, *, after: int = 0) -> AsyncIterator[service_schemas.DatasetRow]:
        """Rows of a data set in their order."""
        return self._all(calls.dataset_rows(identifier, after))
