"""The reward of a training run, made ready once: rules, reward models, processes that ask others.

Model text cannot raise. A reward that is missing is our side's fault, never the completion's: it is None, and counted.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lco.algorithms import TrainConfig
from lco.config import QaFeedback, StageConfig
from lco.distributed import gather, rank, share, told_by_first
from lco.prompts import Prompt
from lco.reward_config import HttpReward, JudgeReward, PythonReward, StepVerifier, Weighted, parts_of
from lco.reward_process import RewardItem, RewardProcess
from lco.rewards import Graded, Rule

_QUESTION = re.compile(r"\s*question:\s*(?P<question>.*?)\s+context:", re.DOTALL)
_TRIED = 2
"""Prompts whose references are tried before anything is sampled."""

RemoteConfig = JudgeReward | HttpReward | PythonReward


class Rewarder:
    """Rewards the completions of one training run."""

    def __init__(self, config: TrainConfig, run_dir: Path | None = None, earlier: Sequence[Path] = ()) -> None:
        """Loads the reward models, where the reward has some; starts the processes of remote rewards.

        Args:
            run_dir: where remote rewards are recorded; needed where there are some.
            earlier: run directories of earlier attempts, newest first.

        Raises:
            ValueError: a directory holds no such model; a remote reward cannot work as it is configured.
        """
        self._reward = config.reward
        self._parts = [_part(one, config, run_dir, earlier) for one in parts_of(config.reward)]

    def close(self) -> None:
        """Ends the processes."""
        for part in self._parts:
            part.close()

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Looks at the prompts before anything is sampled, and tries remote rewards on a few of them.

        Raises:
            ValueError: a prompt cannot be rewarded, or a remote reward gives none.
        """
        for part in self._parts:
            part.check(prompts)

    @property
    def spent(self) -> float:
        """What judges have cost so far, in US dollars, as far as this process asked them."""
        return sum(part.spent for part in self._parts if isinstance(part, _RemotePart))

    @property
    def has_steps(self) -> bool:
        """Whether the texts of the tokens are read, beside the completion's."""
        return isinstance(self._reward, StepVerifier)

    def graded(
        self, prompts: Sequence[Prompt], completions: Sequence[str], pieces: Sequence[Sequence[str]]
    ) -> list[Graded]:
        """What the reward says of each completion, the same in every process, each completion graded by one of them.

        Args:
            pieces: see `Rule.reward`; empty where `has_steps` is not.

        Raises:
            GraderFailure, PatternFailure, RewardFailure: our side fails as a whole.
            ValueError: a remote reward refuses every completion.
        """
        found = [part.graded(prompts, completions, pieces) for part in self._parts]
        if not isinstance(self._reward, Weighted):
            return found[0]
        return [self._summed(column) for column in zip(*found, strict=True)]

    def _summed(self, parts: Sequence[Graded]) -> Graded:
        """The weighted sum of a completion's parts; None where one is missing."""
        assert isinstance(self._reward, Weighted)
        known = [part.is_correct for part in parts if part.is_correct is not None]
        values = [part.reward for part in parts]
        total = None
        if all(value is not None for value in values):
            total = math.fsum(
                one.weight * value for one, value in zip(self._reward.parts, values, strict=True) if value is not None
            )
        return Graded(
            total,
            all(known) if known else None,
            is_timed_out=any(part.is_timed_out for part in parts),
            parts=tuple((one.name, value) for one, value in zip(self._reward.parts, values, strict=True)),
            reason=next((part.reason for part in parts if part.reason), None),
        )


class _RulePart:
    def __init__(self, rule: Rule) -> None:
        self._rule = rule

    def close(self) -> None:
        self._rule.close()

    def check(self, prompts: Sequence[Prompt]) -> None:
        for prompt in prompts:
            self._rule.check(prompt)

    def graded(
        self, prompts: Sequence[Prompt], completions: Sequence[str], pieces: Sequence[Sequence[str]]
    ) -> list[Graded]:
        own = share(list(zip(prompts, completions, pieces, strict=True)))
        return gather([self._rule.reward(*one) for one in own])


class _ModelPart:
    def __init__(self, reward: QaFeedback, config: StageConfig) -> None:
        from lco.oracles.qa_feedback import QaFeedbackScorer  # spaCy is there for those who need it

        self._scorer = QaFeedbackScorer(reward, config)

    def close(self) -> None:
        pass

    def check(self, prompts: Sequence[Prompt]) -> None:
        for prompt in prompts:
            _question(prompt)

    def graded(
        self, prompts: Sequence[Prompt], completions: Sequence[str], pieces: Sequence[Sequence[str]]
    ) -> list[Graded]:
        from lco.oracles.qa_feedback import Response

        own = share(list(zip(prompts, completions, strict=True)))
        scores = self._scorer.scores([Response(_question(p), p.text, text.strip()) for p, text in own])
        return gather(
            [
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
        )


class _RemotePart:
    """A remote reward; only the first of several processes asks, so that nothing is paid twice."""

    def __init__(self, config: RemoteConfig, run_dir: Path, earlier: Sequence[Path]) -> None:
        self._process = RewardProcess(config, run_dir, earlier) if rank() == 0 else None

    @property
    def spent(self) -> float:
        return self._process.spent if self._process is not None else 0.0

    def close(self) -> None:
        if self._process is not None:
            self._process.close()

    def check(self, prompts: Sequence[Prompt]) -> None:
        """The references, or a word, of a few prompts are rewarded: what cannot work fails before a model is loaded."""
        if self._process is None:
            return
        tried = [(prompt, prompt.reference or prompt.demonstration or "yes") for prompt in prompts[:_TRIED]]
        found = self._process.rewards([_item(*one) for one in tried])
        if found and all(graded.reward is None for graded in found):
            raise ValueError(f"reward: the dry run on {len(found)} references gave no reward: {found[0].reason}")

    def graded(
        self, prompts: Sequence[Prompt], completions: Sequence[str], pieces: Sequence[Sequence[str]]
    ) -> list[Graded]:
        del pieces
        items = [_item(*one) for one in zip(prompts, completions, strict=True)]
        return told_by_first(self._process.checked(items) if self._process is not None else [])


_Part = _RulePart | _ModelPart | _RemotePart


def _part(reward: Any, config: TrainConfig, run_dir: Path | None, earlier: Sequence[Path]) -> _Part:
    if isinstance(reward, QaFeedback):
        return _ModelPart(reward, config)
    if isinstance(reward, RemoteConfig):
        if run_dir is None:
            raise ValueError(f"reward: {reward.name} is recorded in a run directory, and there is none")
        return _RemotePart(reward, run_dir, earlier)
    return _RulePart(Rule(reward))


def _item(prompt: Prompt, completion: str) -> RewardItem:
    return RewardItem(prompt_id=prompt.id, prompt=prompt.text, completion=completion, reference=prompt.reference)


def _question(prompt: Prompt) -> str:
    """The question that a prompt of QA-Feedback begins with."""
    match = _QUESTION.match(prompt.text)
    if match is None:
        raise ValueError(f"reward: qa-feedback reads prompts `question: ... context: ...`; {prompt.id} is another")
    return match["question"]
