"""AlpacaEval 2.0 (Dubois et al. 2024), https://github.com/tatsu-lab/alpaca_eval: a judge compares each completion with
the baseline's output to the same instruction; the win rate is controlled for the length of outputs.

    {"index": 0, "dataset": "helpful_base", "instruction": "What ...?", "output": "...", "generator": "gpt4"}

The model sees the instruction alone, in its chat template. Figures are percent, under alpaca_eval's names; the value of
a completion is its preference less one, a share of a win. `docs/evaluation.md` has the protocol and each departure.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from evaluation import annotations
from evaluation.benchmarks.base import Benchmark
from evaluation.calls import answered
from evaluation.data import locate, manifest_hash, read_rows
from evaluation.judge_config import AlpacaEval2Benchmark
from evaluation.records import content_key
from evaluation.scoring.alpaca_eval import score_annotations
from evaluation.statistics import clustered_standard_error
from evaluation.types import Completion, Example, Item, Score

if TYPE_CHECKING:
    from evaluation.graders import Graders
    from evaluation.judge import Comparison


class AlpacaEval2(Benchmark[AlpacaEval2Benchmark]):
    """AlpacaEval 2.0; the headline is the length-controlled win rate."""

    name = "alpaca-eval-2"
    version = 1
    metrics = (
        "length_controlled_winrate",
        "win_rate",
        "standard_error",
        "discrete_win_rate",
        "lc_fit_spread",
        "lc_bootstrap_low",
        "lc_bootstrap_high",
        "n_total",
        "n_missing",
        "unweighted",
        "truncated",
        "judge_tokens",
        "judge_price",
    )
    units = {
        "length_controlled_winrate": "percent",
        "win_rate": "percent",
        "standard_error": "percent",
        "discrete_win_rate": "percent",
        "lc_fit_spread": "percent",
        "lc_bootstrap_low": "percent",
        "lc_bootstrap_high": "percent",
        "n_total": "number",
        "n_missing": "number",
        "unweighted": "number",
        "judge_tokens": "number",
        "judge_price": "number",
    }
    recorded = {"win_rate": ""}
    floors = ("length_controlled_winrate", "discrete_win_rate")
    file_names = (
        "eval_805_gpt4_1106_preview.jsonl.gz",
        "alpaca_eval_gpt4_baseline.json",
        "gpt4_1106_preview/model_outputs.json",
    )

    def load(self) -> list[Example]:
        """The instructions with the baseline's outputs."""
        examples = []
        for number, row in enumerate(read_rows(locate(self.config.reference))):
            if number == self.config.num_examples:
                break
            index = row.fields.get("index", number)
            if not isinstance(index, int) or isinstance(index, bool):
                raise row.error("has an `index` that is no integer")
            extra: dict[str, Any] = {
                "index": index,
                "generator": row.text("generator", default="reference"),
                "dataset": row.text("dataset", default=""),
            }
            if self._difficulties is not None:
                if index not in self._difficulties:
                    raise ValueError(f"difficulty: has no index {index}, which row {row.number} of `reference` names")
                extra["difficulty"] = self._difficulties[index]
            examples.append(Example(str(index), row.text("instruction"), row.text("output"), extra=extra))
        annotations.instruction_indices({"instruction": e.prompt, "index": e.extra["index"]} for e in examples)
        return examples

    @cached_property
    def _difficulties(self) -> dict[int, float] | None:
        if self.config.difficulty is None:
            return None
        return annotations.difficulties(row.fields for row in read_rows(locate(self.config.difficulty)))

    @cached_property
    def _gamed_baseline(self) -> list[dict[str, Any]] | None:
        if self.config.gamed_baseline is None:
            return None
        return [row.fields for row in read_rows(locate(self.config.gamed_baseline))]

    def manifest(self) -> str:
        """Hash of instructions, reference outputs, difficulties and gamed rows."""
        gamed = None if self._gamed_baseline is None else manifest_hash(self._gamed_baseline)
        return content_key(examples=super().manifest(), gamed_baseline=gamed)

    def grader_versions(self) -> Mapping[str, str]:
        """The judge, and whether the gamed rows are those of the published numbers."""
        versions = {"judge": self.config.judge.annotator}
        if self.config.gamed_baseline is not None:
            path = locate(self.config.gamed_baseline)
            versions["gamed_baseline"] = "published" if annotations.is_published_gamed_baseline(path) else "other"
        return versions

    def prepare(self, graders: "Graders") -> None:
        """Opens the judge, reads every file, and compares the least that one pass costs with the spending cap."""
        if self._gamed_baseline is not None:
            from evaluation.length_control import GamedBaseline

            GamedBaseline.of_rows(self._gamed_baseline)
        graders.judge(self.config.judge).check_estimate(
            _comparison(example, example.reference + " ") for example in self.examples
        )

    def score(self, example: Example, completion: str, graders: "Graders") -> Score:
        """The judge's preference less one."""
        judgement = graders.judge(self.config.judge).compare(_comparison(example, completion))
        preference = judgement.preference
        return Score(
            None if preference is None else preference - 1,
            "error" if preference is None else "scored",
            reason=judgement.reason,
            values={"preference": preference},
            details={
                "is_model_first": judgement.is_model_first,
                "judge_text": judgement.text,
                "judge_top_logprobs": judgement.top_logprobs,
                "judge_tokens": judgement.num_tokens,
                "judge_price": judgement.price,
                "judge_seconds": judgement.seconds,
                **example.extra,
            },
        )

    def score_all(self, items: Iterable[Item], graders: "Graders") -> Iterator[tuple[int, Score]]:
        """Judges many at a time. What would fail every later call as well ends the run; see `evaluation.judge`."""
        waiting = list(items)
        judge = graders.judge(self.config.judge)
        judge.check_estimate(_comparison(item.example, item.completion) for item in waiting)
        num_threads = self.config.judge.endpoint.max_concurrency
        for item, score in answered(waiting, lambda item: self.score_item(item, graders), num_threads):
            yield item.position, score

    def by_example(self, completions: Sequence[Completion]) -> dict[str, dict[str, float]]:
        """Every instruction's win rate."""
        found: dict[str, list[float]] = {}
        for completion in completions:
            if completion.value is not None:
                found.setdefault(completion.example_id, []).append(completion.value)
        return {"win_rate": {example: 100 * sum(values) / len(values) for example, values in found.items()}}

    def aggregate(self, completions: Sequence[Completion]) -> dict[str, float | None]:
        """AlpacaEval's figures. With several samples of an instruction, each is a row."""
        summary = self._summary(completions)
        interval = summary["lc_bootstrap"] or {"low": None, "high": None}
        rates = self.by_example(completions)["win_rate"]
        return {
            "length_controlled_winrate": summary["length_controlled_winrate"],
            "win_rate": summary["win_rate"],
            "standard_error": clustered_standard_error(list(rates.values())),
            "discrete_win_rate": summary["discrete_win_rate"],
            "lc_fit_spread": summary["lc_fit_spread"],
            "lc_bootstrap_low": interval["low"],
            "lc_bootstrap_high": interval["high"],
            "n_total": float(summary["n_total"]),
            "n_missing": float(sum(completion.value is None for completion in completions)),
            "unweighted": float(self.config.judge.weighting != "logprobs"),
            "truncated": sum(completion.truncated for completion in completions) / len(completions),
            "judge_tokens": float(sum(completion.details.get("judge_tokens", 0) for completion in completions)),
            "judge_price": sum(completion.details.get("judge_price", 0.0) for completion in completions),
        }

    def standard_errors(self, completions: Sequence[Completion]) -> dict[str, float | None]:
        """Of the win rate over instructions, and of the length-controlled one over resampled instructions."""
        interval = self._summary(completions)["lc_bootstrap"]
        rates = self.by_example(completions)["win_rate"]
        return {
            "win_rate": clustered_standard_error(list(rates.values())),
            "length_controlled_winrate": None if interval is None else interval["standard_error"],
        }

    def _summary(self, completions: Sequence[Completion]) -> dict[str, Any]:
        """The figures of completions, whatever their order; those of the last ones asked for are remembered."""
        ordered = sorted(completions, key=lambda one: (one.details.get("index", -1), one.example_id, one.sample_index))
        rows = [_annotation(one, self.config.judge.annotator) for one in ordered]
        key = content_key(rows=[[row["instruction"], row["preference"], len(row["output_2"])] for row in rows])
        if self._last is None or self._last[0] != key:
            difficulty = [
                {"index": example.extra["index"], "instruction_difficulty": example.extra["difficulty"]}
                for example in self.examples
                if "difficulty" in example.extra
            ]
            _, summary = score_annotations(
                rows,
                instructions=[{"index": e.extra["index"], "instruction": e.prompt} for e in self.examples],
                difficulty=difficulty or None,
                gamed_baseline=self._gamed_baseline,
                num_resamples=self.config.num_resamples,
                seed=self.config.bootstrap_seed,
            )
            self._last = (key, summary)
        return self._last[1]

    _last: tuple[str, dict[str, Any]] | None = None

    def warnings(self, completions: Sequence[Completion]) -> list[str]:
        """Why there is no length-controlled win rate, or why it deserves a look."""
        summary = self._summary(completions)
        return [*summary["warnings"], *([summary["reason"]] if summary["reason"] else [])]

    def documents(self, completions: Sequence[Completion], policy: str) -> dict[str, list[dict[str, Any]]]:
        """`model_outputs.json` and `annotations.json`, as alpaca_eval reads them."""
        outputs = [
            annotations.output_row(one.prompt, one.completion, policy, sample_index=one.sample_index)
            for one in completions
        ]
        rows = [_annotation(one, self.config.judge.annotator) | {"generator_2": policy} for one in completions]
        return {"model_outputs.json": outputs, "annotations.json": rows}


def _comparison(example: Example, output: str) -> "Comparison":
    from evaluation.judge import Comparison

    return Comparison(instruction=example.prompt, reference=example.reference, output=output)


def _annotation(one: Completion, annotator: str) -> dict[str, Any]:
    return annotations.annotation_row(
        one.prompt,
        (one.reference, one.completion),
        (one.details.get("generator", "reference"), "policy"),
        annotator,
        None if one.value is None else one.value + 1,
        dataset=one.details.get("dataset", ""),
        judge_top_logprobs=one.details.get("judge_top_logprobs"),
        price_per_example=one.details.get("judge_price"),
        time_per_example=one.details.get("judge_seconds"),
    )
