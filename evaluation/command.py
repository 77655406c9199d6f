"""`lco evaluate CHECKPOINT --benchmarks ...`: an evaluation from options, without the platform.

The options become a configuration, `RUN_DIR/config.json`, and the evaluation is the one that `python -m evaluation.run
RUN_DIR/config.json RUN_DIR` makes: the same command again goes on where it was stopped, and other options are refused
in a directory that holds work. Progress goes to standard error; standard output is the table and the report's path.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from evaluation.benchmarks import BENCHMARKS
from evaluation.config import EvalConfig
from evaluation.records import content_key
from evaluation.report import REPORT, write_report
from evaluation.results import RESULTS
from evaluation.run import evaluate
from evaluation.summary import summarize, table
from lco.run_directory import outputs, settle_configuration
from lco.stage import EXIT_STOPPED, EXIT_USER, Stage, run_stage

CONFIG = "config.json"
DIRECTORY = "evaluations"
"""Where run directories go when no other place is said."""
_FILES: dict[str, dict[str, tuple[str, ...]]] = {
    "mmlu": {"dev": ("mmlu_dev.jsonl", "mmlu_dev.jsonl.gz", "dev-00000-of-00001.parquet")},
    "mmlu-redux": {"dev": ("mmlu_dev.jsonl", "mmlu_dev.jsonl.gz", "dev-00000-of-00001.parquet")},
    "alpaca-eval-2": {
        "difficulty": ("instruction_difficulty.csv",),
        "gamed_baseline": ("df_gamed.csv", "df_gamed.csv.gz"),
    },
}
"""Benchmark -> further fields of its configuration that name a file, and what such a file is called."""
_LIMITS = {"alpaca-eval-2": "num_examples", "qa-feedback": "num_questions"}
"""Benchmark -> the field that `--limit` sets; `num_problems` for the others."""

ItemT = TypeVar("ItemT")


class Terminal(Stage):
    """A stage whose progress and log a person sees: on standard error, in one line that is written over."""

    _told_at = -float("inf")
    _width = 0

    def progress(self, step: int, total: int, message: str) -> None:
        """How far the stage is; on a terminal at once, in a log every ten seconds."""
        super().progress(step, total, message)
        is_terminal, now = sys.stderr.isatty(), time.monotonic()
        if not is_terminal and now - self._told_at < 10 and step < total:
            return
        self._told_at = now
        before, after = ("\r", "") if is_terminal else ("", "\n")
        print(f"{before}{message.ljust(self._width)}", end=after, file=sys.stderr, flush=True)
        self._width = len(message) if is_terminal else 0

    def say(self, line: str) -> None:
        """A line of the log, below the progress."""
        print(("\n" if self._width else "") + line, file=sys.stderr, flush=True)
        self._width = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    options = make_parser().parse_args(arguments)
    try:
        config = configuration(options)
        run_dir: Path = options.output or default_directory(options, config)
        run_dir.mkdir(parents=True, exist_ok=True)
        settle_configuration(run_dir, config)
        (run_dir / CONFIG).write_text(config.model_dump_json(indent=1) + "\n", encoding="utf-8")
    except ValidationError as error:
        for each in error.errors():
            print(f"lco evaluate: {'.'.join(map(str, each['loc']))}: {each['msg']}", file=sys.stderr)
        return EXIT_USER
    except (ValueError, OSError) as error:
        print(f"lco evaluate: {error}", file=sys.stderr)
        return EXIT_USER
    print(f"run directory: {run_dir}", file=sys.stderr, flush=True)
    status = run_stage(EvalConfig, evaluate, [str(run_dir / CONFIG), str(run_dir)], stage_type=Terminal)
    if status == EXIT_STOPPED:
        print("the same command again goes on from here", file=sys.stderr)
    if status == 0:
        path = run_dir / REPORT
        write_report(run_dir, path)
        print(table(summarize(run_dir)))
        print(f"\nresults: {run_dir / RESULTS}\nreport: {path}")
    return status


def configuration(options: argparse.Namespace) -> EvalConfig:
    """The configuration that the options ask for.

    Raises:
        ValueError: they ask for nothing that can be; the message names the option or the field.
    """
    samples: int = options.samples
    document = {
        "policy": _policy(options),
        "benchmarks": [_benchmark(name, options) for name in options.benchmarks],
        "eval_seeds": options.eval_seeds,
        "samples_per_example": samples,
        "pass_at": [k for k in (1 << power for power in range(1, 11)) if k <= samples],
        "decodings": options.decodings,
        "batch_size": options.batch_size,
        "device": options.device,
        "precision": options.precision,
        "system_prompt": options.system_prompt,
    }
    return EvalConfig.model_validate(document)


def default_directory(options: argparse.Namespace, config: EvalConfig) -> Path:
    """A directory of the configuration's own, so that the same options find their work again."""
    named = Path(options.checkpoint).resolve().name if options.checkpoint else options.model
    safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in named) or "policy"
    return Path(DIRECTORY) / f"{safe}-{content_key(config=config.model_dump(mode='json'))[:8]}"


def _policy(options: argparse.Namespace) -> str | dict[str, Any]:
    if options.endpoint:
        if options.checkpoint or not options.model:
            raise ValueError("--endpoint: needs --model NAME, and takes the place of CHECKPOINT")
        return {"endpoint": _endpoint(options.endpoint, options.model, options.api_key_variable)}
    if not options.checkpoint or options.model or options.api_key_variable:
        raise ValueError("say CHECKPOINT, or --endpoint URL --model NAME [--api-key-variable VARIABLE]")
    directory = Path(options.checkpoint)
    if not directory.is_dir():
        raise ValueError(f"CHECKPOINT: {directory} is no directory")
    return str(outputs(directory).get("model", directory))  # a run's directory stands for the model that it made


def _endpoint(url: str, model: str, variable: str) -> dict[str, Any]:
    return {"api": "openai", "base_url": url, "model": model, "api_key_variable": variable}


def _benchmark(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The configuration of one benchmark: where its data is, and what else the options say of it."""
    if name not in BENCHMARKS:
        raise ValueError(f"--benchmarks: {name!r} is none of {', '.join(BENCHMARKS)}")
    document: dict[str, Any] = {"name": name}
    problems: dict[str, Any] = document
    if name == "sums":
        problems = document["problems"] = {"name": "sums", "split": "test"}
    elif name == "gsm8k":
        problems = document["problems"] = {"name": "gsm8k", "path": _source(name, options.data)}
        problems["num_problems"] = 1_000_000
    else:
        document["reference" if name == "alpaca-eval-2" else "source"] = _source(name, options.data)
        for field, names in _FILES.get(name, {}).items():
            if options.data is not None and (path := _found(options.data, name, names)):
                document[field] = str(path)
    if options.limit is not None:
        limit = "num_questions" if name.startswith("mmlu") else _LIMITS.get(name, "num_problems")
        problems[limit] = options.limit
    if options.max_tokens is not None:
        document["max_tokens"] = options.max_tokens
    if name == "alpaca-eval-2":
        if not options.judge_model:
            raise ValueError("--judge-model: alpaca-eval-2 needs a judge")
        judge = _endpoint(options.judge_url, options.judge_model, options.judge_key_variable)
        document["judge"] = {"endpoint": judge}
    if name == "qa-feedback":
        oracle = {model: getattr(options, model) for model in ("relevance", "factuality", "completeness")}
        if missing := [model for model, directory in oracle.items() if not directory]:
            raise ValueError(f"--{missing[0]}: qa-feedback needs its three reward models")
        document["oracle"] = oracle
    return document


def _source(name: str, data: Path | None) -> str:
    """The file of a benchmark's data, or the public place that it comes from."""
    names, public = BENCHMARKS[name].file_names, BENCHMARKS[name].default_source
    if data is not None and (path := _found(data, name, names)):
        return str(path)
    if not public:
        known = f"{name} is read from {' or '.join(names)}"
        raise ValueError(
            f"--data: {known}; docs/evaluation.md says where to get it" + (f", {data} has none" if data else "")
        )
    return public


def _found(data: Path, benchmark: str, names: Iterable[str]) -> Path | None:
    """The first of the names in the directory, or in one right below it; the benchmark's own before others."""
    if not data.is_dir():
        raise ValueError(f"--data: {data} is no directory")
    below = sorted(path for path in data.iterdir() if path.is_dir())
    places = [data / benchmark, data, *below]
    return next((place / name for name in names for place in places if (place / name).is_file()), None)


def make_parser() -> argparse.ArgumentParser:
    """The parser."""
    parser = argparse.ArgumentParser(
        prog="lco evaluate",
        description="Evaluate a model on benchmarks, without the platform. Started again with the same options it "
        "resumes. `lco evaluate CONFIG RUN_DIR` takes a configuration file instead, which can say more.",
    )
    parser.add_argument("checkpoint", nargs="?", default="", metavar="CHECKPOINT", help="directory of the model")
    listing = f"of {', '.join(BENCHMARKS)}"
    parser.add_argument("--benchmarks", required=True, type=_list(str), metavar="NAME,...", help=listing)
    parser.add_argument(
        "--eval-seeds",
        type=_list(int),
        default=[0, 1, 2, 3],
        metavar="0,1,...",
        help="sampling passes (default 0,1,2,3)",
    )
    parser.add_argument(
        "--decodings", type=_list(str), default=["t0.6-p0.95"], metavar="greedy,...", help="default t0.6-p0.95"
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=1,
        metavar="N",
        help="completions of a problem in a sampling pass; pass@k and maj@k for powers of two up to it",
    )
    parser.add_argument(
        "--max-tokens", type=int, metavar="N", help="longest completion, instead of each benchmark's own"
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="only the first N problems of each benchmark: another data set, and not comparable",
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="directory of the benchmarks' files, each under its own name"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="RUN_DIR", help=f"default: {DIRECTORY}/NAME-HASH")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the model runs")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of matrix products")
    parser.add_argument("--batch-size", type=int, default=256, metavar="N", help="completions at a time (default 256)")
    parser.add_argument("--system-prompt", default="", metavar="TEXT", help="what the chat template says first")
    server = parser.add_argument_group("a model behind an OpenAI-compatible server, instead of CHECKPOINT")
    server.add_argument("--endpoint", default="", metavar="URL", help="address up to and with /v1")
    server.add_argument("--model", default="", metavar="NAME", help="name of the model there")
    server.add_argument("--api-key-variable", default="", metavar="VARIABLE", help="environment variable with the key")
    judge = parser.add_argument_group("alpaca-eval-2")
    judge.add_argument("--judge-model", default="", metavar="NAME", help="the judge; published: gpt-4-1106-preview")
    judge.add_argument("--judge-url", default="https://api.openai.com/v1", metavar="URL", help="default: OpenAI")
    judge.add_argument(
        "--judge-key-variable", default="OPENAI_API_KEY", metavar="VARIABLE", help="default: OPENAI_API_KEY"
    )
    oracle = parser.add_argument_group("qa-feedback")
    for model in ("relevance", "factuality", "completeness"):
        oracle.add_argument(f"--{model}", default="", metavar="DIR", help=f"directory of the {model} model")
    return parser


def _list(item: Callable[[str], ItemT]) -> Callable[[str], list[ItemT]]:
    """Parses `a,b,c`."""

    def parse(text: str) -> list[ItemT]:
        try:
            return [item(part.strip()) for part in text.split(",") if part.strip()]
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no list of {item.__name__}") from None

    return parse


if __name__ == "__main__":
    sys.exit(main())
