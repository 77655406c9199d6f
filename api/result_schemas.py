"""What the wire shows of evaluations: results, the table over seeds, completions."""

from datetime import datetime
from typing import Any, Literal

from api.schemas import Wire

Unit = Literal["fraction", "percent", "number"]
"""What a value is: a fraction in [0, 1], a percentage, or any other number."""


class ResultRead(Wire):
    """A metric of one policy on one benchmark for one train seed and one eval seed."""

    object: Literal["result"] = "result"
    id: str
    run_id: str
    """The evaluation run; its completions are behind the number."""
    job_id: str
    experiment_id: str | None
    checkpoint_id: str | None
    """The evaluated checkpoint; null for an imported model."""
    method: str
    benchmark: str
    metric: str
    decoding: str
    train_seed: int
    eval_seed: int | None
    """null for greedy decoding."""
    value: float | None
    """In `unit`; null where nothing could be scored."""
    unit: Unit
    """What the value is: a fraction in [0, 1], a percentage, or any other number."""
    stderr_over_examples: float | None
    """Standard error of the value over problems, the samples of one being one cluster; null where it is not known."""
    num_examples: int
    """Problems."""
    num_unscored: int
    """Completions left out because our side failed."""
    configuration: str
    """Hash of what was measured: benchmark configuration, version, data and graders, and the decoding."""
    created_at: datetime


class SeedValue(Wire):
    """A train seed's mean over eval seeds."""

    train_seed: int
    value: float | None
    num_eval_seeds: int
    """Eval seeds with a value; 1 for greedy decoding."""
    std_over_eval_seeds: float | None
    """Over the eval seeds, ddof = 1; null below two and for greedy decoding."""
    num_examples: int
    """Of all eval seeds together."""
    num_unscored: int


class PublishedValue(Wire):
    """A number that somebody printed."""

    value: float
    """In the row's unit."""
    std: float | None
    """The printed spread, of whatever kind it is."""
    source: str
    """Where it is printed."""


class TableRow(Wire):
    """One cell of the table of results: exact statistics over train seeds, computed when read."""

    method: str
    benchmark: str
    metric: str
    decoding: str
    configuration: str
    """Hash of what was measured, a key of the table's `configurations`; another one is another row."""
    unit: Unit
    """What mean and spread are: fractions in [0, 1], percentages, or other numbers."""
    mean: float | None
    """Over train seeds, of the means over eval seeds."""
    std: float | None
    """Over train seeds, ddof = 1; null below two."""
    n: int
    """Train seeds with a value."""
    missing_seeds: list[int]
    """Train seeds that were asked for and have no value (yet)."""
    std_over_eval_seeds: float | None
    """Mean over train seeds of the standard deviation over eval seeds; null for greedy decoding."""
    num_examples: int
    """Over all seeds."""
    num_unscored: int
    """Examples left out, over all seeds."""
    per_seed: list[SeedValue]
    """By train seed."""
    published: PublishedValue | None = None
    """What the experiment's document says was printed; such a row has no seeds where nothing of ours stands beside."""


class ResultsTable(Wire):
    """The table of results of one experiment or job."""

    object: Literal["results_table"] = "results_table"
    experiment_id: str | None
    job_id: str | None
    rows: list[TableRow]
    configurations: dict[str, dict[str, Any]]
    """Hash -> what the rows of it measured."""


class CompletionRead(Wire):
    """One completion of an evaluation, and what was made of it. Prompt and completion are untrusted text."""

    object: Literal["completion"] = "completion"
    position: int
    """0-based, and the cursor."""
    benchmark: str
    example_id: str
    decoding: str
    train_seed: int
    eval_seed: int | None
    sample_index: int
    """Which of the example's samples, from 0."""
    prompt: str
    completion: str
    reference: str
    extracted: str | None
    """The final answer that was found."""
    verdict: str
    """correct, wrong, no_answer, timeout, error, skipped or scored."""
    correct: bool | None
    """null where our side failed, and where there is no right or wrong."""
    value: float | None
    """The score; null where our side failed."""
    reason: str | None
    """Why, for a person; untrusted text."""
    truncated: bool
    num_tokens: int
    """Tokens of the completion."""
    choice_logprobs: list[float | None] | None
    """Log-probability of each choice, in the likelihood form."""
    values: dict[str, Any]
    """Further numbers of the example."""
    details: dict[str, Any]
    """Anything else the scorer kept; untrusted text."""


class CompletionPair(Wire):
    """What two runs made of one problem, in the same decoding, eval seed and sample."""

    object: Literal["completion_pair"] = "completion_pair"
    position: int
    """Of the first run's completion, and the cursor."""
    change: Literal["gained", "lost", "same", "unknown"]
    """`gained` where the second is right and the first wrong, `lost` the other way; unknown where one has none."""
    first: CompletionRead
    second: CompletionRead
