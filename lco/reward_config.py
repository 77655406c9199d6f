"""Configuration of the rewards: one frozen class each, no torch. `ExactAnswer` and `QaFeedback` are in `config.py`."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag

from lco.config import Comparison, Config, ExactAnswer, Extraction, QaFeedback


class StepVerifier(Config):
    """Rule reward of every step of a completion; the credit goes to the step's own tokens, not to the completion."""

    name: Literal["step-verifier"] = "step-verifier"
    verifier: Literal["sums", "equations"] = "sums"
    """`sums`: steps `7+5=12;12+9=21` of a sum, each going on from the result before it, and the end after the last.
    `equations`: lines, judged by the equations of numbers in them; a line without one has reward 0."""
    correct: float = 1.0
    """Reward of a right step."""
    incorrect: float = -1.0
    """Reward of a wrong one."""
    credit: Literal["own", "later"] = "own"
    """A token's advantage is that of its `own` step, or the sum over it and all `later` steps (process supervision,
    arXiv 2402.03300)."""
    extraction: Extraction = "boxed"
    """How the final answer is found that the accuracy is reported of."""
    comparison: Comparison = "exact"
    """How it is compared with the reference: `exact` by number or text; `math` by formulas too, in processes apart."""


def _name(value: Any) -> str:
    """Which reward is meant; without a name it is the answer's."""
    name = value.get("name", "exact-answer") if isinstance(value, dict) else getattr(value, "name", "")
    return str(name)


Reward = Annotated[
    Annotated[ExactAnswer, Tag("exact-answer")]
    | Annotated[StepVerifier, Tag("step-verifier")]
    | Annotated[QaFeedback, Tag("qa-feedback")],
    Discriminator(_name),
]
