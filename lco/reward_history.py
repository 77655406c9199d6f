"""What every prompt's rewards were so far: DCPO's smooth advantage standardisation (arXiv 2509.02333)."""

import math
from dataclasses import dataclass
from typing import Any

_SMALL_VARIANCE = 1e-12  # of rewards that are equal up to rounding; they have no standard deviation to divide by


@dataclass(slots=True)
class PastRewards:
    """Of one prompt."""

    num_groups: int = 0
    num_rewards: int = 0
    mean: float = 0.0
    sum_of_squares: float = 0.0
    """Of the distances from the mean."""

    def add(self, rewards: list[float]) -> None:
        """Takes one more group into account."""
        self.num_groups += 1
        for reward in rewards:
            self.num_rewards += 1
            gap = reward - self.mean
            self.mean += gap / self.num_rewards
            self.sum_of_squares += gap * (reward - self.mean)

    def standardized(self, reward: float) -> float:
        """(r - mean) / std, std with ddof 1; 0 where all rewards were equal."""
        variance = self.sum_of_squares / max(1, self.num_rewards - 1)
        return 0.0 if variance < _SMALL_VARIANCE else (reward - self.mean) / math.sqrt(variance)


class RewardHistory:
    """The rewards of every prompt that was sampled; a part of the run's state."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        """Begins empty, or where `state` left off."""
        self._of_prompt = {prompt_id: PastRewards(*values) for prompt_id, values in (state or {}).items()}

    def state(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return {
            prompt_id: [past.num_groups, past.num_rewards, past.mean, past.sum_of_squares]
            for prompt_id, past in self._of_prompt.items()
        }

    def smoothed(self, prompt_id: str, rewards: list[float]) -> list[float]:
        """Advantages of one more group of a prompt, which then belongs to the history.

        With i groups so far, this one counted, the standard score a in the group and that among all rewards of the
        prompt, b, are mixed as ((i - 1) a + b) / i and (a + (i - 1) b) / i; the one nearer 0 is taken.
        """
        past = self._of_prompt.setdefault(prompt_id, PastRewards())
        past.add(rewards)
        group = PastRewards()
        group.add(rewards)
        late = (past.num_groups - 1) / past.num_groups
        advantages = []
        for reward in rewards:
            now, ever = group.standardized(reward), past.standardized(reward)
            candidates = (late * now + (1 - late) * ever, (1 - late) * now + late * ever)
            advantages.append(min(candidates, key=abs))
        return advantages
