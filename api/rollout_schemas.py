"""What the wire shows of the rollouts that a training run keeps."""

from typing import Literal

from api.schemas import Wire


class RolloutRead(Wire):
    """One completion of the behaviour policy in training, token by token."""

    object: Literal["rollout"] = "rollout"
    run_id: str
    iteration: int
    """From 0."""
    position: int
    """Place among the iteration's completions, the group of a prompt side by side."""
    cursor: str
    """`ITERATION.POSITION`."""
    prompt_id: str
    prompt: str
    reference: str
    completion: str
    """The text of the tokens that are kept."""
    num_tokens: int
    """Of the whole completion; `pieces` has as many or fewer."""
    is_truncated: bool
    """The completion reached `max_tokens` without an end."""
    reward: float | None
    """null where our side failed to give one: the completion was left out of the step."""
    is_correct: bool | None
    """null where nothing says."""
    parts: dict[str, float | None]
    """What the reward is made of, by name; empty where it has no parts."""
    pieces: list[str]
    """Text of each token; special tokens have none, and so does one that begins a character which the next ends."""
    advantages: list[float | None]
    """Advantage of each token as it was taken; before `center` and `scale` for LCO."""
    logprobs: list[float | None]
    """Natural log-probability of each token under the behaviour policy."""
