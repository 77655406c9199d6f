"""What is made of one completion: the verdict that rewards and benchmarks share. No torch."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["correct", "wrong", "no_answer", "timeout", "error", "skipped"]
"""`timeout`: the answer took too much time or memory. `skipped`: it is beyond the bounds. `error`: our side failed."""


@dataclass(frozen=True, slots=True)
class Grade:
    """What was made of one completion."""

    extracted: str | None
    """The final answer as written, at most 4,096 characters of it; None where there is none."""
    verdict: Verdict
    reason: str | None = None
    """Why, where the verdict does not say it."""

    @property
    def is_correct(self) -> bool:
        """Whether the answer equals the reference."""
        return self.verdict == "correct"

    @property
    def value(self) -> float | None:
        """1 or 0; None where our side failed."""
        return None if self.verdict == "error" else float(self.is_correct)
