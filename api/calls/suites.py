"""Calls about suites and verdicts."""

from typing import Any, Literal

from api import schemas, suite_schemas
from api.calls.base import Ask, get
from api.transport import ApiFailure, Call, body_of

FINAL = frozenset({"decided", "error"})
"""States of a verdict that it leaves only when it is tried again."""


def create(spec: Any) -> Ask[suite_schemas.SuiteRead]:
    """A new suite."""
    return Ask(Call("POST", "/v1/suites", content=body_of(spec)), suite_schemas.SuiteRead)


def one(reference: str) -> Ask[suite_schemas.SuiteRead] | Ask[schemas.Page[suite_schemas.SuiteRead]]:
    """A suite by its id, or a page with the one of a name."""
    if reference.startswith("suite_"):
        return get(reference, suite_schemas.SuiteRead)
    return Ask(Call("GET", "/v1/suites", {"name": reference, "limit": 1}), schemas.Page[suite_schemas.SuiteRead])


def only(
    found: suite_schemas.SuiteRead | schemas.Page[suite_schemas.SuiteRead], reference: str
) -> suite_schemas.SuiteRead:
    """The suite that was found.

    Raises:
        ApiFailure: there is none.
    """
    if isinstance(found, suite_schemas.SuiteRead):
        return found
    if not found.data:
        raise ApiFailure(404, "not_found", f"there is no suite {reference[:80]!r}")
    return found.data[0]


def update(identifier: str, patch: Any) -> Ask[suite_schemas.SuiteRead]:
    """A changed suite."""
    return Ask(Call("PATCH", f"/v1/suites/{identifier}", content=body_of(patch)), suite_schemas.SuiteRead)


def verb(identifier: str, name: Literal["archive", "restore"]) -> Ask[suite_schemas.SuiteRead]:
    """A suite out of use, or in use again."""
    return Ask(Call("POST", f"/v1/suites/{identifier}/{name}"), suite_schemas.SuiteRead)


def judge(identifier: str, checkpoint: str, cause: str) -> Ask[suite_schemas.VerdictRead]:
    """A verdict that is asked for."""
    content = body_of({"checkpoint": checkpoint, "cause": cause})
    return Ask(Call("POST", f"/v1/suites/{identifier}/verdicts", content=content), suite_schemas.VerdictRead)


def retry(verdict: str) -> Ask[suite_schemas.VerdictRead]:
    """A verdict that ended in an error, tried again."""
    return Ask(Call("POST", f"/v1/verdicts/{verdict}/retry"), suite_schemas.VerdictRead)


def history(identifier: str, limit: int) -> Ask[suite_schemas.HistoryRead]:
    """How the gated metrics of a suite went."""
    return Ask(Call("GET", f"/v1/suites/{identifier}/history", {"limit": limit}), suite_schemas.HistoryRead)
