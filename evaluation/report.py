"""An evaluation as one HTML file that opens from a disk. `python -m evaluation.report RUN_DIR [-o FILE]`. No torch.

It shows the results, and every completion with prompt, reference, extracted answer, verdict and reason; filters by
verdict, benchmark, decoding and text. Model text stands in a JSON block and is put on the page as text, never as
markup; the page's policy lets nothing but its own script run, and nothing be loaded.
"""

import argparse
import base64
import hashlib
import html
import json
import sys
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from evaluation.comparison import read_completions
from evaluation.results import RESULTS

REPORT = "report.html"
MAX_COMPLETIONS = 5000
"""Completions in a page when nothing else is said: about 10 MB of text."""
_SHOWN = (
    "benchmark",
    "decoding",
    "eval_seed",
    "sample_index",
    "example_id",
    "prompt",
    "completion",
    "reference",
    "extracted",
    "verdict",
    "reason",
    "value",
    "truncated",
)


def write_report(directory: Path, path: Path, *, limit: int = MAX_COMPLETIONS) -> int:
    """Writes the report of a finished evaluation.

    Args:
        directory: its run directory.
        path: the HTML file.
        limit: completions at most; of more, those that are not correct come first, and the page says how many are left
            out.

    Returns:
        How many completions the page shows.

    Raises:
        ValueError: the directory holds no finished evaluation.
    """
    try:
        results = json.loads((directory / RESULTS).read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{directory}: no finished evaluation here ({RESULTS}: {error})") from error
    records = [{name: record.get(name) for name in _SHOWN} for record in read_completions(directory)]
    num_all = len(records)
    if num_all > limit:
        records = sorted(records, key=lambda record: record["verdict"] == "correct")[:limit]
    path.write_text(_page(directory.resolve().name, results, records, num_all), encoding="utf-8")
    return len(records)


def _page(title: str, results: dict[str, Any], records: Sequence[dict[str, Any]], num_all: int) -> str:
    style = files("evaluation").joinpath("report.css").read_text()
    script = files("evaluation").joinpath("report.js").read_text()
    policy = f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; base-uri 'none'"
    left_out = num_all - len(records)
    note = (
        f"<p class=note>{left_out} of {num_all} completions are left out, correct ones first.</p>" if left_out else ""
    )
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Evaluation {html.escape(title)}</title>",
            f"<style>{style}</style>",
            "</head>",
            "<body>",
            f"<h1>Evaluation {html.escape(title)}</h1>",
            _table(results.get("rows", [])),
            _configuration(results),
            note,
            '<form id="filters" role="search"></form>',
            '<p id="count" role="status"></p>',
            '<div id="completions"></div>',
            '<button id="more" type="button" hidden>Show more</button>',
            f'<script type="application/json" id="records">{_json(records)}</script>',
            f"<script>{script}</script>",
            "</body>",
            "</html>",
            "",
        )
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(document: Any) -> str:
    """JSON for a script element: no `<` can end it, no lone surrogate can break the file."""
    return json.dumps(document).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _table(rows: Iterable[dict[str, Any]]) -> str:
    head = ("benchmark", "metric", "decoding", "eval seed", "value", "± standard error", "examples", "unscored")
    cells = [
        (
            str(row.get("benchmark")),
            str(row.get("metric")),
            str(row.get("decoding")),
            "" if row.get("eval_seed") is None else str(row["eval_seed"]),
            _number(row.get("value")),
            _number(row.get("stderr_over_examples")),
            str(row.get("num_examples", "")),
            str(row.get("num_unscored", "")),
        )
        for row in rows
    ]
    lines = ["<table>", "<thead><tr>", *[f'<th scope="col">{name}</th>' for name in head], "</tr></thead>", "<tbody>"]
    for row in cells:
        lines.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>")
    return "\n".join([*lines, "</tbody>", "</table>"])


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else ""


def _configuration(results: dict[str, Any]) -> str:
    """Everything else that the results state: configurations, versions, hashes."""
    more = {name: value for name, value in results.items() if name != "rows"}
    if not more:
        return ""
    text = html.escape(json.dumps(more, indent=1))
    return f"<details><summary>Configuration and versions</summary><pre>{text}</pre></details>"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 2 where there is nothing to report."""
    parser = argparse.ArgumentParser(prog="lco report", description="Write an evaluation as one HTML file.")
    parser.add_argument("directory", type=Path, metavar="RUN_DIR", help="run directory of an evaluation")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=f"default: RUN_DIR/{REPORT}")
    parser.add_argument("--limit", type=int, default=MAX_COMPLETIONS, help=f"completions at most ({MAX_COMPLETIONS})")
    options = parser.parse_args(arguments)
    path = options.output or options.directory / REPORT
    try:
        count = write_report(options.directory, path, limit=options.limit)
    except ValueError as error:
        print(f"lco report: {error}", file=sys.stderr)
        return 2
    print(f"{path}: {count} completions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
