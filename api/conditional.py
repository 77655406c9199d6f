"""Single objects with a strong ETag, so that polling an unchanged one costs a 304 and no body."""

import hashlib
import re

from fastapi import Request, Response
from pydantic import BaseModel

from api.errors import ApiError


def etag_of(body: BaseModel) -> str:
    """The strong ETag of an object: a hash of the very bytes."""
    return f'"{hashlib.sha256(body.model_dump_json().encode()).hexdigest()[:24]}"'


def require_match(request: Request, body: BaseModel, *, is_required: bool = True) -> None:
    """Refuses a change that is meant for another version of an object than the one there is.

    Raises:
        ApiError: 428 without `If-Match`, where it is required; 412 where it names another version.
    """
    header = request.headers.get("if-match", "")
    if not header and not is_required:
        return
    if not header:
        raise ApiError(428, "if_match_required", "send the object's ETag as If-Match, so that no change is lost")
    if not matches(header, etag_of(body)):
        raise ApiError(412, "stale", "the object has changed since this ETag was read; read it again")


def object_response(request: Request, body: BaseModel) -> Response:
    """An object as a response; 304 when the client has it already."""
    content = body.model_dump_json().encode()
    etag = etag_of(body)
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Authorization, Cookie"}
    if matches(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    return Response(content, 200, headers, "application/json")


def matches(header: str, etag: str) -> bool:
    """Whether an `If-None-Match` header names an ETag (weak comparison, RFC 9110 13.1.2)."""
    candidates = [part.strip().removeprefix("W/") for part in header.split(",")]
    return header.strip() == "*" or etag in candidates


def wanted_range(request: Request, size: int, etag: str) -> tuple[int, int]:
    """The bytes that a request wants, as start and end without it: one range, or all where there is none that counts.

    Raises:
        ApiError: 416 where there is nothing in the range.
    """
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    condition = request.headers.get("if-range", "")
    if match is None or (condition and condition != etag) or match[0] == "bytes=-":
        return 0, size
    first, last = match["first"], match["last"]
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last) + 1, size) if first and last else size
    if start >= min(end, size):
        headers = {"Content-Range": f"bytes */{size}"}
        raise ApiError(416, "range_not_satisfiable", "there is nothing in this range", headers=headers)
    return start, end


_RANGE = re.compile(r"bytes=(?P<first>[0-9]{0,18})-(?P<last>[0-9]{0,18})")
