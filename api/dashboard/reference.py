"""The API's description as a page, made of its OpenAPI document."""

from typing import Any

from fastapi import APIRouter, Request, Response

from api.auth import requires
from api.dashboard.pages import page
from api.problems import PROBLEMS

router = APIRouter(include_in_schema=False)


@router.get("/docs")
@requires("read")
def docs(request: Request) -> Response:
    """Every operation with its parameters, bodies and answers."""
    document = request.app.openapi()
    operations: dict[str, list[dict[str, Any]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            entry = {
                **operation,
                "path": path,
                "method": method.upper(),
                "body": _media(operation.get("requestBody")),
                "codes": _codes(operation),
            }
            operations.setdefault(operation["tags"][0], []).append(entry)
    return page(
        request,
        "reference.html",
        title=document["info"]["title"],
        version=document["info"]["version"],
        operations=operations,
        schemas=document["components"]["schemas"],
        problems=PROBLEMS,
        name_of=_name_of,
        twin="/openapi.json",
    )


def _media(body: dict[str, Any] | None) -> dict[str, Any]:
    return {} if body is None else {media: entry["schema"] for media, entry in body["content"].items()}


def _codes(operation: dict[str, Any]) -> list[tuple[str, str]]:
    """(status, code) of every error that an operation can give."""
    names = [response["$ref"].rpartition("/")[2] for response in operation["responses"].values() if "$ref" in response]
    return [(status, code) for status, *codes in (name.split(".") for name in names) for code in codes]


def _name_of(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(_name_of(member) for member in schema[key])
    if "const" in schema:
        return repr(schema["const"])
    if "enum" in schema:
        return " or ".join(map(repr, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_name_of(schema.get('items', {}))}"
    return str(schema.get("type", "any"))
