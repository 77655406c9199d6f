"""The table of results as text: CSV with every number, and Markdown, LaTeX and HTML as a paper prints it.

The printed forms have methods down and benchmarks across, one table a metric: mean +- standard deviation over train
seeds (n), in percent where the metric is a share; the best of a column is bold, and a dagger marks a method whose
difference to the baseline is significant. What others printed stands behind in brackets.
"""

import csv
import html
import io
from collections.abc import Callable, Collection, Sequence

from api.dashboard.tables import Cell, MetricTable, by_method
from api.figures import figure, printed
from api.result_schemas import TableRow

Key = tuple[str, str, str, str, str]
"""Method, benchmark, metric, decoding, configuration."""
DAGGER = "\N{DAGGER}"
MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "markdown": "text/markdown; charset=utf-8",
    "latex": "application/x-latex; charset=utf-8",
    "html": "text/html; charset=utf-8",
}
_CSV_FIELDS = (
    "method",
    "benchmark",
    "metric",
    "decoding",
    "configuration",
    "unit",
    "mean",
    "std",
    "n",
    "missing_seeds",
    "std_over_eval_seeds",
    "num_examples",
    "num_unscored",
)
_PUBLISHED = ("published", "published_std", "published_source")
"""What others printed, behind our own numbers."""
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def rendered(rows: Sequence[TableRow], form: str, significant: Collection[Key] = ()) -> str:
    """The table in one of `MEDIA_TYPES`.

    Args:
        significant: what the dagger marks.
    """
    if form == "csv":
        return _csv(rows)
    write = {"markdown": _markdown, "latex": _latex, "html": _html}[form]
    return "\n".join(write(table, set(significant)) for table in by_method(rows))


def _csv(rows: Sequence[TableRow]) -> str:
    """Every row with its full numbers; the value of each train seed in a column of its own."""
    seeds = sorted({cell.train_seed for row in rows for cell in row.per_seed})
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*_CSV_FIELDS, *_PUBLISHED, *(f"seed {seed}" for seed in seeds)])
    for row in rows:
        values = {cell.train_seed: cell.value for cell in row.per_seed}
        plain = [getattr(row, field) for field in _CSV_FIELDS]
        cells = [" ".join(map(str, value)) if isinstance(value, list) else value for value in plain]
        other = row.published
        cells += [None] * len(_PUBLISHED) if other is None else [other.value, other.std, other.source]
        writer.writerow([_harmless(cell) for cell in [*cells, *(values.get(seed) for seed in seeds)]])
    return stream.getvalue()


def _harmless(cell: object) -> object:
    """Text that a spreadsheet would take for a formula gets a quote in front."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def _heads(table: MetricTable) -> list[str]:
    return ["method", *(f"{column.benchmark} {column.label}" for column in table.columns)]


def _cells(
    table: MetricTable, significant: set[Key], write: Callable[[Cell, bool], str], plus_minus: str = "±"
) -> list[list[str]]:
    """The written cells of each method, what others printed in brackets; empty where there is neither."""
    written = []
    for line in table.rows:
        keys = [(line.method, one.benchmark, table.name, one.decoding, one.configuration) for one in table.columns]
        written.append(
            [
                ""
                if cell is None
                else " ".join(
                    part
                    for part in (
                        "" if cell.mean is None else write(cell, key in significant),
                        printed(cell.published, cell.unit, plus_minus),
                    )
                    if part
                )
                for cell, key in zip(line.cells, keys, strict=True)
            ]
        )
    return written


def _figures(cell: Cell) -> tuple[str, str, str]:
    """Mean, standard deviation (empty for one seed) and n, a share in percent."""
    return figure(cell.mean, cell.unit, 2), figure(cell.std, cell.unit, 2), str(cell.n)


def _markdown(table: MetricTable, significant: set[Key]) -> str:
    def write(cell: Cell, is_significant: bool) -> str:
        mean, std, n = _figures(cell)
        text = f"{mean} ± {std} ({n})" if std else f"{mean} ({n})"
        return (f"**{text}**" if cell.is_best else text) + (DAGGER if is_significant else "")

    def line(parts: Sequence[str]) -> str:
        return "| " + " | ".join(part.replace("|", "\\|") for part in parts) + " |"

    heads = _heads(table)
    body = [
        line([row.method, *cells]) for row, cells in zip(table.rows, _cells(table, significant, write), strict=True)
    ]
    return "\n".join([f"**{table.name}**", "", line(heads), line(["---"] * len(heads)), *body, ""])


def _latex(table: MetricTable, significant: set[Key]) -> str:
    def escaped(text: str) -> str:
        return "".join(_LATEX.get(character, character) for character in text)

    def write(cell: Cell, is_significant: bool) -> str:
        mean, std, _ = _figures(cell)
        mark = r"^{\dagger}" if is_significant else ""
        number = rf"\mathbf{{{mean}}}" if cell.is_best else mean
        return rf"${number}{mark} \pm {std}$" if std else f"${number}{mark}$"

    lines = [
        rf"% {escaped(table.name)}; needs \usepackage{{booktabs}}",
        rf"\begin{{tabular}}{{l{'c' * len(table.columns)}}}",
        r"\toprule",
        " & ".join(map(escaped, _heads(table))) + r" \\",
        r"\midrule",
    ]
    for row, cells in zip(table.rows, _cells(table, significant, write, r"$\pm$"), strict=True):
        lines.append(" & ".join([escaped(row.method), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _html(table: MetricTable, significant: set[Key]) -> str:
    def write(cell: Cell, is_significant: bool) -> str:
        mean, std, n = _figures(cell)
        text = f"{mean} ± {std} ({n})" if std else f"{mean} ({n})"
        mark = f"<sup>{DAGGER}</sup>" if is_significant else ""
        return (f"<strong>{text}</strong>" if cell.is_best else text) + mark

    lines = [f"<table><caption>{html.escape(table.name)}</caption><thead><tr>"]
    lines += [f'<th scope="col">{html.escape(head)}</th>' for head in _heads(table)]
    lines.append("</tr></thead><tbody>")
    for row, cells in zip(table.rows, _cells(table, significant, write), strict=True):
        numbers = "".join(f"<td>{cell}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row">{html.escape(row.method)}</th>{numbers}</tr>')
    return "\n".join([*lines, "</tbody></table>", ""])
