"""Calls about rewards, rollouts and samples."""

from typing import Any

from api.calls.base import Ask, AskList, listing, whole
from api.reward_schemas import RewardCheckRead, RewardKindRead
from api.rollout_schemas import RolloutRead
from api.sample_schemas import SampleRead
from api.transport import Call, body_of


def rollouts(run: str, filters: dict[str, Any]) -> AskList[RolloutRead]:
    """Rollouts that a run keeps."""
    return listing(f"/v1/runs/{run}/rollouts", RolloutRead, filters, limit=50)


def sample(request: Any) -> Ask[SampleRead]:
    """A new sampling."""
    return Ask(Call("POST", "/v1/samples", content=body_of(request)), SampleRead)


def sampled(job: str) -> Ask[SampleRead]:
    """A sampling with its completions."""
    return Ask(Call("GET", f"/v1/samples/{job}"), SampleRead)


def rewards() -> AskList[RewardKindRead]:
    """The kinds of reward."""
    return whole("/v1/rewards", RewardKindRead)


def check_reward(reward: Any, samples: Any) -> Ask[RewardCheckRead]:
    """A reward that is tried."""
    content = body_of({"reward": reward, "samples": list(samples)})
    return Ask(Call("POST", "/v1/rewards/check", content=content), RewardCheckRead)
