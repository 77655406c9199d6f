"""Errors on the wire: RFC 9457 problem details for every route and status; the only place where an error gets a status.

No message repeats a value of the request: a body may hold a secret in the wrong field.
"""

import logging
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.types import Scope

from api.strict_json import StrictJsonError, escape_pointer
from store.errors import Conflict, Full, Gone, Invalid, InvalidRows, NotFound, NotYours
from store.objects import StoreUnavailable

logger = logging.getLogger("lco.api")

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2
_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}


class FieldError(BaseModel):
    """One wrong value of a request."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    pointer: str
    """JSON Pointer into the body; `/query/NAME`, `/path/NAME` or `/header/NAME` for the other parts of a request."""
    code: str
    """Short name of what is wrong."""
    message: str
    """The same for a person; never repeats the value."""


class Problem(BaseModel):
    """The body of every error (RFC 9457)."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str
    """Where the code is explained."""
    title: str
    """The status in words."""
    status: int
    """The HTTP status."""
    detail: str
    """What went wrong, for a person."""
    instance: str
    """Path of the request."""
    code: str
    """Short name of what went wrong, for a program."""
    request_id: str
    """Also in the header `X-Request-ID` and in the server's log."""
    errors: list[FieldError] = []
    """The wrong values, where there are any."""
    current: str | None = None
    """For a conflict: the state that stands in the way."""


class ApiError(Exception):
    """An error of the HTTP layer itself, with its status."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: Sequence[FieldError] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = list(errors)
        self.headers = headers or {}


def title_of(status: int) -> str:
    """A status in words."""
    return _TITLES.get(status) or HTTPStatus(status).phrase


def make_problem(
    scope: Scope, status: int, code: str, detail: str, errors: Sequence[FieldError] = (), current: str | None = None
) -> Problem:
    """The problem of one request."""
    return Problem(
        type=f"/docs#problem-{code}",
        title=title_of(status),
        status=status,
        detail=detail,
        instance=printable(scope["path"]),
        code=code,
        request_id=scope.get("lco.request_id", ""),
        errors=list(errors),
        current=current,
    )


def problem_response(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """A problem as a response."""
    return Response(problem.model_dump_json(exclude_none=True), problem.status, headers, MEDIA_TYPE)


def printable(text: str) -> str:
    """A path that any reader of JSON accepts: what is no valid Unicode becomes a question mark."""
    return text.encode("utf-8", "replace").decode()[:2048]


def answer(
    request: Request,
    status: int,
    code: str,
    detail: str,
    errors: Sequence[FieldError] = (),
    headers: dict[str, str] | None = None,
    current: str | None = None,
) -> Response:
    """The error as a person's browser or a program wants it: a page outside `/v1` for `text/html`, else a problem."""
    problem = make_problem(request.scope, status, code, detail, errors, current)
    if wants_page(request):
        from api.dashboard.pages import error_page

        page = error_page(request, problem)
        page.headers.update(headers or {})
        return page
    return problem_response(problem, headers)


def wants_page(request: Request) -> bool:
    """Whether a browser asks for a page: GET of `text/html` outside `/v1`."""
    path: str = request.scope["path"]
    is_page = request.method == "GET" and not path.startswith("/v1/") and path != "/v1"
    return is_page and "text/html" in request.headers.get("accept", "")


def pointer_of(location: Sequence[int | str], kind: str, document: Any) -> str:
    """JSON Pointer of a pydantic error location, without the names of union members that pydantic puts between.

    Args:
        kind: pydantic's error type; a `missing` field is named although the document does not have it.
        document: the parsed body.
    """
    pointer = ""
    place = document
    for position, part in enumerate(location):
        if _has(place, part):
            place = place[part]
        elif not (kind == "missing" and position == len(location) - 1 and isinstance(place, dict)):
            continue
        pointer += f"/{escape_pointer(part)}"
    return pointer


def _has(place: Any, part: int | str) -> bool:
    is_index = isinstance(place, list) and isinstance(part, int) and part < len(place)
    return is_index or (isinstance(place, dict) and part in place)


_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_HARMLESS = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")


def redacted(message: str) -> str:
    """A message of ours without the quoted values that are no short plain name."""
    return _QUOTED.sub(lambda m: m[0] if _HARMLESS.fullmatch(m[1] or m[2] or "") else "the value", message)


def field_error(error: Any, pointer: str) -> FieldError:
    """One pydantic error without its input."""
    kind = error["type"]
    if kind == "union_tag_invalid":
        context = error["ctx"]
        message = f"{context['discriminator']} is none of {context['expected_tags']}"
    elif kind == "union_tag_not_found":
        field = str(error["ctx"]["discriminator"]).strip("'")
        return FieldError(pointer=f"{pointer}/{escape_pointer(field)}", code="missing", message="this is required")
    elif kind in _MESSAGES:
        message = _MESSAGES[kind]
    elif kind == "value_error":
        message = redacted(str(error["ctx"]["error"]))
    else:
        message = error["msg"]
    return FieldError(pointer=pointer, code=kind, message=message)


_MESSAGES = {"missing": "this is required", "extra_forbidden": "there is no such field"}


def body_errors(error: ValidationError, document: Any) -> list[FieldError]:
    """The errors of a validated body, in its order, each place and message once."""
    found: dict[tuple[str, str], FieldError] = {}
    for item in error.errors(include_url=False, include_input=False):
        entry = field_error(item, pointer_of(item["loc"], item["type"], document))
        found.setdefault((entry.pointer, entry.message), entry)
    return list(found.values())


def _parameter_errors(error: RequestValidationError) -> list[FieldError]:
    return [field_error(e, "/" + "/".join(escape_pointer(part) for part in e["loc"])) for e in error.errors()]


def describe(errors: Sequence[FieldError]) -> str:
    """A sentence about wrong values."""
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{first.pointer or 'the document'}: {first.message}{more}"


def install(app: FastAPI) -> None:
    """Registers the handlers: what the store or the framework raises becomes a problem."""

    async def api_error(request: Request, error: Any) -> Response:
        return answer(request, error.status, error.code, error.detail, error.errors, error.headers)

    async def not_found(request: Request, error: Any) -> Response:
        return answer(request, 404, "not_found", f"there is no such {error.what}")

    async def gone(request: Request, error: Any) -> Response:
        detail = f"the {error.what} was deleted on {error.since:%Y-%m-%d}: {error.reason}"
        return answer(request, 410, "gone", detail)

    async def full(request: Request, error: Any) -> Response:
        return answer(request, 507, "disk_full", str(error))

    async def conflict(request: Request, error: Any) -> Response:
        return answer(request, 409, error.code, error.message, current=error.current)

    async def invalid(request: Request, error: Any) -> Response:
        field = FieldError(pointer=error.pointer, code="invalid", message=redacted(error.message))
        return answer(request, 422, "invalid", describe([field]), [field])

    async def invalid_rows(request: Request, error: Any) -> Response:
        fields = [FieldError(pointer=f"/rows/{p.row}", code="invalid_row", message=p.message) for p in error.problems]
        return answer(request, 422, "invalid_rows", describe(fields), fields)

    async def not_yours(request: Request, error: Any) -> Response:
        return answer(request, 409, "not_yours", "the run belongs to another attempt")

    async def strict_json(request: Request, error: Any) -> Response:
        fields = [FieldError(pointer=error.pointer, code=error.code, message=str(error))] if error.status == 422 else []
        return answer(request, error.status, error.code, str(error), fields)

    async def parameters(request: Request, error: Any) -> Response:
        fields = _parameter_errors(error)
        return answer(request, 422, "invalid_parameter", describe(fields), fields)

    async def http(request: Request, error: Any) -> Response:
        code, detail = _HTTP.get(error.status_code, ("http_error", title_of(error.status_code)))
        return answer(request, error.status_code, code, detail, headers=dict(error.headers or {}))

    async def database(request: Request, error: Any) -> Response:
        if not is_outage(error):
            raise error
        logger.warning("database unavailable: %s", type(error).__name__)
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        return answer(request, 503, "database_unavailable", "the database does not answer; retry", headers=headers)

    async def object_store(request: Request, error: Any) -> Response:
        logger.warning("%s", error)
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        detail = "the object store does not answer; retry"
        return answer(request, 503, "object_store_unavailable", detail, headers=headers)

    for kind, handler in (
        (ApiError, api_error),
        (NotFound, not_found),
        (Gone, gone),
        (Full, full),
        (Conflict, conflict),
        (Invalid, invalid),
        (InvalidRows, invalid_rows),
        (NotYours, not_yours),
        (StrictJsonError, strict_json),
        (RequestValidationError, parameters),
        (HTTPException, http),
        (DBAPIError, database),
        (PoolTimeout, database),
        (StoreUnavailable, object_store),
    ):
        app.add_exception_handler(kind, handler)


_HTTP = {
    400: ("bad_request", "the request could not be read"),
    404: ("not_found", "there is nothing at this path"),
    405: ("method_not_allowed", "this path does not have this method"),
    413: ("body_too_large", "the body is too large"),
}


def is_outage(error: Exception) -> bool:
    """Whether a database error says that the database cannot be used now, rather than that a statement is wrong."""
    from sqlalchemy.exc import InterfaceError, InternalError, OperationalError

    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, PoolTimeout | OperationalError | InterfaceError | InternalError)
