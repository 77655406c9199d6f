"""`lco score`: grades outputs that exist already, with no service, GPU or network.

Standard output is one JSON document, the figures; `-o FILE` takes the graded rows. Exit status 2 says that an input is
wrong, and standard error which.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evaluation.records import sound
from evaluation.rescoring import completions_file, stored_benchmark
from evaluation.score import grade, write_rows
from evaluation.score_config import ScoreConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    options = vars(make_parser().parse_args(arguments))
    output: Path | None = options.pop("output")
    device = options.pop("device", "auto")
    try:
        if options["name"] == "completions":
            options["completions"] = str(completions_file(options["completions"]))
            options["benchmark"] = _benchmark(options["completions"], options["benchmark"], options.pop("config"))
        config = ScoreConfig.model_validate({"scoring": options, "device": device})
        with tempfile.TemporaryDirectory(prefix="lco-score-") as directory:
            scored = grade(config.scoring, config, lambda done, total: None, Path(directory))
        if output is not None:
            write_rows(output, scored)
    except ValidationError as error:
        first = error.errors()[0]
        print(f"lco score: {'.'.join(map(str, first['loc'][2:]))}: {first['msg']}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"lco score: {error}", file=sys.stderr)
        return 2
    print(json.dumps(sound(scored.figures), indent=1))
    return 0


def _benchmark(source: str, name: str, path: Path | None) -> dict[str, Any]:
    """The configuration of the benchmark: of a file, else as it was when the completions were made.

    Raises:
        ValueError: there is none.
    """
    if path is None:
        return stored_benchmark(source, name)
    try:
        document = json.loads(path.read_bytes())
        return {**document, "name": name}
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"--config: {path} holds no JSON object ({error})") from error


def make_parser() -> argparse.ArgumentParser:
    """The parser: one command for each kind of outputs."""
    parser = argparse.ArgumentParser(
        prog="lco score", description="Grade outputs that exist already; prints the figures as one JSON document."
    )
    commands = parser.add_subparsers(required=True, metavar="KIND", dest="name")
    math = _add(commands, "math", "math answers: rows {id, completion | answer, reference}")
    math.add_argument("rows", metavar="FILE", help="JSON, JSON Lines or .gz; rows of one id are samples of one problem")
    math.add_argument(
        "--extraction",
        choices=("boxed", "any"),
        default="boxed",
        help="where the answer stands: the last box or declared final answer (default), or the last answer pattern",
    )
    alpaca = _add(commands, "alpaca-eval", "AlpacaEval 2.0 annotations: win rates in percent")
    alpaca.add_argument("annotations", metavar="ANNOTATIONS", help="alpaca_eval's annotations.json")
    for option, text in (
        ("--instructions", "the 805 instructions in canonical order, with their index"),
        ("--difficulty", "CSV of index, instruction_difficulty"),
        ("--gamed-baseline", "CSV of the gamed baseline's rows (df_gamed.csv)"),
    ):
        alpaca.add_argument(option, metavar="FILE", help=f"{text}; without it there is no length-controlled win rate")
    alpaca.add_argument(
        "--compat",
        choices=("none", "row-order"),
        default="none",
        help="row-order joins the difficulty by row position, as the published figures do",
    )
    qa = _add(commands, "qa-feedback", "QA-Feedback responses: relevance, factuality, completeness")
    qa.add_argument("rows", metavar="FILE", help="JSON, JSON Lines or .gz")
    for name in ("relevance", "factuality", "completeness"):
        qa.add_argument(f"--{name}", required=True, metavar="DIR", help=f"directory of the {name} model")
    qa.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the models run")
    mmlu = _add(commands, "mmlu", "MMLU answers: rows {subject, id, prediction, answer, [error_type]}")
    mmlu.add_argument("rows", metavar="FILE", help="JSON, JSON Lines or .gz; a null prediction is unanswered")
    again = _add(commands, "completions", "completions of an evaluation, by today's version of their benchmark")
    again.add_argument("completions", metavar="RUN_DIR", help="an evaluation's directory, or its completions.jsonl")
    again.add_argument("--benchmark", required=True, metavar="NAME", help="which of its benchmarks")
    again.add_argument(
        "--config", type=Path, metavar="FILE", help="JSON: the benchmark's configuration (default: as it was made)"
    )
    return parser


def _add(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the graded rows here, JSON Lines")
    return parser


if __name__ == "__main__":
    sys.exit(main())
