"""Rewards, the rollouts that runs keep, and samples."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from api.calls import rewards as calls
from api.clients.base import Asking, AsyncAsking
from api.rollout_schemas import RolloutRead


class Rewards(Asking):
    """Rewards, the rollouts that runs keep, and samples."""

    def rollouts(self, run: str, **filters: Any) -> Iterator[RolloutRead]:
        """Completions that a training run keeps, with each token's advantage; filters: iteration, order."""
        return self._all(calls.rollouts(run, filters))


class AsyncRewards(AsyncAsking):
    """The same, asynchronously."""

    def rollouts(self, run: str, **filters: Any) -> AsyncIterator[RolloutRead]:
        """Completions that a training run keeps, with each token's advantage; filters: iteration, order."""
        return self._all(calls.rollouts(run, filters))
