"""QA-Feedback's three rewards: against the published code's numbers, and what no text may break."""

import json
import os
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lco.config import QaFeedback, StageConfig
from lco.oracles.qa_feedback import QaFeedbackScorer, Response
from tests.lco.longformers import MAX_TOKENS, save_classifier, save_qa_feedback

CPU = StageConfig(device="cpu")
ROOT = Path(__file__).parents[2]
TINY_CASE = Path(os.environ.get("LCO_SHARED_DATA", ROOT.parent / "shared/data")) / "qa_feedback/tiny_case"

PASSAGES = "question: Who built it? context: wikipage: Tower text: The tower was built in 1999 by two men. "
ANSWER = "The tower, which is old and rather tall, was built by two men in 1999. Nobody knows their names; it is sad."


def close(row):
    """Equal where a value is a count, an offset or an id; within 1e-5 where it is a number of the models."""
    return {name: pytest.approx(value, abs=1e-5) if isinstance(value, float) else value for name, value in row.items()}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return save_qa_feedback(tmp_path_factory.mktemp("qa-feedback"))


@pytest.fixture(scope="module")
def scorer(config):
    return QaFeedbackScorer(config, CPU)


def response(text=ANSWER, prompt=PASSAGES, question="Who built it?"):
    return Response(question, prompt, text)


@pytest.fixture(scope="module")
def published():
    if not TINY_CASE.is_dir():
        pytest.skip(f"no shared data at {TINY_CASE} (see LCO_SHARED_DATA)")
    rows, expected = (
        [json.loads(line) for line in (TINY_CASE / name).read_text().splitlines()]
        for name in ("inputs.jsonl", "expected.jsonl")
    )
    models = {name: str(TINY_CASE / f"{short}_rm") for name, short in NAMES.items()}
    scorer = QaFeedbackScorer(QaFeedback(**models, batch_size=5), CPU)
    responses = [Response(row["question"], row["prompt"], row["response"]) for row in rows]
    return scorer, responses, expected


NAMES = {"relevance": "rel", "factuality": "fact", "completeness": "comp"}


def test_scores_equal_those_of_the_published_code(published):
    scorer, responses, expected = published
    for score, row in zip(scorer.scores(responses), expected, strict=True):
        assert {"id": row["id"], **score.row()} == close(row)
        assert score.notes == ()


def test_neither_batch_nor_order_changes_a_published_score(published):
    scorer, responses, _ = published
    together = scorer.scores(responses)
    order = random.Random(3).sample(range(len(responses)), len(responses))
    for index in order:
        (alone,) = scorer.scores([responses[index]])
        assert alone.row() == close(together[index].row())


def tokens_seen(scorer, which, *responses):
    """The inputs that one of the three models was given."""
    classifier = getattr(scorer, f"_{which}")
    seen = []
    forward = classifier.model.forward

    def record(input_ids, attention_mask, **others):
        for ids, mask in zip(input_ids, attention_mask, strict=True):
            seen.append(ids[mask.bool()].tolist())
        return forward(input_ids=input_ids, attention_mask=attention_mask, **others)

    classifier.model.forward = record
    try:
        scorer.scores(responses)
    finally:
        classifier.model.forward = forward
    return seen


@pytest.mark.parametrize(
    ("which", "text"),
    [
        ("relevance", f"question: Who  built it? answer: </s> {ANSWER[:71]} </s> {ANSWER[71:]}"),
        ("factuality", f"{PASSAGES} answer: </s> {ANSWER[:71]} </s> {ANSWER[71:]}"),
    ],
)
def test_a_classifier_of_units_reads_words_with_a_separator_before_each_unit(scorer, which, text):
    tokenizer = getattr(scorer, f"_{which}").tokenizer
    wanted = tokenizer(text.split(), is_split_into_words=True)["input_ids"]
    one = response(question="Who  built it?")
    (seen,) = tokens_seen(scorer, which, one)
    (score,) = scorer.scores([one])
    if score.n_sub_sentences == 2 or which == "factuality":
        assert seen == wanted


def test_the_completeness_model_reads_a_plain_text(scorer):
    tokenizer = scorer._completeness.tokenizer
    answer = "Two  men\n\nbuilt it."
    (seen,) = tokens_seen(scorer, "completeness", response(answer))
    assert seen == tokenizer(f"{' '.join(PASSAGES.split())} answer: {answer}")["input_ids"]


def test_equal_logits_are_an_error(config):
    scorer = QaFeedbackScorer(config, CPU)
    for classifier in (scorer._relevance, scorer._factuality):
        torch.nn.init.zeros_(classifier.model.classifier.weight)
        torch.nn.init.zeros_(classifier.model.classifier.bias)
    (score,) = scorer.scores([response()])
    assert (score.n_relevant, score.n_factual) == (0, 0) and score.n_sentences == 2


def test_the_units_judged_are_those_at_the_separators(config):
    scorer = QaFeedbackScorer(config, CPU)

    def forward(input_ids, attention_mask):
        is_separator = (input_ids == 2) & (input_ids.roll(-1, 1) > 2)  # the tokenizer's own end has only padding after
        return SimpleNamespace(logits=torch.stack((~is_separator, ~is_separator, is_separator), -1).float())

    scorer._relevance.model.forward = scorer._factuality.model.forward = forward
    (score,) = scorer.scores([response()])
    assert (score.n_relevant, score.n_factual) == (score.n_sub_sentences, score.n_sentences)
    assert score.n_sub_sentences > score.n_sentences == 2


@pytest.mark.parametrize("text", ["", "  \n", "</s>"])
def test_a_blank_response_has_no_unit_and_no_reward(scorer, text):
    (score,) = scorer.scores([response(text)])
    assert (score.n_sentences, score.n_sub_sentences, score.n_relevant, score.n_factual) == (0, 0, 0, 0)
    assert (score.reward_sum, score.relevance_ratio, score.completeness_normalised) == (0.0, 0.0, 0.0)
    assert "blank" in score.notes


def test_a_spelled_separator_is_no_unit_and_is_noted(scorer):
    (clean,) = scorer.scores([response(ANSWER.replace("1999", "19    99"))])
    (spelled,) = scorer.scores([response(ANSWER.replace("1999", "19</s>99"))])
    assert spelled.row() == clean.row()
    assert (spelled.notes, clean.notes) == (("separator-in-text",), ())


def test_passages_are_cut_before_the_response(scorer):
    long = PASSAGES + "The tower was built. " * 100
    seen = {which: tokens_seen(scorer, which, response(prompt=long))[0] for which in ("factuality", "completeness")}
    assert all(MAX_TOKENS - 30 < len(tokens) <= MAX_TOKENS for tokens in seen.values())
    for which, tokens in seen.items():
        text = getattr(scorer, f"_{which}").tokenizer.decode(tokens)
        assert text.split("<s>")[1].strip().startswith("question: Who built it?") and "it is sad." in text
    (score,) = scorer.scores([response(prompt=long)])
    assert score.notes == ("passages-cut",) and score.n_sentences == 2


def test_units_that_no_model_saw_are_errors_and_noted(scorer):
    (score,) = scorer.scores([response("The tower was built by two men. " * 200)])
    assert score.notes == ("passages-cut", "response-cut")
    assert score.n_sentences == 200 and score.n_factual < 60 and score.n_relevant < 60


@pytest.mark.parametrize("text", ["\ud800x", "\x00", "<pad><mask><s>", "日本、" * 500, "a" * 300_000, "{output_2}"])
def test_no_text_raises(scorer, text):
    (score,) = scorer.scores([Response(text, text, text)])
    assert score.subsentence_starts[-1] == len(text)


def test_nothing_to_score_is_nothing(scorer):
    assert scorer.scores([]) == []


@pytest.mark.parametrize(
    ("field", "labels", "complaint"),
    [
        ("relevance", ("NF-ERR", "Ignore", "O"), "0 NF-ERR, 1 Ignore, 2 O; this reward needs 0 Ignore, 1 NF-ERR, 2 O"),
        ("relevance", ("F-ERR", "Ignore", "O"), "this reward needs 0 Ignore, 1 NF-ERR, 2 O"),
        ("factuality", ("F-ERR", "O"), "this reward needs 0 F-ERR, 1 Ignore, 2 O"),
        ("completeness", ("a", "b"), "one logit"),
    ],
)
def test_another_label_map_is_refused(config, tmp_path, field, labels, complaint):
    changed = config.model_copy(update={field: str(save_classifier(tmp_path / "model", labels, 0))})
    with pytest.raises(ValueError, match=complaint):
        QaFeedbackScorer(changed, CPU)


def test_a_directory_with_a_pickle_is_refused(config, tmp_path):
    directory = save_classifier(tmp_path / "model", ("x",), 0)
    (directory / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="safetensors and JSON only"):
        QaFeedbackScorer(config.model_copy(update={"completeness": str(directory)}), CPU)


def test_weights_without_a_head_are_refused(config, tmp_path):
    directory = save_classifier(tmp_path / "model", ("x",), 0)
    from safetensors.torch import load_file, save_file

    weights = {k: v for k, v in load_file(directory / "model.safetensors").items() if not k.startswith("classifier")}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="the weights lack classifier"):
        QaFeedbackScorer(config.model_copy(update={"completeness": str(directory)}), CPU)


def test_a_missing_directory_is_named(config, tmp_path):
    with pytest.raises(ValueError, match="nowhere: no model here"):
        QaFeedbackScorer(config.model_copy(update={"relevance": str(tmp_path / "nowhere")}), CPU)
