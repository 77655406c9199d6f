"""Documents as JSON: patched, and compared place by place."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Difference:
    """A place where two documents differ; None where one has nothing there."""

    pointer: str
    before: Any
    after: Any


def merged(document: Any, patch: Any) -> Any:
    """The document after a JSON Merge Patch (RFC 7396): null removes, objects merge, anything else replaces.

    A list of objects with names, such as the jobs of an experiment, may also be patched by an object that maps names
    to patches: a departure from the RFC, which can only replace lists whole.
    """
    if not isinstance(patch, dict):
        return patch
    if (names := _names(document)) is not None:
        parts = [(item, patch.get(item["name"], {})) for item in document]
        kept = [merged(item, part) for item, part in parts if part is not None]
        added = [{"name": name, **part} for name, part in patch.items() if name not in names and isinstance(part, dict)]
        return kept + added
    base = dict(document) if isinstance(document, dict) else {}
    for key, part in patch.items():
        if part is None:
            base.pop(key, None)
        else:
            base[key] = merged(base.get(key), part)
    return base


def differences(before: Any, after: Any, pointer: str = "") -> Iterator[Difference]:
    """The places where two documents differ, deepest first mention, in the order of the first document.

    Lists whose items all have names are compared by name, so that one more job moves nothing.
    """
    if isinstance(before, list) and isinstance(after, list):
        if _names(before) is not None and _names(after) is not None:
            before, after = ({item["name"]: item for item in items} for items in (before, after))
        elif len(before) == len(after):
            before, after = (dict(enumerate(items)) for items in (before, after))
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            here = f"{pointer}/{_escaped(key)}"
            if key not in after or key not in before:
                yield Difference(here, before.get(key), after.get(key))
            else:
                yield from differences(before[key], after[key], here)
    elif type(before) is not type(after) or before != after:
        yield Difference(pointer, before, after)


def leaves(document: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    """(pointer, value) of every place that holds no further one; items of lists by name where all have one."""
    if isinstance(document, list) and _names(document) is not None:
        document = {item["name"]: item for item in document}
    items = dict(enumerate(document)) if isinstance(document, list) else document
    if not isinstance(items, dict) or not items:
        yield pointer, document
        return
    for key, value in items.items():
        yield from leaves(value, f"{pointer}/{_escaped(key)}")


def _escaped(key: object) -> str:
    return str(key).replace("~", "~0").replace("/", "~1")


def _names(document: Any) -> list[str] | None:
    """The names of a list's items, where all have one and no two the same."""
    if not isinstance(document, list) or not document:
        return None
    names = [item.get("name") if isinstance(item, dict) else None for item in document]
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        return None
    return [str(name) for name in names]
