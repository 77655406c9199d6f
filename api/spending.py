"""From budgets and what was spent of them to wire models."""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from api.schemas import BudgetRead, SpentRead
from store.budgets import Spent, spent_by_runs


def budget(document: Mapping[str, Any] | None) -> BudgetRead | None:
    """A budget as its row keeps it."""
    return None if document is None else BudgetRead.model_validate(document)


def spent_of(session: Session, runs_of: Mapping[UUID, Iterable[UUID]]) -> dict[UUID, SpentRead]:
    """For each owner of some runs, what they have used together, in a handful of queries."""
    each = spent_by_runs(session, {run_id for runs in runs_of.values() for run_id in runs})
    found = {}
    for owner, runs in runs_of.items():
        total = Spent()
        for run_id in runs:
            total.add(each[run_id])
        found[owner] = SpentRead(wall_seconds=total.wall_seconds, tokens=total.tokens, judge_usd=total.judge_usd)
    return found
