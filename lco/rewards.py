"""Rule rewards: (prompt, completion text) -> reward. Model text can be wrong; it cannot raise. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from lco.answers import EXTRACTIONS, grade, is_equivalent, parse_number
from lco.config import ExactAnswer
from lco.grading.patterns import PatternMatcher
from lco.prompts import Prompt
from lco.reward_config import Numeric, Regex, RuleReward, StepVerifier
from lco.step_verifiers import STEP_VERIFIERS


@dataclass(frozen=True, slots=True)
class Graded:
    """What a rule says of a completion."""

    reward: float | None
    """Of the whole completion: the mean of its steps' rewards where there are steps. None where our side failed."""
    is_correct: bool | None
    """The final answer equals the reference; by reward models: no unit of the completion has an error. None where the
    reward does not say."""
    step_rewards: tuple[float, ...] = ()
    """Empty where the completion is judged as a whole."""
    step_tokens: tuple[int, ...] = ()
    """Tokens of each step."""
    is_timed_out: bool = False
    """The answer took the grader too much time or memory; it counts as incorrect."""
    parts: tuple[tuple[str, float | None], ...] = ()
    """What the reward is made of, by name; empty where it has no parts."""
    reason: str | None = None
    """Why there is no reward."""


class Rule:
    """A rule reward, ready to be asked."""

    def __init__(self, config: RuleReward) -> None:
        """Starts nothing yet: the process of a pattern is started by the first completion."""
        self.config = config
        self._matcher: PatternMatcher | None = None
        if isinstance(config, Regex):
            group = config.group if config.target == "reference" else None
            self._matcher = PatternMatcher(config.pattern, config.match, group)

    def close(self) -> None:
        """Ends the process of a pattern."""
        if self._matcher is not None:
            self._matcher.close()

    def check(self, prompt: Prompt) -> None:
        """Looks at a prompt before anything is sampled.

        Raises:
            ValueError: no completion of it could be rewarded.
        """
        if isinstance(self.config, Numeric) and parse_number(prompt.reference) is None:
            raise ValueError(f"reward: the reference of {prompt.id}, {prompt.reference[:80]!r}, is no number")

    def reward(self, prompt: Prompt, completion: str, pieces: Sequence[str] = ()) -> Graded:
        """The reward of a completion or of each of its steps, and whether its final answer equals the reference.

        Args:
            pieces: each token's text, in order, read by a step verifier; empty for a special token, which stands where
                the text before it ends. A step without a token has no reward.

        Raises:
            GraderFailure, PatternFailure: our side fails.
        """
        config = self.config
        if isinstance(config, Regex):
            assert self._matcher is not None
            (found,) = self._matcher.find([completion])
            is_right = found.text is not None
            if config.target == "reference":
                is_right = found.text is not None and is_equivalent(found.text, prompt.reference)
            reward = config.correct if is_right else config.incorrect
            return Graded(reward, is_right, is_timed_out=found.is_timed_out)
        if isinstance(config, Numeric):
            is_near = _is_near(config, completion, prompt.reference)
            return Graded(config.correct if is_near else config.incorrect, is_near)
        return _answer_reward(config, prompt, completion, pieces)


def rule_reward(config: RuleReward, prompt: Prompt, completion: str, pieces: Sequence[str] = ()) -> Graded:
    """`Rule.reward` of one completion."""
    rule = Rule(config)
    try:
        return rule.reward(prompt, completion, pieces)
    finally:
        rule.close()


def _answer_reward(
    config: ExactAnswer | StepVerifier, prompt: Prompt, completion: str, pieces: Sequence[str]
) -> Graded:
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


def _is_near(config: Numeric, completion: str, reference: str) -> bool:
    """Whether the completion's number is within the tolerance of the reference, in exact arithmetic."""
    extracted = EXTRACTIONS[config.extraction](completion)
    value, wanted = None if extracted is None else parse_number(extracted), parse_number(reference)
    if value is None or wanted is None:
        return False
    tolerance = Fraction(config.absolute_tolerance) + Fraction(config.relative_tolerance) * abs(wanted)
    return abs(value - wanted) <= tolerance


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
