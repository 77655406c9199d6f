"""What the configurations of all benchmarks share. No torch."""

from typing import Annotated

from pydantic import Field, PositiveInt

from lco.config import Config

StopString = Annotated[str, Field(min_length=1, max_length=64)]


class BenchmarkBase(Config):
    """Base of the configuration of a benchmark."""

    max_tokens: PositiveInt = 512
    """Longest completion."""
    stop: Annotated[list[StopString], Field(max_length=8)] = []
    """Strings that end a completion beside the end-of-sequence token; the string itself is left out."""
