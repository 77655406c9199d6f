"""The table of results as text."""

import csv
import io

from api.result_schemas import SeedValue, TableRow
from api.table_formats import rendered


def row(method: str, values: dict[int, float], metric: str = "pass@1", benchmark: str = "sums") -> TableRow:
    """A row of the table with one value a train seed."""
    mean = sum(values.values()) / len(values)
    seeds = [
        SeedValue(
            train_seed=seed, value=value, num_eval_seeds=1, std_over_eval_seeds=None, num_examples=10, num_unscored=0
        )
        for seed, value in values.items()
    ]
    return TableRow(
        method=method,
        benchmark=benchmark,
        metric=metric,
        decoding="t1.0",
        configuration="c0",
        unit="fraction",
        mean=mean,
        std=0.01 if len(values) > 1 else None,
        n=len(values),
        missing_seeds=[7],
        std_over_eval_seeds=None,
        num_examples=10,
        num_unscored=0,
        per_seed=seeds,
    )


ROWS = [row("sft_a", {0: 0.1, 1: 0.2}), row("lco|kld", {0: 0.3, 1: 0.5}), row("=x&y<b>", {0: 0.2})]
MARKED = {("lco|kld", "sums", "pass@1", "t1.0", "c0")}


def test_csv_has_every_number_and_no_formula() -> None:
    read = list(csv.DictReader(io.StringIO(rendered(ROWS, "csv"))))
    assert [item["method"] for item in read] == ["sft_a", "lco|kld", "'=x&y<b>"]
    assert (read[0]["seed 0"], read[0]["seed 1"], read[2]["seed 1"]) == ("0.1", "0.2", "")
    assert read[0]["missing_seeds"] == "7"
    assert float(read[1]["mean"]) == 0.4


def test_markdown_marks_the_best_and_the_significant() -> None:
    lines = rendered(ROWS, "markdown", MARKED).splitlines()
    assert lines[:4] == ["**pass@1**", "", "| method | sums t1.0 |", "| --- | --- |"]
    assert "| lco\\|kld | **40.00 ± 1.00 (2)**\N{DAGGER} |" in lines
    assert "| =x&y<b> | 20.00 (1) |" in lines


def test_latex_escapes_names_and_needs_booktabs() -> None:
    text = rendered(ROWS, "latex", MARKED)
    assert r"lco|kld & $\mathbf{40.00}^{\dagger} \pm 1.00$ \\" in text
    assert r"sft\_a & $15.00 \pm 1.00$ \\" in text
    assert r"=x\&y<b> & $20.00$ \\" in text
    assert text.count(r"\toprule") == 1


def test_html_escapes_names() -> None:
    text = rendered(ROWS, "html", MARKED)
    assert '<th scope="row">=x&amp;y&lt;b&gt;</th>' in text
    assert "<strong>40.00 ± 1.00 (2)</strong><sup>\N{DAGGER}</sup>" in text


def test_each_metric_has_a_table_of_its_own() -> None:
    both = [*ROWS, row("sft_a", {0: 0.0}, metric="truncated")]
    assert rendered(both, "markdown").count("| method |") == 2
