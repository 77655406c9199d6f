"""The benchmarks: one file each, one line here. They see text, never tensors."""

from typing import Any

from evaluation.benchmarks.base import Benchmark
from evaluation.benchmarks.gsm8k import Gsm8k
from evaluation.benchmarks.mmlu import Mmlu
from evaluation.benchmarks.mmlu_redux import MmluRedux
from evaluation.benchmarks.qa_feedback import QaFeedback
from evaluation.benchmarks.sums import Sums

BENCHMARKS: dict[str, type[Benchmark[Any]]] = {
    benchmark.name: benchmark for benchmark in (Sums, Gsm8k, Mmlu, MmluRedux, QaFeedback)
}

__all__ = ["BENCHMARKS", "Benchmark"]
