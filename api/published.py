"""Numbers that others printed, beside the rows of a table of results."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from api.result_schemas import PublishedValue, TableRow, Unit
from store.document_parts import PublishedResult


def with_published(
    rows: Iterable[TableRow], document: Mapping[str, Any], unit_of: Callable[[str, str], Unit]
) -> list[TableRow]:
    """The rows, each with the printed number of its method, benchmark, metric and decoding.

    A printed number without a row of ours gets one without a value, in the configuration that other methods were
    measured in, where that is one.

    Args:
        document: an experiment's; one of an earlier version has none.
        unit_of: the unit of a metric of a benchmark.
    """
    found = list(rows)
    source = document.get("published_source", "")
    entries = [PublishedResult.model_validate(entry) for entry in document.get("published", ())]
    printed = {(one.method, one.benchmark, one.metric, one.decoding): one for one in entries}
    values = {
        key: PublishedValue(value=one.value, std=one.std, source=one.source or source) for key, one in printed.items()
    }
    configurations: dict[tuple[str, str, str], set[str]] = {}
    for row in found:
        key = (row.method, row.benchmark, row.metric, row.decoding)
        row.published = values.get(key)
        printed.pop(key, None)
        configurations.setdefault(key[1:], set()).add(row.configuration)
    for (method, benchmark, metric, decoding), _ in printed.items():
        known = configurations.get((benchmark, metric, decoding), set())
        found.append(
            TableRow(
                method=method,
                benchmark=benchmark,
                metric=metric,
                decoding=decoding,
                configuration=next(iter(known)) if len(known) == 1 else "",
                unit=unit_of(benchmark, metric),
                mean=None,
                std=None,
                n=0,
                missing_seeds=[],
                std_over_eval_seeds=None,
                num_examples=0,
                num_unscored=0,
                per_seed=[],
                published=values[method, benchmark, metric, decoding],
            )
        )
    return found
