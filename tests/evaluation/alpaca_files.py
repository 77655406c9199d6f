"""AlpacaEval's files: the real ones where they are at hand, and made ones that follow the same model."""

import csv
import gzip
import json
import math
import os
import random
from dataclasses import dataclass
from pathlib import Path

SHARED = Path(os.environ.get("LCO_SHARED_DATA", Path(__file__).parents[2].parent / "shared/data")) / "alpaca_eval"


@dataclass
class Files:
    """What the length-controlled win rate needs, as rows."""

    instructions: list
    difficulty: list
    gamed_baseline: list

    def keywords(self):
        return dict(vars(self))


def published_files():
    """The canonical instructions, their difficulties and the gamed rows."""
    with gzip.open(SHARED / "eval_805_gpt4_1106_preview.jsonl.gz", "rt") as stream:
        instructions = [json.loads(line) for line in stream]
    with (SHARED / "instruction_difficulty.csv").open() as stream:
        difficulty = list(csv.DictReader(stream))
    with gzip.open(SHARED / "df_gamed_reconstructed.csv.gz", "rt") as stream:
        gamed = list(csv.DictReader(stream))
    return Files(instructions, difficulty, gamed)


def published_example(name):
    """The annotations of a model, and its published figures."""
    with gzip.open(SHARED / "examples" / name / "annotations.jsonl.gz", "rt") as stream:
        rows = [json.loads(line) for line in stream]
    return rows, json.loads((SHARED / "examples" / name / "published.json").read_text())


def made_files(count=240, seed=1):
    """Instructions with difficulties, and a gamed baseline that wins by length alone."""
    draw = random.Random(seed)
    gammas = [draw.gauss(0, 1) for _ in range(count)]
    gamed = [
        {
            "index": str(index),
            "preference": str(_logistic(-1.5 * math.tanh(delta) + 0.8 * gammas[index])),
            "std_delta_len": str(delta),
            "instruction_difficulty": str(gammas[index]),
            "not_gamed_baseline": "False",
            "model": "baseline",
        }
        for sign in (1, -1)
        for index in range(count)
        for delta in [sign * abs(draw.gauss(1.5, 0.5))]
    ]
    return Files(
        instructions=[{"index": index, "instruction": f"do {index}"} for index in range(count)],
        difficulty=[{"index": index, "instruction_difficulty": gammas[index]} for index in range(count)],
        gamed_baseline=gamed,
    )


def made_annotations(files, theta=-0.5, phi=-1.5, length=120, seed=2):
    """Annotations of a model that is `length` characters longer on average than the reference."""
    draw = random.Random(seed)
    deltas = [round(draw.gauss(-length, 150)) for _ in files.instructions]
    mean = sum(deltas) / len(deltas)
    spread = math.sqrt(sum((delta - mean) ** 2 for delta in deltas) / (len(deltas) - 1))
    rows = []
    for row, delta, entry in zip(files.instructions, deltas, files.difficulty, strict=True):
        chance = _logistic(phi * math.tanh(delta / spread) + 0.8 * entry["instruction_difficulty"] + theta)
        rows.append(
            {
                "instruction": row["instruction"],
                "output_1": "r" * (1000 + delta),
                "generator_1": "baseline",
                "output_2": "m" * 1000,
                "generator_2": "model",
                "annotator": "a",
                "preference": 1 + chance,
            }
        )
    return rows


def _logistic(value):
    return 1 / (1 + math.exp(-value))
