"""What the wire shows of samplings: a few policies' completions of a few prompts."""

from datetime import datetime
from typing import Literal

from api.schemas import Progress, RunError, Wire


class SampledPolicy(Wire):
    """A policy that is sampled."""

    source: str
    """As it was named: `ckpt_...`, `alias:NAME`, `job_...`, `model:NAME`; `pi*` for an optimal policy."""
    label: str
    """What it is called."""


class SampledRow(Wire):
    """One completion."""

    policy: int
    """Place in `policies`, from 0."""
    prompt: int
    """Place in `prompts`, from 0."""
    decoding: str
    eval_seed: int | None
    """null for greedy decoding."""
    completion: str
    pieces: list[str]
    """Text of each token; special tokens have none."""
    logprobs: list[float | None]
    """Natural log-probability of each token at temperature 1."""
    is_truncated: bool
    """It reached `max_tokens` without an end."""
    error: str | None
    """Why there is no completion."""


class SampleRead(Wire):
    """Completions of a few prompts by a few policies, so far."""

    object: Literal["sample"] = "sample"
    id: str
    """Of the job that samples."""
    run_id: str
    name: str
    status: str
    """Of the job."""
    progress: Progress
    error: RunError | None
    policies: list[SampledPolicy]
    prompts: list[str]
    decodings: list[str]
    eval_seeds: list[int]
    max_tokens: int
    num_completions: int
    """How many there will be."""
    rows: list[SampledRow]
    """Those that are there; empty in lists."""
    created_at: datetime
