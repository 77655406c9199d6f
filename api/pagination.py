"""Lists: one page by keyset, in the shape of OpenAI's API. An id is the cursor, and stays one when its row is gone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Depends, Query, Request, Response

from api.errors import ApiError, FieldError
from api.schemas import Page
from store.ids import decode_id

T = TypeVar("T")
Order = Literal["asc", "desc"]


@dataclass(frozen=True, slots=True)
class Listing:
    """What every list of objects takes."""

    limit: int
    """Objects on the page."""
    after: str | None
    """The id after which the page begins, in the list's order."""
    before: str | None
    """The id before which the page ends, in the list's order."""
    order: Order
    """By id, which is by time of creation."""

    def cursors(self, prefix: str) -> tuple[UUID | None, UUID | None]:
        """The ids of `after` and `before`.

        Raises:
            ApiError: one of them is no id of this kind of object.
        """
        return cursor(prefix, self.after, "after"), cursor(prefix, self.before, "before")


def cursor(prefix: str, text: str | None, name: str) -> UUID | None:
    """The UUID of an id in the query.

    Raises:
        ApiError: it is no id of this kind of object.
    """
    if text is None:
        return None
    try:
        return decode_id(prefix, text)
    except ValueError:
        error = FieldError(pointer=f"/query/{name}", code="invalid_id", message=f"this is no {prefix}_ id")
        raise ApiError(422, "invalid_parameter", f"{name}: {error.message}", [error]) from None


def number_cursor(text: str | None, name: str) -> int | None:
    """The number in a cursor of a list whose objects are numbered.

    Raises:
        ApiError: it is no number.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise _bad_cursor(name, "this is no number")
    return int(text)


def log_cursor(text: str | None, name: str) -> tuple[int, int] | None:
    """Attempt and chunk in a cursor of a log.

    Raises:
        ApiError: it has another form.
    """
    return pair_cursor(text, name, "ATTEMPT.CHUNK")


def pair_cursor(text: str | None, name: str, form: str) -> tuple[int, int] | None:
    """The two numbers in a cursor of the given form.

    Raises:
        ApiError: it has another form.
    """
    if not text:
        return None
    first, dot, second = text.partition(".")
    if not dot:
        raise _bad_cursor(name, f"the cursor is {form}")
    return number_cursor(first, name) or 0, number_cursor(second, name) or 0


def _bad_cursor(name: str, message: str) -> ApiError:
    error = FieldError(pointer=f"/query/{name}", code="invalid_cursor", message=message)
    return ApiError(422, "invalid_parameter", f"{name}: {message}", [error])


async def get_listing(
    limit: Annotated[int, Query(ge=1, le=100, description="Objects on the page.")] = 20,
    after: Annotated[str | None, Query(max_length=64, description="Begin after this id.")] = None,
    before: Annotated[str | None, Query(max_length=64, description="End before this id.")] = None,
    order: Annotated[Order, Query(description="By time of creation.")] = "desc",
) -> Listing:
    """The parameters of a list."""
    if after is not None and before is not None:
        error = FieldError(pointer="/query/before", code="both_cursors", message="give after or before, not both")
        raise ApiError(422, "invalid_parameter", error.message, [error])
    return Listing(limit, after, before, order)


ListingDep = Annotated[Listing, Depends(get_listing)]


def make_page(data: Sequence[T], has_more: bool, cursors: Sequence[str]) -> Page[T]:
    """A page of objects and their cursors."""
    return Page[T](
        data=list(data),
        has_more=has_more,
        first_id=cursors[0] if cursors else None,
        last_id=cursors[-1] if cursors else None,
    )


def page_response(request: Request, page: Page[T]) -> Response:
    """A page as a response, with the address of the next one."""
    headers = {}
    if page.has_more and page.last_id is not None:
        query = dict(request.query_params)
        name, value = ("before", page.first_id) if "before" in query else ("after", page.last_id)
        query[name] = str(value)
        headers["Link"] = f'<{request.scope["path"]}?{urlencode(query)}>; rel="next"'
    return Response(page.model_dump_json(), 200, headers, "application/json")
