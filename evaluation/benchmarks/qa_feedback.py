"""QA-Feedback (Wu et al. 2023, arXiv 2306.01693): long answers from passages. https://github.com/allenai/FineGrainedRLHF

A row's `text` is the prompt: `question: Q context: wikipage: T text: ... | wikipage: ...`. The authors decode greedily
200 tokens from a fine-tuned T5; a chat model may want an `instruction` of its own, which is part of the configuration.

Relevance is the share of sub-sentences, factuality that of sentences without an error, both over all units of the set;
completeness and the summed reward are means over responses. ROUGE-Lsum stands beside them.
"""

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.benchmarks.base import Benchmark
from evaluation.data import Row, locate, read_rows
from evaluation.qa_feedback_config import QaFeedbackBenchmark
from evaluation.statistics import clustered_standard_error, mean_of
from evaluation.types import Completion, Example, Item, Score, Verdict
from lco.manifest import file_sha256

if TYPE_CHECKING:
    from evaluation.graders import Graders
    from evaluation.oracle import QaOracle

_BATCH_ITEMS = 32
_RATIOS = {"relevance": ("n_relevant", "n_sub_sentences"), "factuality": ("n_factual", "n_sentences")}
_MEANS = {
    "completeness": "completeness_normalised",
    "reward": "reward_sum",
    "rouge-lsum": "rouge_lsum",
    "sub-sentences": "n_sub_sentences",
    "shortened": "is_shortened",
}
_PLACEHOLDER = re.compile(r"\{(text|question)\}")


class QaFeedback(Benchmark[QaFeedbackBenchmark]):
    """QA-Feedback; three ratios by the authors' reward models."""

    name = "qa-feedback"
    version = 1
    metrics = (
        "relevance",
        "factuality",
        "completeness",
        "reward",
        "rouge-lsum",
        "sub-sentences",
        "no-answer",
        "truncated",
        "shortened",
    )
    units = {"completeness": "number", "reward": "number", "sub-sentences": "number"}
    recorded = {"completeness": "completeness_normalised", "reward": "", "rouge-lsum": "rouge_lsum"}
    floors = ("relevance", "factuality")
    file_names = ("test.json", "test.jsonl", "test.jsonl.gz", "dev.json", "dev.jsonl", "dev.jsonl.gz")

    def load(self) -> list[Example]:
        """The first questions of the file."""
        examples: dict[str, Example] = {}
        for row in read_rows(locate(self.config.source)):
            if len(examples) == self.config.num_questions:
                break
            example = self._example(row)
            if example.id in examples:
                raise row.error("has the same text as an earlier row")
            examples[example.id] = example
        return list(examples.values())

    @cached_property
    def _files(self) -> dict[str, str]:
        """Hash of each reward model's weights, by the name of its reward."""
        oracle = self.config.oracle
        directories = {name: Path(getattr(oracle, name)) for name in ("relevance", "factuality", "completeness")}
        hashes = {}
        for name, directory in directories.items():
            digests = [file_sha256(path) for path in sorted(directory.glob("*.safetensors"))]
            hashes[name] = hashlib.sha256("".join(digests).encode()).hexdigest()
        return hashes

    def grader_versions(self) -> Mapping[str, str]:
        """The reward models by the hash of their weights, and what cuts sentences."""
        from evaluation.oracle import oracle_versions

        return {**self._files, **oracle_versions()}

    def prepare(self, graders: "Graders") -> None:
        """Loads the reward models.

        Raises:
            ValueError: a directory holds no such model, or its labels are others.
        """
        self._oracle(graders)

    def score(self, example: Example, completion: str, graders: "Graders") -> Score:
        """The rewards of one response."""
        return self._scores([(example, completion)], graders)[0]

    def score_all(self, items: Iterable[Item], graders: "Graders") -> Iterator[tuple[int, Score]]:
        """The rewards of many, a batch at a time."""
        remaining = iter(items)
        while batch := list(islice(remaining, _BATCH_ITEMS)):
            try:
                scores = self._scores([(item.example, item.completion) for item in batch], graders)
            except Exception as error:
                scores = [Score(None, "error", reason=f"{type(error).__name__}: {error}"[:500])] * len(batch)
            yield from ((item.position, score) for item, score in zip(batch, scores, strict=True))

    def by_example(self, completions: Sequence[Completion]) -> dict[str, dict[str, float]]:
        """Each example's mean over its samples; of a ratio, the ratio of the example's own units."""
        sums = self._sums(completions)
        found = {
            metric: {example: some[part] / some[whole] for example, some in sums.items() if some[whole]}
            for metric, (part, whole) in _RATIOS.items()
        }
        for metric, name in _MEANS.items():
            found[metric] = {example: some[name] / some["count"] for example, some in sums.items()}
        return {**found, **super().by_example(completions)}

    def aggregate(self, completions: Sequence[Completion]) -> dict[str, float | None]:
        """The ratios over all units of the set, the plain means of the others."""
        sums = self._sums(completions).values()
        found: dict[str, float | None] = {
            metric: mean_of(values.values()) for metric, values in self.by_example(completions).items()
        }
        for metric, (part, whole) in _RATIOS.items():
            total = math.fsum(some[whole] for some in sums)
            found[metric] = math.fsum(some[part] for some in sums) / total if total else None
        return {metric: found[metric] for metric in self.metrics}

    def standard_errors(self, completions: Sequence[Completion]) -> dict[str, float | None]:
        """Those of the means, and of the ratios by linearisation, the units of an example being one cluster."""
        errors = {
            metric: clustered_standard_error(list(values.values()))
            for metric, values in self.by_example(completions).items()
        }
        sums = self._sums(completions).values()
        for metric, ratio in self.aggregate(completions).items():
            if metric in _RATIOS and ratio is not None:
                part, whole = _RATIOS[metric]
                mean_units = math.fsum(some[whole] for some in sums) / len(sums)
                errors[metric] = clustered_standard_error(
                    [(some[part] - ratio * some[whole]) / mean_units for some in sums]
                )
        return errors

    def _sums(self, completions: Sequence[Completion]) -> dict[str, dict[str, float]]:
        """Of each example with a score the sums over its samples, and their count."""
        sums: dict[str, dict[str, float]] = {}
        for completion in completions:
            if completion.value is None:
                continue
            some = sums.setdefault(completion.example_id, defaultdict(float))
            some["count"] += 1
            for name, value in completion.values.items():
                some[name] += value or 0.0
        return sums

    def _oracle(self, graders: "Graders") -> "QaOracle":
        from evaluation.oracle import QaOracle

        return graders.opened(f"qa-feedback {self.config.oracle}", lambda: QaOracle(self.config.oracle))

    def _scores(self, responses: Sequence[tuple[Example, str]], graders: "Graders") -> list[Score]:
        oracle = self._oracle(graders)
        texts = [completion.strip() for _, completion in responses]
        extras = [example.extra for example, _ in responses]
        rewards = oracle.scores(
            [(extra["question"], extra["text"], text) for extra, text in zip(extras, texts, strict=True)]
        )
        overlaps = oracle.rouge_lsum(texts, [extra["references"] for extra in extras])
        scores = []
        for reward, overlap in zip(rewards, overlaps, strict=True):
            row = reward.row()
            values = {name: float(value) for name, value in row.items() if isinstance(value, int | float)}
            values |= {"rouge_lsum": overlap, "is_shortened": float(any("-cut" in note for note in reward.notes))}
            is_blank = "blank" in reward.notes
            details = {
                "sentence_ends": reward.sentence_ends,
                "subsentence_starts": reward.subsentence_starts,
                "notes": list(reward.notes),
            }
            reason = "the response is blank" if is_blank else None
            verdict: Verdict = "no_answer" if is_blank else "scored"
            scores.append(Score(reward.reward_sum, verdict, reason=reason, values=values, details=details))
        return scores

    def _example(self, row: Row) -> Example:
        text, question = row.text("text"), row.text("question")
        references = row.fields.get("answer")
        if isinstance(references, str):
            references = [references]
        if not isinstance(references, list) or not all(isinstance(reference, str) for reference in references):
            raise row.error("has no list of texts `answer`")
        fields = {"text": text, "question": question}
        prompt = _PLACEHOLDER.sub(lambda match: fields[match[1]], self.config.instruction)
        identifier = f"qa-feedback/{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:16]}"
        extra = {**fields, "references": references}
        return Example(identifier, prompt, references[0] if references else "", extra=extra)
