"""Bodies that are files: streamed to disk, never held in memory, up to a cap of their own."""

import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from api.dependencies import SettingsDep
from api.errors import ApiError
from store.uploads import Format, incoming_folder

FORMATS: dict[str, Format] = {
    "application/jsonl": "jsonl",
    "application/x-ndjson": "jsonl",
    "text/csv": "csv",
    "application/vnd.apache.parquet": "parquet",
}
"""Media type -> how the rows are written."""
MEDIA_TYPES: dict[Format, str] = {
    "jsonl": "application/jsonl",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}
SUFFIXES: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True, slots=True)
class Upload:
    """A body on disk, removed after the request."""

    path: Path
    format: Format


async def get_upload(request: Request, settings: SettingsDep) -> AsyncIterator[Upload]:
    """The body of a request as a file.

    Raises:
        ApiError: another media type, or more bytes than `LCO_DATASET_MAX_BYTES`.
    """
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
        async for chunk in request.stream():
            num_bytes += len(chunk)
            if num_bytes > most:
                raise _too_large(most)
            await run_in_threadpool(stream.write, chunk)
        await run_in_threadpool(stream.flush)
        yield Upload(Path(stream.name), form)


def _too_large(most: int) -> ApiError:
    detail = f"the body has more than {most} bytes, which LCO_DATASET_MAX_BYTES allows"
    return ApiError(413, "body_too_large", detail, headers={"Connection": "close"})


UploadDep = Annotated[Upload, Depends(get_upload)]
