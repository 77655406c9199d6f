"""Grades outputs that exist already: no policy is sampled. `python -m evaluation.score CONFIG.json RUN_DIR`.

Writes `score.json` (the figures), `rows.jsonl` (every graded row) and `results.json` (the figures as results, so that
they are tabled with those of evaluations).
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.data import locate, read_rows
from evaluation.records import sound
from evaluation.rescoring import score_completions
from evaluation.score_config import (
    AlpacaEvalScore,
    CompletionsScore,
    MathScore,
    MmluScore,
    QaFeedbackScore,
    Rows,
    ScoreConfig,
    Scoring,
)
from lco.config import QaFeedback
from lco.manifest import write_durably, write_manifest
from lco.stage import Stage, run_stage

SCORE = "score.json"
ROWS = "rows.jsonl"
RESULTS = "results.json"
DECODING = "stored"
"""What stands for a decoding in the results: the outputs were there."""

Graded = tuple[list[dict[str, Any]], dict[str, Any]]
"""Rows and figures."""
Report = Callable[[int, int], None]
"""Told how many rows are graded, and of how many."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What became of the outputs."""

    rows: list[dict[str, Any]]
    """One for each graded row."""
    figures: dict[str, Any]
    """Those of all rows together, as JSON."""
    results: list[dict[str, Any]] | None = None
    """Rows of results, where the figures are those of a benchmark."""
    configurations: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Hash -> what those measured."""


def grade(
    scoring: Scoring,
    config: ScoreConfig,
    report: Report,
    directory: Path,
    earlier: Sequence[Path] = (),
    spent: Callable[[float], None] = lambda usd: None,
) -> Scored:
    """Grades the rows of a scoring.

    Args:
        directory: where a benchmark's graders record what they paid or waited for.
        earlier: directories of earlier attempts, newest first.
        spent: told what graders have cost so far, in US dollars.

    Raises:
        ValueError: an input is wrong; the message names the file or field, and the row.
    """
    if isinstance(scoring, CompletionsScore):
        found = score_completions(scoring.completions, scoring.benchmark, directory, earlier, report, spent)
        results = [result.document() for result in found.results]
        return Scored(found.rows, found.figures, results, found.configurations)
    rows, figures = _GRADERS[type(scoring)](scoring, config, report)
    return Scored(rows, figures)


def rows_of(source: Rows) -> list[dict[str, Any]]:
    """The rows themselves, or those of the file that is named.

    Raises:
        ValueError: the file cannot be read, or has no rows.
    """
    rows = source if isinstance(source, list) else [row.fields for row in read_rows(locate(source))]
    if not rows:
        raise ValueError(f"{source}: there are no rows")
    return rows


def _math(scoring: MathScore, config: ScoreConfig, report: Report) -> Graded:
    from evaluation.scoring.math import score_math

    rows = rows_of(scoring.rows)
    return score_math(rows, scoring.extraction, progress=lambda done: report(done, len(rows)))


def _alpaca_eval(scoring: AlpacaEvalScore, config: ScoreConfig, report: Report) -> Graded:
    from evaluation.scoring.alpaca_eval import score_annotations

    instructions, difficulty, gamed_baseline = (
        None if source is None else rows_of(source)
        for source in (scoring.instructions, scoring.difficulty, scoring.gamed_baseline)
    )
    return score_annotations(
        rows_of(scoring.annotations),
        instructions=instructions,
        difficulty=difficulty,
        gamed_baseline=gamed_baseline,
        compat=None if scoring.compat == "none" else scoring.compat,
    )


def _qa_feedback(scoring: QaFeedbackScore, config: ScoreConfig, report: Report) -> Graded:
    from evaluation.scoring.qa_feedback import score_qa_feedback
    from lco.oracles.qa_feedback import QaFeedbackScorer

    models = QaFeedback(relevance=scoring.relevance, factuality=scoring.factuality, completeness=scoring.completeness)
    found = score_qa_feedback(rows_of(scoring.rows), QaFeedbackScorer(models, config), report)
    return found.rows, found.aggregate


def _mmlu(scoring: MmluScore, config: ScoreConfig, report: Report) -> Graded:
    from evaluation.scoring.mmlu import score_mmlu

    return score_mmlu(rows_of(scoring.rows))


_GRADERS: dict[type, Callable[[Any, ScoreConfig, Report], Graded]] = {
    MathScore: _math,
    AlpacaEvalScore: _alpaca_eval,
    QaFeedbackScore: _qa_feedback,
    MmluScore: _mmlu,
}


def score(config: ScoreConfig, stage: Stage) -> None:
    """The stage: grades, writes, and lists what it wrote in the manifest.

    Raises:
        Stopped: asked to stop; a judge's replies are kept, the rest is quick and begins again.
        ValueError: an input is wrong.
    """

    def report(done: int, total: int) -> None:
        stage.check()
        stage.progress(done, total, f"grading {config.scoring.name}")

    scored = grade(config.scoring, config, report, stage.run_dir, stage.earlier[1:], stage.spending)
    write_durably(stage.run_dir / SCORE, json.dumps(sound(scored.figures), indent=1).encode())
    write_rows(stage.run_dir / ROWS, scored)
    rows = scored.results
    if rows is None:
        rows = [result | {"benchmark": config.scoring.name} for result in results_of(scored)]
    results = sound({"rows": rows, "configurations": scored.configurations})
    write_durably(stage.run_dir / RESULTS, json.dumps(results, indent=1).encode())
    write_manifest(
        stage.run_dir,
        step=len(scored.rows),
        outputs={"score": SCORE, "rows": ROWS, "results": RESULTS},
        include=[SCORE, ROWS, RESULTS],
    )


def write_rows(path: Path, scored: Scored) -> None:
    """Writes the graded rows as JSON Lines."""
    with path.open("w", encoding="utf-8") as stream:
        for row in scored.rows:
            stream.write(json.dumps(sound(row)) + "\n")


def results_of(scored: Scored) -> Iterator[dict[str, Any]]:
    """Every rate among the figures as a result; nested ones are named by their path."""
    num_examples = next((scored.figures[name] for name in ("n_total", "n") if name in scored.figures), len(scored.rows))
    for metric, value in _numbers(scored.figures):
        yield {
            "metric": metric,
            "decoding": DECODING,
            "eval_seed": None,
            "value": value,
            "num_examples": num_examples,
            "num_unscored": scored.figures.get("n_missing", 0),
        }


def _numbers(figures: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    for name, value in figures.items():
        if isinstance(value, float):  # whole numbers are counts
            yield path + name, value
        elif isinstance(value, Mapping):
            yield from _numbers(value, f"{path}{name}/")


if __name__ == "__main__":
    sys.exit(run_stage(ScoreConfig, score))
