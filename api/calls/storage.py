"""Calls about what is kept: expiry and deletion, lineage, registered models, collections, usage."""

from typing import Any

from api import registry_schemas, schemas
from api.calls.base import Ask, AskList, address, get, listing
from api.transport import ApiFailure, Call, body_of


def update_checkpoint(identifier: str, etag: str, changes: dict[str, Any]) -> Ask[schemas.CheckpointRead]:
    """A change of a checkpoint's pin or expiry, meant for the version that was read."""
    get(identifier, schemas.CheckpointRead)
    path = f"/v1/checkpoints/{identifier}"
    call = Call("PATCH", path, content=body_of(changes), headers={"If-Match": etag})
    return Ask(call, schemas.CheckpointRead)


def delete(identifier: str) -> Call:
    """The end of a checkpoint, a job, a run, an experiment or a registered model.

    Raises:
        ApiFailure: what the id is of cannot be deleted.
    """
    path, _ = address(identifier)
    if identifier.partition("_")[0] not in ("ckpt", "job", "run", "exp", "mdl"):
        raise ApiFailure(0, "no-id", f"{identifier} is of a kind that is not deleted here")
    return Call("DELETE", path)


def lineage(identifier: str) -> Ask[registry_schemas.LineageRead]:
    """Where a checkpoint comes from, and what was made of it."""
    get(identifier, schemas.CheckpointRead)
    return Ask(Call("GET", f"/v1/checkpoints/{identifier}/lineage"), registry_schemas.LineageRead)


def register_model(name: str, hub_id: str | None, revision: str | None) -> Ask[registry_schemas.ModelRead]:
    """A model from the hub; without its id there, the directory of that name."""
    source = {"kind": "hub", "hub_id": hub_id, "revision": revision or ""} if hub_id else {"kind": "local"}
    content = body_of({"name": name, "source": source})
    return Ask(Call("POST", "/v1/models", content=content), registry_schemas.ModelRead)


def models(name: str | None) -> AskList[registry_schemas.ModelRead]:
    """Registered models."""
    return listing("/v1/models", registry_schemas.ModelRead, {"name": name})


def collect(*, dry_run: bool) -> Ask[registry_schemas.GcRead]:
    """A collection of garbage."""
    return Ask(Call("POST", "/v1/gc", content=body_of({"dry_run": dry_run})), registry_schemas.GcRead)


def usage() -> Ask[registry_schemas.UsageRead]:
    """What takes how much room."""
    return Ask(Call("GET", "/v1/usage"), registry_schemas.UsageRead)


def export(identifier: str, form: str, start: int, etag: str) -> Call:
    """The archive of a model, from a position on."""
    get(identifier, schemas.CheckpointRead)
    headers = {"Range": f"bytes={start}-", "If-Range": etag} if start else {}
    return Call("GET", f"/v1/checkpoints/{identifier}/export", {"form": form}, headers=headers)
