"""Calls about rewards, rollouts and samples."""

from typing import Any

from api.calls.base import AskList, listing
from api.rollout_schemas import RolloutRead


def rollouts(run: str, filters: dict[str, Any]) -> AskList[RolloutRead]:
    """Rollouts that a run keeps."""
    return listing(f"/v1/runs/{run}/rollouts", RolloutRead, filters, limit=50)
