"""MMLU-Redux 2.0 (Gema et al. 2024, arXiv 2406.04127): 100 questions of each MMLU subject, read again by experts.

`error_type` says what they found. The headline is the accuracy on the questions without an error, as the peers report
it; the key is MMLU's own, also where it is wrong. https://huggingface.co/datasets/edinburgh-dawg/mmlu-redux-2.0
"""

from collections.abc import Sequence
from typing import Any

from evaluation.benchmarks.mmlu import MultipleChoice
from evaluation.data import Row
from evaluation.mmlu_config import MmluReduxBenchmark
from evaluation.multiple_choice import Accuracy, accuracy
from evaluation.scoring.mmlu import OK
from evaluation.types import Completion


class MmluRedux(MultipleChoice[MmluReduxBenchmark]):
    """MMLU-Redux: 5,700 questions, 5,330 of them without an error."""

    name = "mmlu-redux"
    version = 1
    metrics = ("ok-accuracy", "ok-macro-accuracy", *MultipleChoice.metrics)
    floors = ("ok-accuracy", "ok-macro-accuracy", *MultipleChoice.floors)
    file_names = ("mmlu_redux2_5700.jsonl", "mmlu_redux2_5700.jsonl.gz", "mmlu_redux.jsonl")

    def _extra(self, row: Row) -> dict[str, Any]:
        return {"error_type": row.text("error_type")}

    def _parts(self, completions: Sequence[Completion]) -> dict[str, Accuracy]:
        ok = {example.id for example in self.examples if example.extra["error_type"] == OK}
        questions = [question for example, question in self._questions(completions).items() if example in ok]
        return {"ok-": accuracy(questions), **super()._parts(completions)}
