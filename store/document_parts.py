"""Parts of an experiment's document beside its jobs: what others printed, what was assumed, what a price needs."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from lco.config import Config
from store.errors import Invalid

_Word = Annotated[str, Field(min_length=1, max_length=128)]
_Place = Annotated[str, Field(min_length=2, max_length=512, pattern=r"^/")]
_Reason = Annotated[str, Field(min_length=1, max_length=1000)]
Assumed = Annotated[dict[_Place, _Reason], Field(max_length=500)]
"""Place in the document -> why it has the value that it has."""


class PublishedResult(Config):
    """A number that somebody printed, shown beside ours in the table of results."""

    method: Annotated[str, Field(min_length=1, max_length=64)]
    """The method of the row that it stands beside."""
    benchmark: _Word
    """Its benchmark."""
    metric: _Word
    """Its metric."""
    decoding: _Word
    """Its decoding."""
    value: float
    """In the metric's unit: a share is a fraction in [0, 1]."""
    std: NonNegativeFloat | None = None
    """The printed spread, of whatever kind it is; null where none is printed."""
    source: Annotated[str, Field(max_length=128)] = ""
    """Where it is printed; empty takes the document's `published_source`."""


class PriceHints(Config):
    """What a price cannot know from the configurations: it changes no run."""

    prompt_tokens: PositiveFloat = 128.0
    """Mean length of a prompt."""
    completion_tokens: PositiveFloat = 512.0
    """Mean length of a completion, where `max_tokens` allows as many."""
    longest_tokens: PositiveInt = 1024
    """Longest demonstration or preference with its prompt: memory is priced for it."""
    rows: Annotated[dict[str, PositiveInt], Field(max_length=100)] = {}
    """Source of data, as the jobs name it -> rows that are in it."""


class Budget(Config):
    """What may be spent. Of a job: by each of its runs. Of an experiment: by all its runs together."""

    wall_seconds: PositiveFloat | None = None
    """Seconds that attempts may run, added up; waiting in the queue is not counted. null for no limit."""
    tokens: PositiveInt | None = None
    """Tokens generated plus tokens trained on; null for no limit."""
    judge_usd: PositiveFloat | None = None
    """What judges and other endpoints may cost, in the currency of their `prices`; null for no limit."""

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.wall_seconds is None and self.tokens is None and self.judge_usd is None:
            raise ValueError("a budget limits wall_seconds, tokens or judge_usd")
        return self


def check_assumed(document: Mapping[str, Any]) -> None:
    """Every place that `assumed` names must be one of the document.

    A place is a JSON pointer in which an item of a list with names, such as a job, goes by its name, and `*` stands
    for every item or field: `/jobs/sft/config/batch_size`, `/jobs/*/resources`.

    Raises:
        Invalid: there is no such place.
    """
    assumed = document.get("assumed", {})
    if not isinstance(assumed, dict):
        return  # refused where the document is validated
    for path in assumed:
        parts = [part.replace("~1", "/").replace("~0", "~") for part in str(path).split("/")[1:]]
        if not any(True for _ in _places(document, parts)):
            escaped = str(path).replace("~", "~0").replace("/", "~1")
            raise Invalid(f"/assumed/{escaped}", "the document has no such place")


def _places(value: Any, parts: list[str]) -> Iterator[Any]:
    """The values at a place; several where it has a `*`."""
    if not parts:
        yield value
        return
    first, *rest = parts
    for key, item in _items(value):
        if first in ("*", key):
            yield from _places(item, rest)


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from ((str(key), item) for key, item in value.items())
    elif isinstance(value, list):
        for position, item in enumerate(value):
            has_name = isinstance(item, dict) and isinstance(item.get("name"), str)
            yield (item["name"] if has_name else str(position)), item
