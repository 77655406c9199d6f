"""Rewards tried before a job is accepted: rules on a few prompts, here and now; remote ones by the run, at its start.

Nothing is sent anywhere and no model is loaded. A pattern is matched in a process that is ended when it takes too long.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from lco.advantage_config import GaeAdvantage, SparseAdvantage
from lco.algorithms import TrainConfig
from lco.config import Config, ExactAnswer, Gsm8k, Jsonl, Prompts, QaFeedback
from lco.grading.grade import Grade
from lco.grading.grader import Grader
from lco.prompts import Prompt, load_prompts
from lco.reward_config import Numeric, PythonReward, Regex, RemoteReward, RuleReward, StepVerifier, Weighted, parts_of
from lco.rewards import Graded, Rule
from store.artifacts import resolve_reference
from store.endpoints import nested
from store.errors import Invalid, NotFound
from store.settings import Settings
from store.specs import references

NUM_PROMPTS = 3
MAX_SECONDS = 10.0
"""After so long no further completion is tried."""
AT_START = "is tried when a run starts, before its model is loaded"
"""Why a remote reward has no value here."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A completion to be rewarded."""

    prompt: str
    completion: str
    reference: str


def check_functions(settings: Settings, config: Config, pointer: str) -> None:
    """Refuses a function that the operator did not declare.

    Raises:
        Invalid: names the field.
    """
    for here, found in nested(config, pointer):
        if isinstance(found, PythonReward) and found.function not in settings.declared_rewards:
            known = ", ".join(sorted(settings.declared_rewards)) or "none"
            message = f"is no reward that this platform's operator declared in LCO_REWARDS; known: {known}"
            raise Invalid(f"{here}/function", message)


def tried(reward: Any, trials: Sequence[Trial]) -> list[Graded]:
    """What a reward says of completions, as far as it can be told here and in a few seconds."""
    deadline = time.monotonic() + MAX_SECONDS
    found = [_tried_part(part, trials, deadline) for part in parts_of(reward)]
    if not isinstance(reward, Weighted):
        return found[0]
    rows = []
    for column in zip(*found, strict=True):
        values = [graded.reward for graded in column]
        sum_of = [one.weight * value for one, value in zip(reward.parts, values, strict=True) if value is not None]
        known = [graded.is_correct for graded in column if graded.is_correct is not None]
        rows.append(
            Graded(
                sum(sum_of) if len(sum_of) == len(values) else None,
                all(known) if known else None,
                is_timed_out=any(graded.is_timed_out for graded in column),
                parts=tuple((one.name, value) for one, value in zip(reward.parts, values, strict=True)),
                reason=next((graded.reason for graded in column if graded.reason), None),
            )
        )
    return rows


def _tried_part(reward: Any, trials: Sequence[Trial], deadline: float) -> list[Graded]:
    if isinstance(reward, RemoteReward | QaFeedback):
        return [Graded(None, None, reason=f"{reward.name} {AT_START}") for _ in trials]  # type: ignore[union-attr]
    assert isinstance(reward, RuleReward)
    with _judge_of(reward) as graded:
        return [graded(one) if time.monotonic() < deadline else _LATE for one in trials]


@contextmanager
def _judge_of(reward: RuleReward) -> Iterator[Callable[[Trial], Graded]]:
    """What grades by a rule; its processes end with it."""
    if isinstance(reward, ExactAnswer) and reward.comparison == "math":
        with Grader(num_workers=1) as grader:
            yield lambda one: _graded(reward, grader.grade(one.completion, one.reference, reward.extraction))
        return
    with closing(Rule(reward)) as rule:

        def by_rule(one: Trial) -> Graded:
            prompt = Prompt("trial", one.prompt, one.reference)
            try:
                rule.check(prompt)
                return rule.reward(prompt, one.completion, [*one.completion, ""])  # a character a token, and the end
            except ValueError as error:
                return Graded(None, None, reason=str(error))

        yield by_rule


def _graded(reward: ExactAnswer, grade: Grade) -> Graded:
    if grade.value is None:
        return Graded(None, None, reason=grade.reason)
    is_timed_out = grade.verdict == "timeout"
    return Graded(reward.correct if grade.is_correct else reward.incorrect, grade.is_correct, is_timed_out=is_timed_out)


_LATE = Graded(None, None, reason=f"was not tried: those before took more than {MAX_SECONDS:g} s")


def prompts_to_try(session: Session, settings: Settings, config: TrainConfig) -> list[Prompt] | None:
    """The first prompts of a job; None where they come of a job that has yet to run, or of nothing that there is.

    Raises:
        Invalid: the file is not what the configuration says; the pointer is that of the config's field.
    """
    source: Prompts = config.prompts
    if isinstance(source, Jsonl | Gsm8k):
        (reference,) = (one for one in references(config) if one.pointer == ("prompts", "path"))
        if reference.scheme not in ("data", "dataset"):
            return None
        try:
            path: Path = resolve_reference(session, settings, reference, seed=0, experiment_id=None)
        except (ValueError, NotFound):
            return None  # the submission refuses it, as it refuses every other input
        source = source.model_copy(update={"path": str(path)})
    try:
        return load_prompts(source.model_copy(update={"num_problems": NUM_PROMPTS}))
    except ValueError as error:
        raise Invalid("/prompts", _without_paths(str(error), settings)) from error


def _without_paths(message: str, settings: Settings) -> str:
    """A message about a data file, without where the operator keeps it."""
    return message.replace(f"{settings.data}/", "")


def check_reward(config: TrainConfig, prompts: Sequence[Prompt]) -> None:
    """A right answer must be rewarded more than an empty completion, where the reward is learned from.

    Raises:
        Invalid: for none of the prompts it is; the pointer is that of the config's field.
    """
    if not isinstance(config.algorithm.advantage, SparseAdvantage | GaeAdvantage):
        return
    is_sum = isinstance(config.reward, Weighted)
    for number, reward in enumerate(parts_of(config.reward)):
        if not isinstance(reward, RuleReward):
            continue
        here = f"/reward/parts/{number}/reward" if is_sum else "/reward"
        _check_rule(reward, prompts, here)


def _check_rule(reward: RuleReward, prompts: Sequence[Prompt], here: str) -> None:
    complaints = []
    for prompt in prompts:
        right = list(_right_completions(reward, prompt))
        trials = [Trial(prompt.text, text, prompt.reference) for text in ["", *right]]
        empty, *rows = tried(reward, trials)
        if empty.reason is not None:
            raise Invalid(here, f"cannot reward the prompt {prompt.text[:80]!r}: {empty.reason}")
        values = [row.reward for row in rows if row.reward is not None]
        if not rows or (values and empty.reward is not None and max(values) > empty.reward):
            return
        complaints.append(
            f"the right answer {prompt.reference[:80]!r} of the prompt {prompt.text[:80]!r}, tried as "
            f"{right[0][:120]!r}, is rewarded {max(values, default=None)}, an empty completion {empty.reward}"
        )
    if complaints:
        raise Invalid(here, f"rewards no right answer more than an empty completion: {complaints[0]}")


def _right_completions(reward: RuleReward, prompt: Prompt) -> Iterator[str]:
    """Completions that ought to be rewarded; none where nothing is known of one."""
    if prompt.demonstration:
        yield prompt.demonstration
    if isinstance(reward, StepVerifier) or (isinstance(reward, Regex) and not prompt.demonstration):
        return
    if isinstance(reward, ExactAnswer | Numeric):
        yield {"last-equals": "={}", "boxed": "\\boxed{{{}}}", "any": "\\boxed{{{}}}", "final-number": "{}"}[
            reward.extraction
        ].format(prompt.reference)
