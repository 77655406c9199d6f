"""The OpenAPI document: what FastAPI derives from the routes, plus strictly read bodies, errors and keys."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from api.auth import policy_of
from api.bodies import Body
from api.errors import MEDIA_TYPE, Problem

_REFERENCE = "#/components/schemas/{model}"
_METHODS = ("get", "post", "put", "patch", "delete")


def document(app: FastAPI) -> dict[str, Any]:
    """The application's OpenAPI document, made once."""
    if app.openapi_schema is None:
        app.openapi_schema = _make(app)
    return app.openapi_schema


def as_committed(app: FastAPI) -> str:
    """The document as text, as it is committed; without the version, which is the package's own."""
    made = document(app)
    return json.dumps({**made, "info": {**made["info"], "version": "0"}}, indent=1, sort_keys=True) + "\n"


def _make(app: FastAPI) -> dict[str, Any]:
    made = get_openapi(
        title=app.title, version=app.version, summary=app.summary, description=app.description, routes=app.routes
    )
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = _inlined(Problem, schemas, "serialization")
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if not isinstance(route, APIRoute) or not route.include_in_schema:
            continue
        for method in route.methods or ():
            operation = made["paths"][route.path][method.lower()]
            body = _body(route.dependant)
            if body is not None:
                operation["requestBody"] = _request_body(body, schemas)
            responses = operation["responses"]
            responses.pop("422", None)
            problem = {"content": {MEDIA_TYPE: {"schema": {"$ref": _REFERENCE.format(model="Problem")}}}}
            for status in [code for code in responses if code.startswith(("4", "5"))]:
                responses[status] = {**problem, "description": "The request cannot be carried out."}
            responses["4XX"] = {**problem, "description": "The request is refused."}
            responses["5XX"] = {**problem, "description": "The server cannot answer now."}
            operation["x-lco-scope"] = policy_of(route)
            operation["security"] = [] if policy_of(route) == "open" else [{"apiKey": []}, {"session": []}]
    made["components"]["securitySchemes"] = {
        "apiKey": {"type": "http", "scheme": "bearer", "description": "`lco_sk_<id>_<secret>`"},
        "session": {"type": "apiKey", "in": "cookie", "name": "lco_session"},
    }
    return made


def _body(dependant: Dependant) -> Body[Any] | None:
    """The strictly read body among a route's dependencies."""
    for dependency in dependant.dependencies:
        if isinstance(dependency.call, Body):
            return dependency.call
        if (found := _body(dependency)) is not None:
            return found
    return None


def _request_body(body: Body[Any], schemas: dict[str, Any]) -> dict[str, Any]:
    schema = _inlined(body.adapter, schemas, "validation")
    return {"required": True, "content": {media_type: {"schema": schema} for media_type in body.media_types}}


def _inlined(model: Any, schemas: dict[str, Any], mode: JsonSchemaMode) -> dict[str, Any]:
    """A schema whose definitions are moved to the document's components."""
    adapter = model if isinstance(model, TypeAdapter) else TypeAdapter(model)
    schema = adapter.json_schema(ref_template=_REFERENCE, mode=mode)
    for name, definition in schema.pop("$defs", {}).items():
        if schemas.setdefault(name, definition) != definition:
            raise RuntimeError(f"two different schemas are called {name}")
    return schema


def main(path: str) -> None:
    """Writes the document to a file: `python -m api.openapi openapi.json`."""
    from api.app import create_app  # here, because it imports this module
    from store.settings import Settings

    with tempfile.TemporaryDirectory() as directory:
        Path(path).write_text(as_committed(create_app(Settings(data_dir=Path(directory)))))


if __name__ == "__main__":
    main(sys.argv[1])
