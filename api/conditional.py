"""Single objects with a strong ETag, so that polling an unchanged one costs a 304 and no body."""

import hashlib

from fastapi import Request, Response
from pydantic import BaseModel


def object_response(request: Request, body: BaseModel) -> Response:
    """An object as a response; 304 when the client has it already. The ETag is a hash of the very bytes."""
    content = body.model_dump_json().encode()
    etag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Authorization, Cookie"}
    if matches(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    return Response(content, 200, headers, "application/json")


def matches(header: str, etag: str) -> bool:
    """Whether an `If-None-Match` header names an ETag (weak comparison, RFC 9110 13.1.2)."""
    candidates = [part.strip().removeprefix("W/") for part in header.split(",")]
    return header.strip() == "*" or etag in candidates
