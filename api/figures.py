"""Figures of evaluations for a person: in percent where they are rates, each under the name of what was measured."""

from collections.abc import Iterable

from api.result_schemas import PublishedValue, TableRow, Unit


def figure(value: float | None, unit: Unit, digits: int = 1) -> str:
    """A value as text: rates in percent, other numbers with two digits more; empty where there is none."""
    if value is None:
        return ""
    if unit == "number":
        return f"{value:.{digits + 2}f}"
    return f"{100 * value if unit == 'fraction' else value:.{digits}f}"


def printed(other: PublishedValue | None, unit: Unit, plus_minus: str = "±") -> str:
    """A printed number with its spread, in brackets: `[58.30 ± 1.83]`; empty where there is none."""
    if other is None:
        return ""
    value, std = figure(other.value, unit, 2), figure(other.std, unit, 2)
    return f"[{value} {plus_minus} {std}]" if std else f"[{value}]"


def size_text(num_bytes: float) -> str:
    """A size for a person: `0 B`, `12 kB`, `1.4 GB`."""
    value = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def column_labels(rows: Iterable[TableRow]) -> dict[tuple[str, str, str], str]:
    """What the column of each (benchmark, decoding, configuration) is called.

    The decoding; where it was measured in several configurations, with the beginning of each one's hash.
    """
    keys = list(dict.fromkeys((row.benchmark, row.decoding, row.configuration) for row in rows))
    names = [key[:2] for key in keys]
    return {
        (benchmark, decoding, configuration): decoding
        if names.count((benchmark, decoding)) == 1
        else f"{decoding} {configuration[:8] or '(unnamed)'}"
        for benchmark, decoding, configuration in keys
    }
