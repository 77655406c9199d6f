r"""MMLU (Hendrycks et al. 2021, arXiv 2009.03300): four choices, 57 subjects. https://huggingface.co/datasets/cais/mmlu

The prompt is lm-eval's, which is the original one with a single blank before the subject:

    The following are multiple choice questions (with answers) about abstract algebra.

    Find all c in Z_3 such that Z_3[x]/(x^2 + c) is a field.
    A. 0
    B. 1
    C. 2
    D. 3
    Answer: B

    ...
    Answer:

In the likelihood form the continuations ` A` to ` D` are compared.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from evaluation.benchmarks.base import Benchmark
from evaluation.data import Row, locate, read_rows
from evaluation.mmlu_config import GenerativeForm, MmluBenchmark, MmluReduxBenchmark
from evaluation.multiple_choice import LETTERS, Accuracy, Answered, accuracy, declared_letter
from evaluation.scoring.mmlu import choice_letter
from evaluation.statistics import mean_of
from evaluation.types import Completion, Example, Item, Score

if TYPE_CHECKING:
    from evaluation.graders import Graders

HEADER = "The following are multiple choice questions (with answers) about {subject}.\n\n"

ConfigT = TypeVar("ConfigT", MmluBenchmark, MmluReduxBenchmark)


class MultipleChoice(Benchmark[ConfigT]):
    """Questions with the choices A to D in either form; accuracy over questions and over subjects."""

    metrics: ClassVar[tuple[str, ...]] = (
        "accuracy",
        "macro-accuracy",
        "answered-accuracy",
        "answered-macro-accuracy",
        "no-answer",
        "truncated",
        "ties",
    )

    recorded: ClassVar[Mapping[str, str]] = {"accuracy": ""}
    floors: ClassVar[tuple[str, ...]] = ("macro-accuracy", "answered-accuracy", "answered-macro-accuracy")

    @property
    def form(self) -> Literal["generate", "likelihood"]:
        """As configured."""
        return self.config.form.name

    def load(self) -> list[Example]:
        """The questions of the chosen subjects, in the order of the data."""
        shots = self._shots() if self.config.num_shots else {}
        counts: dict[str, int] = defaultdict(int)
        examples: list[Example] = []
        for row in self._rows(self.config.source):
            subject = row.text("subject")
            number = row.fields.get("index", counts[subject])
            counts[subject] += 1
            if len(examples) < self.config.num_questions:
                examples.append(self._example(row, subject, f"{subject}/{number}", shots))
        if missing := set(self.config.subjects) - counts.keys():
            raise ValueError(f"subjects: the data has no {', '.join(sorted(missing))}")
        if len({example.id for example in examples}) != len(examples):
            raise ValueError(f"{self.config.source}: two rows have the same subject and index")
        return examples

    def score(self, example: Example, completion: str, graders: "Graders") -> Score:
        """1 where the declared letter, or the chosen continuation, is the key."""
        letter = completion.strip() if self.form == "likelihood" else declared_letter(completion)
        if letter is None:
            return Score(0.0, "no_answer", reason="no letter is declared")
        is_correct = letter == example.reference
        return Score(float(is_correct), "correct" if is_correct else "wrong", letter)

    def score_item(self, item: Item, graders: "Graders") -> Score:
        """As `score`; a tie between choices is kept in the record: the first of them was taken."""
        score = self.score(item.example, item.completion, graders)
        if item.choice_logprobs is None:
            return score
        best = max(item.choice_logprobs)
        tied = [letter for letter, logprob in zip(LETTERS, item.choice_logprobs, strict=True) if logprob == best]
        details = {"tied": tied} if len(tied) > 1 else {}
        return Score(score.value, score.verdict, score.extracted, values={"tie": float(len(tied) > 1)}, details=details)

    def by_example(self, completions: Sequence[Completion]) -> dict[str, dict[str, float]]:
        """Each question's share of right, unanswered, truncated and tied samples."""
        found = super().by_example(completions)
        questions = self._questions(completions)
        found = {"accuracy": {example: question.value for example, question in questions.items()}, **found}
        ties: dict[str, list[float]] = defaultdict(list)
        for completion in completions:
            ties[completion.example_id].append(completion.values.get("tie") or 0.0)
        return {**found, "ties": {example: sum(some) / len(some) for example, some in ties.items()}}

    def aggregate(self, completions: Sequence[Completion]) -> dict[str, float | None]:
        """Accuracy of all questions and of the answered ones, over questions and over subjects, and of each subject."""
        parts = self._parts(completions)
        found: dict[str, float | None] = {}
        for name, part in parts.items():
            found |= {f"{name}accuracy": part.micro, f"{name}macro-accuracy": part.macro}
        shares = self.by_example(completions)
        found |= {name: mean_of(shares[name].values()) for name in ("no-answer", "truncated", "ties")}
        return {metric: found[metric] for metric in self.metrics} | {
            f"accuracy/{name}": subject.value for name, subject in parts[""].subjects.items()
        }

    def standard_errors(self, completions: Sequence[Completion]) -> dict[str, float | None]:
        """Binomial for each subject; pooled by size over questions, and with equal weights over subjects."""
        parts = self._parts(completions)
        found: dict[str, float | None] = {}
        for name, part in parts.items():
            found |= {f"{name}accuracy": part.micro_stderr, f"{name}macro-accuracy": part.macro_stderr}
        return found | {f"accuracy/{name}": subject.stderr for name, subject in parts[""].subjects.items()}

    def _parts(self, completions: Sequence[Completion]) -> dict[str, Accuracy]:
        """Accuracies by what stands before their names: all questions, the answered ones."""
        questions = self._questions(completions).values()
        return {"": accuracy(questions), "answered-": accuracy(questions, is_answered_only=True)}

    def _questions(self, completions: Sequence[Completion]) -> dict[str, Answered]:
        """What became of each question of which a sample has a score, by example id, in the order of the data."""
        some: dict[str, list[Completion]] = defaultdict(list)
        for completion in completions:
            if completion.value is not None:
                some[completion.example_id].append(completion)
        questions = {}
        for example in self.examples:
            if each := some.get(example.id):
                questions[example.id] = Answered(
                    example.extra["subject"],
                    sum(completion.value or 0.0 for completion in each) / len(each),
                    sum(completion.verdict != "no_answer" for completion in each) / len(each),
                )
        return questions

    def _rows(self, source: str) -> Iterator[Row]:
        subjects = set(self.config.subjects)
        for row in read_rows(locate(source)):
            if not subjects or row.text("subject") in subjects:
                yield row

    def _shots(self) -> dict[str, str]:
        """The answered questions of each subject, one after the other."""
        shots: dict[str, list[str]] = defaultdict(list)
        for row in self._rows(self.config.dev):
            some = shots[row.text("subject")]
            if len(some) < self.config.num_shots:
                some.append(f"{_question(row)}\nAnswer: {_key(row)}\n\n")
        if short := sorted(subject for subject, some in shots.items() if len(some) < self.config.num_shots):
            raise ValueError(f"{self.config.dev}: {short[0]} has fewer than {self.config.num_shots} rows")
        return {subject: "".join(some) for subject, some in shots.items()}

    def _example(self, row: Row, subject: str, identifier: str, shots: dict[str, str]) -> Example:
        if self.config.num_shots and subject not in shots:
            raise ValueError(f"{self.config.dev}: has no rows of {subject}")
        title = subject.replace("_", " ")
        body = shots.get(subject, "") + _question(row)
        extra = {"subject": subject, **self._extra(row)}
        identifier = f"{self.name}/{identifier}"
        if isinstance(self.config.form, GenerativeForm):
            instruction = self.config.form.instruction.replace("{subject}", title)
            return Example(identifier, f"{instruction}\n\n{body}", _key(row), extra=extra)
        prompt = f"{HEADER.replace('{subject}', title)}{body}\nAnswer:"
        choices = tuple(f" {letter}" for letter in LETTERS)
        return Example(identifier, prompt, _key(row), choices=choices, is_raw=True, extra=extra)

    def _extra(self, row: Row) -> dict[str, Any]:
        """What else of a row is kept with its example."""
        return {}


class Mmlu(MultipleChoice[MmluBenchmark]):
    """MMLU: 14,042 questions."""

    name = "mmlu"
    version = 1
    default_source: ClassVar[str] = str(MmluBenchmark.model_fields["source"].default)
    file_names = ("mmlu_test.jsonl", "mmlu_test.jsonl.gz", "test-00000-of-00001.parquet")


def _question(row: Row) -> str:
    """The question and its choices, a line each."""
    choices = row.fields.get("choices")
    if not isinstance(choices, list) or len(choices) != len(LETTERS) or not all(isinstance(c, str) for c in choices):
        raise row.error("has no list `choices` of four texts")
    lines = (f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=True))
    return "\n".join((row.text("question").strip(), *lines))


def _key(row: Row) -> str:
    letter = choice_letter(row.fields.get("answer"))
    if letter is None:
        raise row.error("has no `answer`: a letter, or the number of a choice from 0")
    return letter
