"""What the configurations of all benchmarks share. No torch."""

from typing import Annotated

from pydantic import AfterValidator, Field, PositiveInt

from evaluation.data import checked_source
from lco.config import Config, Source

DatasetSource = Annotated[
    str,
    Source("data", is_hub_allowed=True),
    Field(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f]+$"),
    AfterValidator(checked_source),
]
"""Rows of a data set (JSON, JSON Lines, CSV, each also .gz, or Parquet): a path, over HTTP `job:NAME` or
`data:RELATIVE/PATH`; or `hub:ORG/NAME@REVISION/PATH`, one file of a public data set at a pinned revision."""

StopString = Annotated[str, Field(min_length=1, max_length=64)]


class BenchmarkBase(Config):
    """Base of the configuration of a benchmark."""

    max_tokens: PositiveInt = 512
    """Longest completion."""
    stop: Annotated[list[StopString], Field(max_length=8)] = []
    """Strings that end a completion beside the end-of-sequence token; the string itself is left out."""
