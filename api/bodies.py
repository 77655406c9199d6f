"""Request bodies: read strictly, validated as JSON (where a list may be a tuple), described in OpenAPI."""

import json
from typing import Any, Generic, TypeVar

from fastapi import Request
from pydantic import TypeAdapter, ValidationError

from api import strict_json
from api.errors import ApiError, body_errors, describe

T = TypeVar("T")

JSON = "application/json"
TOML = "application/toml"


class Body(Generic[T]):
    """A dependency that gives the validated body of a request; runs after authentication.

    Args:
        model: what the body must be; any type that pydantic knows.
        toml: whether `application/toml` is accepted as well.
    """

    def __init__(self, model: Any, *, toml: bool = False) -> None:
        self.adapter: TypeAdapter[T] = TypeAdapter(model)
        self.media_types = (JSON, TOML) if toml else (JSON,)

    async def __call__(self, request: Request) -> T:
        """The body, validated."""
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in self.media_types:
            raise ApiError(
                415,
                "unsupported_media_type",
                f"send the body as {' or '.join(self.media_types)}",
                headers={"Accept-Post": ", ".join(self.media_types)},
            )
        content = await request.body()
        document = strict_json.loads(content) if media_type == JSON else strict_json.loads_toml(content)
        text = content if media_type == JSON else json.dumps(document).encode()
        try:
            return self.adapter.validate_json(text)
        except ValidationError as error:
            errors = body_errors(error, document)
            raise ApiError(422, "invalid_body", describe(errors), errors) from None


async def no_body(request: Request) -> None:
    """Refuses a body where none has a meaning; an empty JSON object is none."""
    content = await request.body()
    if content.strip() not in (b"", b"{}"):
        raise ApiError(422, "unexpected_body", "this request takes no body")
