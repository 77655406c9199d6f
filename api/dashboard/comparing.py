"""The page of runs and checkpoints side by side."""

from itertools import combinations
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from api import schemas, views
from api.auth import requires
from api.dashboard.pages import page
from api.dependencies import DatabaseDep
from api.subject_schemas import SideBySide
from api.subject_views import MAX_SUBJECTS, identifiers, side_by_side
from store.repositories.runs import Runs

router = APIRouter(include_in_schema=False)

_RECENT = 100


@router.get("/compare")
@requires("read")
def compare(
    request: Request,
    database: DatabaseDep,
    ids: Annotated[str, Query(max_length=512)] = "",
    add: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """Runs and checkpoints side by side; with one or none of them, a form that asks for more.

    Args:
        add: one more id, from the form.
    """
    names = list(dict.fromkeys(name.strip() for name in [*ids.split(","), add] if name.strip()))
    with database.read() as session:
        found = side_by_side(session, identifiers(",".join(names))) if len(names) > 1 else None
        choices = _choices(session, names)
    return page(
        request,
        "compare_runs.html",
        found=found,
        names=names,
        choices=choices,
        most=MAX_SUBJECTS,
        without={name: _address([other for other in names if other != name]) for name in names},
        joined={run.id: _address([*names, run.id]) for run in choices},
        pairs=_pairs(found),
        twin=f"/v1/comparisons/runs?{urlencode({'ids': ','.join(names)})}" if found else "/v1/runs",
    )


def _address(names: list[str]) -> str:
    return f"/compare?{urlencode({'ids': ','.join(names)}, safe=',')}" if names else "/compare"


def _choices(session: Session, names: list[str]) -> list[schemas.RunRead]:
    """Recent runs that are not compared yet, those of the first one's kind before others."""
    runs = views.runs(session, Runs(session).page(_RECENT).rows)
    kinds = {run.kind for run in runs if run.id in names}
    return sorted((run for run in runs if run.id not in names), key=lambda run: run.kind not in kinds)


def _pairs(found: SideBySide | None) -> list[tuple[str, str]]:
    """Addresses and names of completions side by side, for evaluation runs."""
    evaluations = [one for one in found.subjects if one.kind == "evaluation"] if found else []
    return [
        (f"/runs/{first.run_id}/against/{second.run_id}?change=flipped", f"{first.label} and {second.label}")
        for first, second in combinations(evaluations, 2)
    ]
