"""Calls about checkpoints, their names, and data sets."""

from collections.abc import Mapping, Sequence
from typing import Literal

from api import schemas, service_schemas
from api.calls.base import Ask, AskList
from api.transport import ApiFailure, Call, body_of
from api.upload_formats import MEDIA_TYPES
from store.uploads import Format


def put_alias(name: str, checkpoint: str) -> Ask[service_schemas.AliasRead]:
    """A name for a checkpoint."""
    content = body_of({"checkpoint": checkpoint})
    return Ask(Call("PUT", f"/v1/aliases/{name}", content=content), service_schemas.AliasRead)


def delete_alias(name: str) -> Call:
    """The end of a name."""
    return Call("DELETE", f"/v1/aliases/{name}")


def pin(identifier: str, verb: Literal["pin", "unpin"]) -> Ask[schemas.CheckpointRead]:
    """The mark of a checkpoint to keep, or its end."""
    return Ask(Call("POST", f"/v1/checkpoints/{identifier}/{verb}"), schemas.CheckpointRead)


def upload_dataset(
    name: str, content: bytes, form: Format, text_fields: Sequence[str], origin: str
) -> Ask[service_schemas.DatasetRead]:
    """A new version of a data set."""
    query = {"name": name, "text_fields": ",".join(text_fields) or None, "origin": origin or None}
    call = Call("POST", "/v1/datasets", query, content=content, media_type=MEDIA_TYPES[form])
    return Ask(call, service_schemas.DatasetRead)


def split_dataset(
    identifier: str, parts: Mapping[str, float], key: str | None
) -> Ask[schemas.Page[service_schemas.DatasetRead]]:
    """Parts of a data set."""
    content = body_of({"parts": dict(parts), "key": key})
    call = Call("POST", f"/v1/datasets/{identifier}/splits", content=content)
    return Ask(call, schemas.Page[service_schemas.DatasetRead])


def keep_output(run: str, output: str, name: str) -> Ask[service_schemas.DatasetRead]:
    """A data set of what a run published."""
    call = Call("POST", f"/v1/runs/{run}/outputs/{output}/dataset", content=body_of({"name": name}))
    return Ask(call, service_schemas.DatasetRead)


def named_dataset(reference: str) -> Ask[schemas.Page[service_schemas.DatasetRead]]:
    """A page with the data set that `NAME` or `NAME@VERSION` means."""
    name, _, version = reference.removeprefix("dataset:").partition("@")
    query = {"name": name, "version": version or None, "limit": 1}
    return Ask(Call("GET", "/v1/datasets", query), schemas.Page[service_schemas.DatasetRead])


def only_dataset(found: schemas.Page[service_schemas.DatasetRead], reference: str) -> service_schemas.DatasetRead:
    """The data set of a page.

    Raises:
        ApiFailure: there is none.
    """
    if not found.data:
        raise ApiFailure(404, "not_found", f"there is no data set {reference[:80]!r}")
    return found.data[0]


def dataset_rows(identifier: str, after: int) -> AskList[service_schemas.DatasetRow]:
    """Rows of a data set."""
    path = f"/v1/datasets/{identifier}/rows"
    return AskList(path, service_schemas.DatasetRow, {"limit": 100}, str(after) if after else "")
