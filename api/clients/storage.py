"""What is kept: expiry and deletion, lineage, export, registered models, collections, usage."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal

import httpx2

from api import registry_schemas, schemas, transport
from api.calls import storage as calls
from api.clients.base import Asking, AsyncAsking
from api.unpacking import Partial

Form = Literal["merged", "adapter"]
_EXPORT_TRIES = 5


class Storage(Asking):
    """What is kept."""

    def expire(self, checkpoint: str, days: float | None) -> schemas.CheckpointRead:
        """Lets a checkpoint end in so many days; None: never by itself. What holds it then keeps it."""
        return self._changed(checkpoint, {"expires_in_days": days})

    def _changed(self, checkpoint: str, changes: dict[str, Any]) -> schemas.CheckpointRead:
        etag = self._etag(checkpoint)
        return self._ask(calls.update_checkpoint(checkpoint, etag, changes))

    def _etag(self, checkpoint: str) -> str:
        response = self._send(transport.Call("GET", f"/v1/checkpoints/{checkpoint}"))
        transport.document(response)
        return str(response.headers["etag"])

    def delete(self, identifier: str) -> None:
        """Deletes a checkpoint, an ended job, run or experiment, or a registered model; refused while it is held."""
        transport.content(self._send(calls.delete(identifier)))

    def lineage(self, checkpoint: str) -> registry_schemas.LineageRead:
        """Where a checkpoint comes from, and what was made of it."""
        return self._ask(calls.lineage(checkpoint))

    def export(self, checkpoint: str, directory: Path, *, form: Form = "merged") -> list[str]:
        """Downloads a published model into a directory that is new or empty, and checks every file; their names.

        An interrupted download goes on where it was when it is asked for again.

        Raises:
            ApiFailure: the API refuses, cannot be reached, or what came is damaged.
            ValueError: the directory holds something.
        """
        partial = _partial(directory)
        what = f"{self.url} {checkpoint} {form}"
        for tries in range(_EXPORT_TRIES):
            start, etag = partial.begun(what)
            call = calls.export(checkpoint, form, start, etag)
            arguments = call.arguments()
            arguments["headers"] = {**self._headers, **arguments["headers"]}
            try:
                with self._http.stream(**arguments) as response:
                    if response.status_code == 416:  # all of it is there already
                        break
                    if response.status_code >= 300:
                        response.read()
                        raise transport.failure(response)
                    is_rest = response.status_code == 206
                    partial.receive(what, response.headers["etag"], response.iter_bytes(), is_rest=is_rest)
                break
            except httpx2.TransportError as error:
                if tries + 1 == _EXPORT_TRIES:
                    raise transport.unreachable(error, self.url) from error
        return partial.unpack()

    def register_model(
        self, name: str, *, hub_id: str | None = None, revision: str | None = None
    ) -> registry_schemas.ModelRead:
        """Makes a model available as `model:NAME`: from the hub at a commit, or as it lies below the models root."""
        return self._ask(calls.register_model(name, hub_id, revision))

    def models(self, *, name: str | None = None) -> Iterator[registry_schemas.ModelRead]:
        """Registered models, newest first."""
        return self._all(calls.models(name))

    def collect_garbage(self, *, dry_run: bool = False) -> registry_schemas.GcRead:
        """Removes what expired and what nothing needs, or says what would go."""
        return self._ask(calls.collect(dry_run=dry_run))

    def usage(self) -> registry_schemas.UsageRead:
        """What takes how much room."""
        return self._ask(calls.usage())


class AsyncStorage(AsyncAsking):
    """The same, asynchronously."""

    async def expire(self, checkpoint: str, days: float | None) -> schemas.CheckpointRead:
        """Lets a checkpoint end in so many days; None: never by itself. What holds it then keeps it."""
        response = await self._send(transport.Call("GET", f"/v1/checkpoints/{checkpoint}"))
        transport.document(response)
        changes = {"expires_in_days": days}
        return await self._ask(calls.update_checkpoint(checkpoint, str(response.headers["etag"]), changes))

    async def delete(self, identifier: str) -> None:
        """Deletes a checkpoint, an ended job, run or experiment, or a registered model; refused while it is held."""
        transport.content(await self._send(calls.delete(identifier)))

    async def lineage(self, checkpoint: str) -> registry_schemas.LineageRead:
        """Where a checkpoint comes from, and what was made of it."""
        return await self._ask(calls.lineage(checkpoint))

    async def export(self, checkpoint: str, directory: Path, *, form: Form = "merged") -> list[str]:
        """Downloads a published model into a directory that is new or empty, and checks every file; their names.

        An interrupted download goes on where it was when it is asked for again.

        Raises:
            ApiFailure: the API refuses, cannot be reached, or what came is damaged.
            ValueError: the directory holds something.
        """
        partial = _partial(directory)
        what = f"{self.url} {checkpoint} {form}"
        for tries in range(_EXPORT_TRIES):
            start, etag = partial.begun(what)
            call = calls.export(checkpoint, form, start, etag)
            arguments = call.arguments()
            arguments["headers"] = {**self._headers, **arguments["headers"]}
            try:
                async with self._http.stream(**arguments) as response:
                    if response.status_code == 416:  # all of it is there already
                        break
                    if response.status_code >= 300:
                        await response.aread()
                        raise transport.failure(response)
                    is_rest = response.status_code == 206
                    partial.receive(what, response.headers["etag"], (), is_rest=is_rest)
                    async for block in response.aiter_bytes():
                        partial.receive(what, "", (block,), is_rest=True)
                break
            except httpx2.TransportError as error:
                if tries + 1 == _EXPORT_TRIES:
                    raise transport.unreachable(error, self.url) from error
        return partial.unpack()

    async def register_model(
        self, name: str, *, hub_id: str | None = None, revision: str | None = None
    ) -> registry_schemas.ModelRead:
        """Makes a model available as `model:NAME`: from the hub at a commit, or as it lies below the models root."""
        return await self._ask(calls.register_model(name, hub_id, revision))

    def models(self, *, name: str | None = None) -> AsyncIterator[registry_schemas.ModelRead]:
        """Registered models, newest first."""
        return self._all(calls.models(name))

    async def collect_garbage(self, *, dry_run: bool = False) -> registry_schemas.GcRead:
        """Removes what expired and what nothing needs, or says what would go."""
        return await self._ask(calls.collect(dry_run=dry_run))

    async def usage(self) -> registry_schemas.UsageRead:
        """What takes how much room."""
        return await self._ask(calls.usage())


def _partial(directory: Path) -> Partial:
    directory = directory.absolute()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ValueError(f"{directory} holds something; name a new directory")
    directory.parent.mkdir(parents=True, exist_ok=True)
    return Partial(directory)
