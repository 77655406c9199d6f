"""alpaca_eval's files: `model_outputs.json`, `annotations.json`, the canonical instructions, their difficulties.

Rows go in and out as plain JSON, so that outputs judged here can be analysed there and the other way round. No torch.
"""

import gzip
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.preferences import TIE, is_switched, preference_of
from evaluation.replies import top_logprobs

NUM_INSTRUCTIONS = 805
"""Instructions of AlpacaEval."""
GAMED_BASELINE_SHA256 = "97aeec3f1c7de6dee6fd31fe66f1702623f4614c3efe1c6fc5f4927cd5fd674d"
"""Of the published `df_gamed.csv`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """One comparison: a row of `annotations.json`."""

    number: int
    """From 0, in the order of the file."""
    instruction: str | None
    preference: float | None
    """In [1, 2]; 2 where `output_2`, the model's, wins. None where the judge gave none."""
    from_logprobs: float | None
    """The preference that the stored log-probabilities of the judge's token give; None where there are none."""
    delta_length: int | None
    """Characters of `output_1` less those of `output_2`; None where a text is missing."""


def annotation_of(number: int, row: Mapping[str, Any]) -> Annotation:
    """A row as an annotation.

    Raises:
        ValueError: a field is of another type, or the preference lies outside [1, 2] and is not 0, which old files
            write for a tie.
    """
    texts = {}
    for field in ("instruction", "output_1", "output_2"):
        value = row.get(field)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"row {number + 1}: {field} is no text")
        texts[field] = value
    first, second = texts["output_1"], texts["output_2"]
    instruction = texts["instruction"]
    from_logprobs = _from_logprobs(number, row, instruction)
    return Annotation(
        number=number,
        instruction=instruction,
        preference=_preference(number, row["preference"]) if "preference" in row else from_logprobs,
        from_logprobs=from_logprobs,
        delta_length=None if first is None or second is None else len(first) - len(second),
    )


def _preference(number: int, value: Any) -> float | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not (1 <= value <= 2 or value == 0):
        raise ValueError(f"row {number + 1}: preference is no number in [1, 2]")
    return float(value) or TIE


def _from_logprobs(number: int, row: Mapping[str, Any], instruction: str | None) -> float | None:
    """What `judge_top_logprobs` says, or the judge's reply that alpaca_eval keeps in `raw_completion`."""
    stored, reply = row.get("judge_top_logprobs"), row.get("raw_completion")
    if instruction is None or (stored is None and not isinstance(reply, Mapping)):
        return None
    try:
        found = top_logprobs({"top_logprobs": [stored]} if reply is None or stored is not None else reply["logprobs"])
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError):
        if stored is None:
            return None  # a refused comparison has a reply of some other form
        raise ValueError(f"row {number + 1}: judge_top_logprobs is no object of log-probabilities") from None
    return None if found is None else preference_of(found, is_switched(instruction))


def instruction_indices(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Index of each canonical instruction: its `index` field, else its place in the file from 0.

    Raises:
        ValueError: a row has no instruction, or an instruction or an index stands twice.
    """
    found: dict[str, int] = {}
    for number, row in enumerate(rows):
        instruction, index = row.get("instruction"), _integer(row.get("index", number))
        if not isinstance(instruction, str) or index is None:
            raise ValueError(
                f"instructions: row {number + 1} has no text `instruction`, or an `index` that is no integer"
            )
        if instruction in found:
            raise ValueError(f"instructions: row {number + 1} repeats an instruction")
        found[instruction] = index
    if len(set(found.values())) != len(found):
        raise ValueError("instructions: an index stands twice")
    return found


def difficulties(rows: Iterable[Mapping[str, Any]]) -> dict[int, float]:
    """Difficulty of each instruction by its index, of rows `{index, instruction_difficulty}`.

    Raises:
        ValueError: a row has another form, or an index stands twice.
    """
    found: dict[int, float] = {}
    for number, row in enumerate(rows):
        index = _integer(row.get("index", row.get("")))
        try:
            value = float(row["instruction_difficulty"])
        except (KeyError, TypeError, ValueError):
            value = math.nan
        if index is None or not math.isfinite(value) or index in found:
            raise ValueError(
                f"difficulty: row {number + 1} is no {{index, instruction_difficulty}}, or repeats an index"
            )
        found[index] = value
    return found


def _integer(value: Any) -> int | None:
    try:
        number = float(value)
        return int(number) if number == int(number) and not isinstance(value, bool) else None
    except (TypeError, ValueError, OverflowError):
        return None


def is_published_gamed_baseline(path: Path) -> bool:
    """Whether a file, packed with gzip or not, is the `df_gamed.csv` that the published numbers were made with."""
    content = path.read_bytes()
    content = gzip.decompress(content) if path.name.lower().endswith(".gz") else content
    return hashlib.sha256(content).hexdigest() == GAMED_BASELINE_SHA256


def outputs_by_instruction(name: str, rows: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Rows of a `model_outputs.json` by their instruction.

    Raises:
        ValueError: a row has no text `instruction` or `output`, or an instruction stands twice.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for number, row in enumerate(rows):
        instruction = row.get("instruction")
        if not isinstance(instruction, str) or not isinstance(row.get("output"), str):
            raise ValueError(f"{name}: row {number + 1} has no text `instruction` and `output`")
        if instruction in found:
            raise ValueError(f"{name}: row {number + 1} repeats an instruction")
        found[instruction] = row
    return found


def output_row(instruction: str, output: str, generator: str, **more: Any) -> dict[str, Any]:
    """A row of `model_outputs.json`."""
    return {"instruction": instruction, "output": output, "generator": generator, **more}


def annotation_row(
    instruction: str,
    outputs: tuple[str, str],
    generators: tuple[str, str],
    annotator: str,
    preference: float | None,
    **more: Any,
) -> dict[str, Any]:
    """A row of `annotations.json`. Args: outputs, generators: the reference's, the model's."""
    return {
        "instruction": instruction,
        "output_1": outputs[0],
        "generator_1": generators[0],
        "output_2": outputs[1],
        "generator_2": generators[1],
        "annotator": annotator,
        "preference": preference,
        **more,
    }


def only_model(rows: Sequence[Mapping[str, Any]], field: str) -> str | None:
    """The one name in a column such as `generator_2`; None where no row has it.

    Raises:
        ValueError: there are several: a win rate over two models is neither's.
    """
    names = {str(row[field]) for row in rows if row.get(field) is not None}
    if len(names) > 1:
        raise ValueError(f"{field}: the rows name several models, {', '.join(sorted(names)[:3])}; score each by itself")
    return next(iter(names), None)
