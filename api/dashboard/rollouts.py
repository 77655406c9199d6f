"""The page of a training run's rollouts: completions with reward parts, tokens coloured by advantage."""

from dataclasses import dataclass
from itertools import groupby
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from api import views
from api.auth import requires
from api.dashboard.pages import page
from api.dashboard.tokens import Token, by_advantage, largest
from api.dependencies import DatabaseDep
from api.ids import parse_id
from api.pagination import pair_cursor
from api.rollout_schemas import RolloutRead
from api.routes.rollouts import view
from store.repositories.rollouts import Rollouts

router = APIRouter(include_in_schema=False)

PER_PAGE = 16
_FEW = 2


@dataclass(frozen=True, slots=True)
class Coloured:
    """A rollout with its tokens as they are drawn."""

    told: RolloutRead
    tokens: list[Token]


@dataclass(frozen=True, slots=True)
class Group:
    """The completions of one prompt."""

    prompt: str
    prompt_id: str
    reference: str
    rollouts: list[Coloured]


def newest(session: Session, run_id: UUID) -> list[RolloutRead]:
    """A few rollouts of the newest iteration of which some are kept."""
    kept = Rollouts(session).iterations(run_id)
    rows = Rollouts(session).page(run_id, _FEW, iteration=kept[-1]).rows if kept else []
    return [view(row) for row in rows]


def groups(rollouts: list[RolloutRead]) -> tuple[list[Group], float]:
    """Rollouts by prompt, on one scale of colours; and the scale's end."""
    scale = largest(one.advantages for one in rollouts)
    found = []
    for _, some in groupby(rollouts, key=lambda one: (one.iteration, one.prompt_id, one.prompt)):
        members = list(some)
        coloured = [Coloured(one, by_advantage(one.pieces, one.advantages, one.logprobs, scale)) for one in members]
        found.append(Group(members[0].prompt, members[0].prompt_id, members[0].reference, coloured))
    return found, scale


@router.get("/runs/{run_id}/rollouts")
@requires("read")
def rollouts(
    request: Request,
    database: DatabaseDep,
    run_id: str,
    iteration: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
    after: Annotated[str | None, Query(max_length=40)] = None,
) -> Response:
    """The rollouts kept of one iteration, of the newest unless told."""
    identifier = parse_id("run", run_id)
    with database.read() as session:
        run = views.run(session, identifier)
        kept = Rollouts(session).iterations(identifier)
        chosen = iteration if iteration is not None or not kept else kept[-1]
        cursor = pair_cursor(after, "after", "ITERATION.POSITION")
        rows = Rollouts(session).page(identifier, PER_PAGE, cursor, iteration=chosen or 0)
        data = [view(row) for row in rows.rows]
    found, scale = groups(data)
    here = f"/runs/{run_id}/rollouts"
    place = kept.index(chosen) if chosen in kept else 0
    return page(
        request,
        "rollouts.html",
        run=run,
        groups=found,
        scale=scale,
        chosen=chosen,
        kept=kept,
        earlier=f"{here}?iteration={kept[place - 1]}" if place > 0 else None,
        later=f"{here}?iteration={kept[place + 1]}" if place + 1 < len(kept) else None,
        links={
            "first": f"{here}?iteration={chosen}" if after else None,
            "after": f"{here}?{urlencode({'iteration': chosen, 'after': data[-1].cursor})}" if rows.has_more else None,
        },
        twin=f"/v1/runs/{run_id}/rollouts" + (f"?iteration={chosen}" if chosen is not None else ""),
    )
