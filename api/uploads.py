"""Bodies that are files: streamed to disk, never held in memory, up to a cap of their own."""

import hashlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from api.dependencies import DatabaseDep, PrincipalDep, SettingsDep, TrailDep
from api.errors import ApiError
from api.idempotency import KeyHeader, Once, check_key, request_hash
from api.upload_formats import FORMATS
from store.uploads import Format, incoming_folder


@dataclass(frozen=True, slots=True)
class Upload:
    """A body on disk, removed after the request."""

    path: Path
    format: Format
    once: Once
    """What does the work of the request."""


async def get_upload(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    principal: PrincipalDep,
    trail: TrailDep,
    idempotency_key: KeyHeader = None,
) -> AsyncIterator[Upload]:
    """The body of a request as a file.

    Raises:
        ApiError: another media type, or more bytes than `LCO_DATASET_MAX_BYTES`.
    """
    check_key(idempotency_key)
    form = FORMATS.get(request.headers.get("content-type", "").partition(";")[0].strip().lower())
    if form is None:
        detail = f"send the rows as {', '.join(FORMATS)}"
        raise ApiError(415, "unsupported_media_type", detail, headers={"Accept-Post": ", ".join(FORMATS)})
    most = settings.dataset_max_bytes
    if int(request.headers.get("content-length", "0")) > most:
        raise _too_large(most)
    folder = await run_in_threadpool(incoming_folder, settings)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".upload") as stream:
        num_bytes = 0
        digest = hashlib.sha256()
        async for chunk in request.stream():
            num_bytes += len(chunk)
            if num_bytes > most:
                raise _too_large(most)
            digest.update(chunk)
            await run_in_threadpool(stream.write, chunk)
        await run_in_threadpool(stream.flush)
        request_sha256 = request_hash(request, f"{form} {digest.hexdigest()}".encode())
        once = Once(database, settings, principal, idempotency_key, request_sha256, trail)
        yield Upload(Path(stream.name), form, once)


def _too_large(most: int) -> ApiError:
    detail = f"the body has more than {most} bytes, which LCO_DATASET_MAX_BYTES allows"
    return ApiError(413, "body_too_large", detail, headers={"Connection": "close"})


UploadDep = Annotated[Upload, Depends(get_upload)]
