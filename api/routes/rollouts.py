"""Rollouts that a training run keeps for people to read."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api import schemas
from api.auth import requires
from api.dependencies import DatabaseDep
from api.ids import parse_id
from api.pagination import Order, make_page, page_response, pair_cursor
from api.rollout_schemas import RolloutRead
from store.ids import encode_id
from store.models.record import Rollout
from store.repositories.rollouts import Rollouts
from store.repositories.runs import Runs

router = APIRouter(prefix="/v1/runs", tags=["runs"])


@router.get("/{run_id}/rollouts", operation_id="runs.rollouts", response_model=schemas.Page[RolloutRead])
@requires("read")
def rollouts(
    request: Request,
    database: DatabaseDep,
    run_id: str,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(max_length=40, description="Begin after this cursor.")] = None,
    order: Annotated[Order, Query(description="By iteration and position.")] = "asc",
    iteration: Annotated[int | None, Query(ge=0, le=2**31 - 1, description="Only of this iteration.")] = None,
) -> Response:
    """Completions that a training run keeps, with reward, its parts, and each token's advantage."""
    identifier = parse_id("run", run_id)
    with database.read() as session:
        Runs(session).get(identifier)
        rows = Rollouts(session).page(
            identifier, limit, pair_cursor(after, "after", "ITERATION.POSITION"), order, iteration=iteration
        )
        data = [view(row) for row in rows.rows]
    return page_response(request, make_page(data, rows.has_more, [item.cursor for item in data]))


def view(row: Rollout) -> RolloutRead:
    """One rollout as the wire shows it."""
    return RolloutRead(
        run_id=encode_id("run", row.run_id),
        iteration=row.iteration,
        position=row.position,
        cursor=f"{row.iteration}.{row.position}",
        prompt_id=row.prompt_id,
        prompt=row.prompt,
        reference=row.reference,
        completion="".join(row.pieces),
        num_tokens=row.num_tokens,
        is_truncated=row.is_truncated,
        reward=row.reward,
        is_correct=row.is_correct,
        parts=row.parts,
        pieces=row.pieces,
        advantages=row.advantages,
        logprobs=row.logprobs,
    )
