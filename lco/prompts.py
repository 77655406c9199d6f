"""Prompts: made from a seed or read from JSON Lines, each with a stable id. No torch."""

import gzip
import hashlib
import json
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

from lco.config import Gsm8k, Jsonl, Prompts, Sums

MAX_ROW_BYTES = 1 << 20
_SPLITS = ("train", "validation", "test")
_SPLIT_OF_BYTE = [_SPLITS[byte % 3] for byte in range(255)]  # 255 = 3 * 85: equal thirds; byte 255 is dealt again


@dataclass(frozen=True, slots=True)
class Prompt:
    """One problem."""

    id: str
    """Stable name of the problem; the same text has the same id in every run."""
    text: str
    """What the policy is given, before any chat template."""
    reference: str
    """The right final answer; empty where none is known."""
    demonstration: str = ""
    """A completion to imitate; empty where none is given."""


def load_prompts(config: Prompts, seed: int = 0) -> list[Prompt]:
    """The prompts that a configuration names, in their order.

    Args:
        seed: added to the seed of generated prompts; files are read as they are.

    Raises:
        ValueError: a file cannot be read, or a row lacks a field; the message names file and row.
    """
    match config:
        case Sums():
            return list(make_sums(config, seed))
        case Gsm8k():
            return _load_gsm8k(config)
        case Jsonl():
            return _load_jsonl(config)
        case _:
            assert_never(config)


def split_of(problem: str) -> str:
    """The split a problem belongs to by a hash of its text, so that no problem is in two splits."""
    for byte in hashlib.sha256(problem.encode()).digest():
        if byte < len(_SPLIT_OF_BYTE):
            return _SPLIT_OF_BYTE[byte]
    return _SPLITS[0]


def make_sums(config: Sums, seed: int = 0) -> Iterator[Prompt]:
    """Distinct problems of the split, with demonstrations whose steps are wrong at the configured rate.

    Raises:
        ValueError: the problem space is too small for so many distinct problems.
    """
    generator = random.Random(f"sums/{config.split}/{config.seed + seed}")
    seen: set[str] = set()
    misses = 0
    while len(seen) < config.num_problems:
        terms = [generator.randint(1, config.max_term) for _ in range(config.num_terms)]
        text = "+".join(map(str, terms)) + "="
        if text in seen or split_of(text) != config.split:
            misses += 1
            if misses > 100 * config.num_problems + 10_000:
                raise ValueError(
                    f"num_problems: the {config.split} split has fewer than {config.num_problems} problems"
                )
            continue
        seen.add(text)
        yield Prompt(
            id=f"sums/{text}",
            text=text,
            reference=str(sum(terms)),
            demonstration=_demonstration(terms, config.wrong_step_rate, generator),
        )


def _demonstration(terms: list[int], wrong_step_rate: float, generator: random.Random) -> str:
    """The chain of sums `17+58=75;75+24=99`, continued from wrong intermediate results where one is drawn."""
    steps = []
    total = terms[0]
    for term in terms[1:]:
        right = total + term
        shown = right
        if generator.random() < wrong_step_rate:
            shown = max(1, right + generator.choice((-20, -10, -9, -2, -1, 1, 2, 9, 10, 20)))
        steps.append(f"{total}+{term}={shown}")
        total = shown
    return ";".join(steps)


def read_jsonl(path: Path, *, max_row_bytes: int = MAX_ROW_BYTES) -> Iterator[tuple[int, dict[str, Any]]]:
    """Row numbers (from 1) and rows of a JSON Lines file, plain or gzip.

    Raises:
        ValueError: the file is missing, or a row is no JSON object or longer than `max_row_bytes`.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as stream:
            row_number = 0
            while line := stream.readline(max_row_bytes + 1):
                row_number += 1
                if len(line) > max_row_bytes:
                    raise ValueError(f"{path}: row {row_number} is longer than {max_row_bytes} bytes")
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"{path}: row {row_number} is no JSON ({error})") from error
                if not isinstance(row, dict):
                    raise ValueError(f"{path}: row {row_number} is no JSON object")
                yield row_number, row
    except (OSError, EOFError, zlib.error) as error:  # the last two: a gzip file that was cut or damaged
        raise ValueError(f"{path}: cannot be read ({error})") from error


def text_field(path: Path, row_number: int, row: dict[str, Any], field: str, default: str | None = None) -> str:
    """A row's text field, or the default where it is missing or null.

    Raises:
        ValueError: the field is no text, or missing without a default.
    """
    value = row.get(field)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise ValueError(f"{path}: row {row_number} has no text field {field!r}")
    return value


def _load_gsm8k(config: Gsm8k) -> list[Prompt]:
    prompts: list[Prompt] = []
    path = Path(config.path)
    for row_number, row in read_jsonl(path):
        if len(prompts) == config.num_problems:
            break
        question = text_field(path, row_number, row, "question")
        solution, separator, reference = text_field(path, row_number, row, "answer").rpartition("####")
        if not separator:
            raise ValueError(f"{path}: row {row_number}: the answer has no line `#### N`")
        reference = reference.strip().replace(",", "")
        prompts.append(
            Prompt(
                id=f"gsm8k/{hashlib.sha256(question.encode()).hexdigest()[:16]}",
                text=config.instruction.replace("{question}", question),
                reference=reference,
                demonstration=f"{_without_calculator(solution).strip()}\nThe final answer is \\boxed{{{reference}}}.",
            )
        )
    return prompts


def _without_calculator(solution: str) -> str:
    """The solution without its `<<3+4=7>>` calculator notes."""
    parts = solution.split("<<")
    return parts[0] + "".join(part.partition(">>")[2] for part in parts[1:])


def _load_jsonl(config: Jsonl) -> list[Prompt]:
    prompts: list[Prompt] = []
    path = Path(config.path)
    for row_number, row in read_jsonl(path):
        if len(prompts) == config.num_problems:
            break
        text = text_field(path, row_number, row, config.prompt_field)
        if not text:
            raise ValueError(f"{path}: row {row_number}: the prompt is empty")
        reference = row.get(config.reference_field)
        if reference is None:
            reference = ""
        prompts.append(
            Prompt(
                id=f"jsonl/{hashlib.sha256(text.encode()).hexdigest()[:16]}",
                text=text,
                reference=reference if isinstance(reference, str) else json.dumps(reference),
                demonstration=text_field(path, row_number, row, config.completion_field, default=""),
            )
        )
    return prompts
