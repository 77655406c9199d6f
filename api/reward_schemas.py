"""What the wire shows of rewards: the kinds there are, and completions that one was tried on."""

from typing import Annotated, Literal

from pydantic import Field

from api.schemas import Wire
from lco.config import Config
from lco.reward_config import Reward


class RewardSample(Config):
    """A completion that a reward is tried on."""

    prompt: Annotated[str, Field(min_length=1, max_length=50_000)]
    """What was asked."""
    completion: Annotated[str, Field(max_length=100_000)]
    """What is rewarded."""
    reference: Annotated[str, Field(max_length=50_000)] = ""
    """The right final answer, where one is known."""


class RewardCheckRequest(Config):
    """A reward, and completions to try it on."""

    reward: Reward
    """What is tried, as a training job has it."""
    samples: Annotated[list[RewardSample], Field(max_length=20)] = []
    """Completions; without any the reward's configuration alone is checked."""


class RewardedSample(Wire):
    """What a reward says of a completion."""

    prompt: str
    completion: str
    reference: str
    reward: float | None
    """null where it cannot be told here; `reason` says why."""
    is_correct: bool | None
    """null where the reward does not say."""
    is_timed_out: bool
    """The completion took the grader too much time; it counts as incorrect."""
    parts: dict[str, float | None]
    """Of a weighted sum, by name."""
    reason: str | None


class RewardCheckRead(Wire):
    """A reward that was tried."""

    object: Literal["reward_check"] = "reward_check"
    name: str
    """Which kind of reward."""
    is_remote: bool
    """A judge, a server or a function computes some of it: that part is tried by a run at its start."""
    rows: list[RewardedSample]


class RewardKindRead(Wire):
    """A kind of reward that training jobs can have."""

    object: Literal["reward_kind"] = "reward_kind"
    name: str
    description: str
    is_remote: bool
    """Somebody else computes it: it can fail, which is never the completion's fault."""
    functions: list[str]
    """Of `python`: the names that the operator declared."""
