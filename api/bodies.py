"""Request bodies: read strictly, validated as JSON (where a list may be a tuple), described in OpenAPI."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fastapi import Request
from pydantic import TypeAdapter, ValidationError

from api import strict_json
from api.errors import ApiError, FieldError, body_errors, describe
from store.document_parts import check_assumed
from store.errors import Invalid
from store.matrix import expand, is_matrix
from store.search import check_search
from store.specs import ExperimentSpec

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

    async def document(self, request: Request) -> Any:
        """The body as it was sent, parsed strictly."""
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in self.media_types:
            raise ApiError(
                415,
                "unsupported_media_type",
                f"send the body as {' or '.join(self.media_types)}",
                headers={"Accept-Post": ", ".join(self.media_types)},
            )
        content = await request.body()
        return strict_json.loads(content) if media_type == JSON else strict_json.loads_toml(content)

    async def __call__(self, request: Request) -> T:
        """The body, validated."""
        document = await self.document(request)
        text = json.dumps(document).encode()
        try:
            return self.adapter.validate_json(text)
        except ValidationError as error:
            errors = body_errors(error, document)
            raise ApiError(422, "invalid_body", describe(errors), errors) from None


@dataclass(frozen=True, slots=True)
class SubmittedExperiment:
    """An experiment and the document that it was made of."""

    spec: ExperimentSpec
    document: dict[str, Any]


class ExperimentBody(Body[ExperimentSpec]):
    """A dependency that gives the experiment of a body, its matrix expanded; errors name the place in the template."""

    def __init__(self) -> None:
        super().__init__(ExperimentSpec, toml=True)

    async def __call__(self, request: Request) -> SubmittedExperiment:  # type: ignore[override]
        """The experiment."""
        document = await self.document(request)
        return experiment_of(document)


_EXPERIMENT: TypeAdapter[ExperimentSpec] = TypeAdapter(ExperimentSpec)
_JOB_POINTER = re.compile(r"/jobs/(?P<position>\d+)(?P<rest>/.*)?")


def experiment_of(document: Any) -> SubmittedExperiment:
    """The experiment that a document describes, its matrix expanded.

    Raises:
        Invalid: the matrix is wrong, or `assumed` names a place that the document does not have.
        ApiError: the expanded experiment is wrong.
    """
    if isinstance(document, dict):
        check_assumed(document)
    if not is_matrix(document):
        return SubmittedExperiment(_experiment(document, document, None), document)
    expanded = expand(document)
    return SubmittedExperiment(_experiment(expanded.document, document, expanded.origins), document)


def _experiment(plain: Any, document: Any, origins: Sequence[int] | None) -> ExperimentSpec:
    try:
        spec = _EXPERIMENT.validate_json(json.dumps(plain).encode())
        check_search(spec)
        return spec
    except Invalid as error:
        field = FieldError(pointer=error.pointer, code="invalid", message=error.message)
        if origins is not None:
            field = template_error(field, plain, origins)
        raise Invalid(field.pointer, field.message) from None
    except ValidationError as error:
        errors = body_errors(error, plain)
        if origins is not None:
            errors = [template_error(field, plain, origins) for field in errors]
        raise ApiError(422, "invalid_body", describe(errors), errors) from None


def template_error(error: FieldError, plain: dict[str, Any], origins: Sequence[int]) -> FieldError:
    """The error of an expanded job as one of its template, with the job's name."""
    match = _JOB_POINTER.fullmatch(error.pointer)
    if match is None or int(match["position"]) >= len(origins):
        return error
    position = int(match["position"])
    name = plain["jobs"][position].get("name") if isinstance(plain["jobs"][position], dict) else None
    told = f" (in the job {name})" if isinstance(name, str) and len(name) <= 64 and name.isprintable() else ""
    pointer = f"/jobs/{origins[position]}{match['rest'] or ''}"
    return error.model_copy(update={"pointer": pointer, "message": error.message + told})


async def no_body(request: Request) -> None:
    """Refuses a body where none has a meaning; an empty JSON object is none."""
    content = await request.body()
    if content.strip() not in (b"", b"{}"):
        raise ApiError(422, "unexpected_body", "this request takes no body")
