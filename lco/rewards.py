"""Rule rewards: (prompt, completion text) -> reward. Model text can be wrong; it cannot raise."""

from lco.answers import grade
from lco.config import ExactAnswer
from lco.prompts import Prompt


def rule_reward(config: ExactAnswer, prompt: Prompt, completion: str) -> tuple[float, bool]:
    """The reward of a completion and whether its final answer equals the reference."""
    is_correct = grade(completion, prompt.reference, config.extraction).is_correct
    return (config.correct if is_correct else config.incorrect), is_correct
