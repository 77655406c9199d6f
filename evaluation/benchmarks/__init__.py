"""The benchmarks: one file each, one line here. They see text, never tensors."""

from typing import Any

from evaluation.benchmarks.aime_24 import Aime24
from evaluation.benchmarks.alpaca_eval_2 import AlpacaEval2
from evaluation.benchmarks.amc_23 import Amc23
from evaluation.benchmarks.base import Benchmark
from evaluation.benchmarks.gsm8k import Gsm8k
from evaluation.benchmarks.math_500 import Math500
from evaluation.benchmarks.minerva_math import MinervaMath
from evaluation.benchmarks.mmlu import Mmlu
from evaluation.benchmarks.mmlu_redux import MmluRedux
from evaluation.benchmarks.qa_feedback import QaFeedback
from evaluation.benchmarks.sums import Sums

BENCHMARKS: dict[str, type[Benchmark[Any]]] = {
    benchmark.name: benchmark
    for benchmark in (
        Sums,
        Gsm8k,
        Math500,
        Amc23,
        MinervaMath,
        Aime24,
        AlpacaEval2,
        Mmlu,
        MmluRedux,
        QaFeedback,
    )
}

__all__ = ["BENCHMARKS", "Benchmark"]
