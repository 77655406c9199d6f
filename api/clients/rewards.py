"""Rewards, the rollouts that runs keep, and samples."""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from api.calls import base
from api.calls import rewards as calls
from api.clients.base import Asking, AsyncAsking
from api.reward_schemas import RewardCheckRead, RewardKindRead
from api.rollout_schemas import RolloutRead
from api.sample_schemas import SampleRead


class Rewards(Asking):
    """Rewards, the rollouts that runs keep, and samples."""

    def rewards(self) -> Iterator[RewardKindRead]:
        """The kinds of reward that training jobs can have."""
        return self._all(calls.rewards())

    def check_reward(self, reward: Any, samples: Sequence[Any] = ()) -> RewardCheckRead:
        """Tries a reward on completions: documents with `prompt`, `completion` and, where known, `reference`."""
        return self._ask(calls.check_reward(reward, samples))

    def rollouts(self, run: str, **filters: Any) -> Iterator[RolloutRead]:
        """Completions that a training run keeps, with each token's advantage; filters: iteration, order."""
        return self._all(calls.rollouts(run, filters))

    def submit_sample(self, request: Any) -> SampleRead:
        """Asks one to four policies for completions: a `SampleRequest`, or a document with the same fields."""
        return self._ask(calls.sample(request))

    def sample(self, job: str) -> SampleRead:
        """A sampling with the completions that are there so far; `wait` waits for all."""
        return self._ask(calls.sampled(job))

    def samples(self, **filters: Any) -> Iterator[SampleRead]:
        """Samplings without their completions, newest first."""
        return self._all(base.listing("/v1/samples", SampleRead, filters))


class AsyncRewards(AsyncAsking):
    """The same, asynchronously."""

    def rewards(self) -> AsyncIterator[RewardKindRead]:
        """The kinds of reward that training jobs can have."""
        return self._all(calls.rewards())

    async def check_reward(self, reward: Any, samples: Sequence[Any] = ()) -> RewardCheckRead:
        """Tries a reward on completions: documents with `prompt`, `completion` and, where known, `reference`."""
        return await self._ask(calls.check_reward(reward, samples))

    def rollouts(self, run: str, **filters: Any) -> AsyncIterator[RolloutRead]:
        """Completions that a training run keeps, with each token's advantage; filters: iteration, order."""
        return self._all(calls.rollouts(run, filters))

    async def submit_sample(self, request: Any) -> SampleRead:
        """Asks one to four policies for completions: a `SampleRequest`, or a document with the same fields."""
        return await self._ask(calls.sample(request))

    async def sample(self, job: str) -> SampleRead:
        """A sampling with the completions that are there so far; `wait` waits for all."""
        return await self._ask(calls.sampled(job))

    def samples(self, **filters: Any) -> AsyncIterator[SampleRead]:
        """Samplings without their completions, newest first."""
        return self._all(base.listing("/v1/samples", SampleRead, filters))
