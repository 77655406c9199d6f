"""Rule rewards: (prompt, completion text) -> reward. Model text can be wrong; it cannot raise."""

from collections.abc import Sequence
from dataclasses import dataclass

from lco.answers import grade
from lco.config import ExactAnswer
from lco.prompts import Prompt
from lco.reward_config import StepVerifier
from lco.step_verifiers import STEP_VERIFIERS


@dataclass(frozen=True, slots=True)
class Graded:
    """What a rule says of a completion."""

    reward: float
    """Of the whole completion: the mean of its steps' rewards where there are steps."""
    is_correct: bool
    """The final answer equals the reference; by reward models: no unit of the completion has an error."""
    step_rewards: tuple[float, ...] = ()
    """Empty where the completion is judged as a whole."""
    step_tokens: tuple[int, ...] = ()
    """Tokens of each step."""
    is_timed_out: bool = False
    """The answer took the grader too much time or memory; it counts as incorrect."""
    parts: tuple[tuple[str, float], ...] = ()
    """What the reward is the sum of, by name; empty where it has no parts."""


def rule_reward(
    config: ExactAnswer | StepVerifier, prompt: Prompt, completion: str, pieces: Sequence[str] = ()
) -> Graded:
    """The reward of a completion or of each of its steps, and whether its final answer equals the reference.

    Args:
        pieces: each token's text, in order, read by a step verifier; empty for a special token, which stands where the
            text before it ends. A step without a token has no reward.
    """
    graded = grade(completion, prompt.reference, config.extraction, config.comparison)
    is_correct, is_timed_out = graded.is_correct, graded.verdict == "timeout"
    if not isinstance(config, StepVerifier):
        return Graded(config.correct if is_correct else config.incorrect, is_correct, is_timed_out=is_timed_out)
    steps = STEP_VERIFIERS[config.verifier](prompt, completion)
    of_verdict = {True: config.correct, False: config.incorrect, None: 0.0}
    counts = tokens_per_step(pieces, [step.end for step in steps])
    rewards = [of_verdict[step.is_right] for step, count in zip(steps, counts, strict=True) if count]
    token_counts = tuple(count for count in counts if count)
    return Graded(sum(rewards) / len(rewards), is_correct, tuple(rewards), token_counts, is_timed_out)


def tokens_per_step(pieces: Sequence[str], step_ends: Sequence[int]) -> list[int]:
    """How many tokens each step has; a token belongs to the step that its first character stands in.

    Args:
        step_ends: first character after each step.
    """
    counts = [0] * len(step_ends)
    step = position = 0
    for piece in pieces:
        while step < len(step_ends) - 1 and position >= step_ends[step]:
            step += 1
        counts[step] += 1
        position += len(piece)
    return counts
