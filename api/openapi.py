"""The OpenAPI document: what FastAPI derives from the routes, plus strictly read bodies, errors and keys."""

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from api.auth import policy_of
from api.bodies import JSON, TOML, Body
from api.errors import MEDIA_TYPE, Problem, make_problem, title_of
from api.examples import ANSWERS, REQUESTS
from api.failures import failures
from api.problems import PROBLEMS
from api.schemas import Page

_REFERENCE = "#/components/schemas/{model}"
_TEXT = {"type": "string"}


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
            for status in [code for code in responses if code.startswith(("4", "5"))]:
                del responses[status]
            _add_successes(route, method, responses)
            for status, codes in failures(route).items():
                responses[str(status)] = _failure(status, codes, made["components"].setdefault("responses", {}))
            _add_examples(operation, made["components"].setdefault("examples", {}))
            operation["x-lco-scope"] = policy_of(route)
            operation["security"] = [] if policy_of(route) == "open" else [{"apiKey": []}, {"session": []}]
    made["components"]["securitySchemes"] = {
        "apiKey": {"type": "http", "scheme": "bearer", "description": "`lco_sk_<id>_<secret>`"},
        "session": {"type": "apiKey", "in": "cookie", "name": "lco_session"},
    }
    return made


def _add_successes(route: APIRoute, method: str, responses: dict[str, Any]) -> None:
    """What FastAPI cannot know of good answers: the copy that a client has already, and headers."""
    success = next(responses[status] for status in responses if status.startswith("2"))
    model = route.response_model
    if method == "GET" and isinstance(model, type) and issubclass(model, BaseModel) and not issubclass(model, Page):
        success.setdefault("headers", {})["ETag"] = {"description": "Of these very bytes.", "schema": _TEXT}
        responses["304"] = {"description": "The object is what `If-None-Match` names: no body."}


def _failure(status: int, codes: list[str], components: dict[str, Any]) -> dict[str, Any]:
    """A reference to the response with these codes, which is made where it is new."""
    name = ".".join((str(status), *codes))
    if name not in components:
        code = {"enum": codes, "type": "string"}
        schema = {"allOf": [{"$ref": _REFERENCE.format(model="Problem")}], "properties": {"code": code}}
        explained = "".join(f"\n- `{code}`: {PROBLEMS[code]}" for code in codes)
        components[name] = {
            "description": f"{title_of(status)}.\n{explained}",
            "content": {MEDIA_TYPE: {"schema": schema, "example": _problem_example(status, codes[0])}},
        }
        if status == 503:
            retry = {"description": "Seconds to wait before the next try.", "schema": {"type": "integer"}}
            components[name]["headers"] = {"Retry-After": retry}
    return {"$ref": f"#/components/responses/{name}"}


def _problem_example(status: int, code: str) -> dict[str, Any]:
    scope = {"path": "/v1/...", "lco.request_id": "5f0c1a5e5b7e4d0f9d0c6f0f3a1b2c3d"}
    return make_problem(scope, status, code, PROBLEMS[code]).model_dump(mode="json", exclude_none=True)


def _add_examples(operation: dict[str, Any], components: dict[str, Any]) -> None:
    """The examples of an operation's body and of its good answers."""
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        given = REQUESTS.get(operation["operationId"], {})
        kept = {name: {"value": example} for name, example in given.items() if media_type == _media_type_of(example)}
        if kept:
            content["examples"] = kept
    for status, response in operation["responses"].items():
        for media_type, content in response.get("content", {}).items():
            if status.startswith("2") and media_type == JSON:
                _add_answer_example(content, components)


def _add_answer_example(content: dict[str, Any], components: dict[str, Any]) -> None:
    model = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    item = re.fullmatch(r"Page_(?P<item>\w+)_", model)
    example = ANSWERS.get(item["item"] if item else model)
    if example is None:
        return
    if item:
        cursor = example.get("id") or example.get("name") or "1"
        page = {"object": "list", "data": [example], "has_more": False, "first_id": cursor, "last_id": cursor}
        example = page
    components[model] = {"value": example}
    content["examples"] = {"example": {"$ref": f"#/components/examples/{model}"}}


def _media_type_of(example: Any) -> str:
    return TOML if isinstance(example, str) else JSON


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
