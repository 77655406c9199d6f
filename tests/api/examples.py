"""Examples for the OpenAPI document, taken from what the tests send and get: `WRITE_EXAMPLES=1 pytest -n 0 tests/api`.

Adds what is missing to `api/examples/`; what stands there stays. Look at the difference before you commit it.
"""

import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[2] / "api" / "examples"
_SECRETS = re.compile(r"\b(lco_s[ke]_|whsec_)[A-Za-z0-9+/=_-]+")
_LONGEST = 2


def record(document: dict[str, Any], response: Any) -> None:
    """Keeps a request and its answer where the document has no example of them."""
    if response.status_code >= 300 or not response.headers.get("content-type", "").startswith("application/json"):
        return
    response.read()
    operation = _operation(document, response.request)
    content = operation.get("responses", {}).get(str(response.status_code), {}).get("content", {})
    model = content.get("application/json", {}).get("schema", {}).get("$ref", "").rpartition("/")[2]
    example = response.json()
    if item := re.fullmatch(r"Page_(\w+)_", model):
        if not example["data"]:
            return
        model, example = item[1], example["data"][0]
    if model:
        _add("answers.json", model, example)
    kind = response.request.headers.get("content-type", "")
    if "requestBody" in operation and kind in ("application/json", "application/toml"):
        text = response.request.content.decode()
        body = json.loads(text) if kind == "application/json" else text
        _add("requests.json", operation["operationId"], body, "toml" if kind == "application/toml" else "example")


def _operation(document: dict[str, Any], request: Any) -> dict[str, Any]:
    path, method = request.url.path, request.method.lower()
    for template in [path] if path in document["paths"] else document["paths"]:
        operations = document["paths"][template]
        if method in operations and re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path):
            found: dict[str, Any] = operations[method]
            return found
    return {}


def _add(file: str, key: str, value: Any, name: str = "") -> None:
    examples = json.loads((HERE / file).read_text())
    place = examples.setdefault(key, {}) if name else examples
    if (name or key) in place or (name == "example" and any(not isinstance(one, str) for one in place.values())):
        return
    place[name or key] = _short(value)
    (HERE / file).write_text(json.dumps(dict(sorted(examples.items())), indent=1, ensure_ascii=False) + "\n")


def _short(value: Any) -> Any:
    if isinstance(value, list):
        return [_short(item) for item in value[:_LONGEST]]
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    return _SECRETS.sub(r"\1...", value) if isinstance(value, str) else value
