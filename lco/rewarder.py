"""The reward of a training run: a rule, or QA-Feedback's reward models, loaded once. Model text cannot raise."""

import re
from collections.abc import Sequence

from lco.algorithms import TrainConfig
from lco.config import QaFeedback
from lco.prompts import Prompt
from lco.reward_config import StepVerifier
from lco.rewards import Graded, rule_reward

_QUESTION = re.compile(r"\s*question:\s*(?P<question>.*?)\s+context:", re.DOTALL)


class Rewarder:
    """Rewards the completions of one training run."""

    def __init__(self, config: TrainConfig) -> None:
        """Loads the reward models, where the reward has some.

        Raises:
            ValueError: a directory holds no such model.
        """
        self._reward = config.reward
        self._scorer = None
        if isinstance(config.reward, QaFeedback):
            from lco.oracles.qa_feedback import QaFeedbackScorer  # spaCy is there for those who need it

            self._scorer = QaFeedbackScorer(config.reward, config)

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Looks at the prompts before anything is sampled.

        Raises:
            ValueError: the reward models cannot read one.
        """
        if self._scorer is not None:
            for prompt in prompts:
                _question(prompt)

    @property
    def has_steps(self) -> bool:
        """Whether the texts of the tokens are read, beside the completion's."""
        return isinstance(self._reward, StepVerifier)

    def graded(
        self, prompts: Sequence[Prompt], completions: Sequence[str], pieces: Sequence[Sequence[str]]
    ) -> list[Graded]:
        """What the reward says of each completion.

        Args:
            pieces: see `rule_reward`; empty where `has_steps` is not.
        """
        rule = self._reward
        if not isinstance(rule, QaFeedback):
            each = zip(prompts, completions, pieces, strict=True)
            return [rule_reward(rule, prompt, text, some) for prompt, text, some in each]
        from lco.oracles.qa_feedback import Response

        assert self._scorer is not None
        pairs = zip(prompts, completions, strict=True)
        scores = self._scorer.scores([Response(_question(p), p.text, text.strip()) for p, text in pairs])
        return [
            Graded(
                score.reward_sum,
                0 < score.n_sentences == score.n_factual and score.n_sub_sentences == score.n_relevant,
                parts=(
                    ("relevance", score.relevance_sum),
                    ("factuality", score.factuality_sum),
                    ("completeness", score.completeness_scaled),
                ),
            )
            for score in scores
        ]


def _question(prompt: Prompt) -> str:
    """The question that a prompt of QA-Feedback begins with."""
    match = _QUESTION.match(prompt.text)
    if match is None:
        raise ValueError(f"reward: qa-feedback reads prompts `question: ... context: ...`; {prompt.id} is another")
    return match["question"]
