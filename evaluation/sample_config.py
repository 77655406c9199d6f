"""Configuration of a sampling: what a few policies say to a few prompts. No torch."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from evaluation.config import DecodingLabel
from lco.config import Config, ModelSource, OptimalPolicySource, StageConfig

SAMPLES = "samples.jsonl"
"""The file of a run directory that grows by a line a completion."""
MAX_COMPLETIONS = 640


class SamplePolicy(Config):
    """A policy that is sampled."""

    policy: ModelSource | OptimalPolicySource
    """A model, or pi* of a policy and a reward model."""
    label: Annotated[str, Field(max_length=128)] = ""
    """What it is called where completions are shown; empty takes the policy's own name."""


class SampleTask(Config):
    """What is to be sampled."""

    policies: Annotated[list[SamplePolicy], Field(min_length=1, max_length=4)]
    """Who is asked. All draw the same random numbers for the same prompt, decoding and seed."""
    prompts: Annotated[list[Annotated[str, Field(min_length=1, max_length=50_000)]], Field(min_length=1, max_length=20)]
    """What is asked, each through the model's chat template where it has one."""
    decodings: Annotated[list[DecodingLabel], Field(min_length=1, max_length=4)] = ["t1.0"]
    """`greedy`, or `tT-pP`: sampling at temperature T with top-p P."""
    eval_seeds: Annotated[list[Annotated[int, Field(ge=0, lt=1 << 63)]], Field(min_length=1, max_length=8)] = [0]
    """One completion each of every prompt in every sampled decoding; greedy ones have no seed."""
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 256
    """Longest completion."""

    @property
    def num_completions(self) -> int:
        """How many completions are sampled in all."""
        per_prompt = sum(1 if label == "greedy" else len(self.eval_seeds) for label in self.decodings)
        return len(self.policies) * len(self.prompts) * per_prompt

    @model_validator(mode="after")
    def _is_a_look_and_no_evaluation(self) -> Self:
        for field, values in (("decodings", self.decodings), ("eval_seeds", self.eval_seeds)):
            if len(set(values)) != len(values):
                raise ValueError(f"{field}: {values} names one twice")
        if self.num_completions > MAX_COMPLETIONS:
            raise ValueError(f"prompts: {self.num_completions} completions in all are more than {MAX_COMPLETIONS}")
        return self


class SampleConfig(SampleTask, StageConfig):
    """Samples completions of some prompts from some policies, token by token, to be read side by side."""
