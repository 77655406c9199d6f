"""ROUGE-Lsum and Porter stems: numbers frozen from rouge-score 0.1.2 with NLTK 3.10.4."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.porter import stem
from evaluation.rouge import common_indices, rouge_lsum, tokenize

STEMS = """
caresses caress
ponies poni
ties tie
dies die
cats cat
caress caress
feed feed
agreed agre
plastered plaster
bled bled
motoring motor
sing sing
conflated conflat
troubled troubl
sized size
hopping hop
tanned tan
falling fall
hissing hiss
fizzed fizz
failing fail
filing file
happy happi
enjoy enjoy
sky sky
skies sky
spy spi
relational relat
conditional condit
rational ration
valenci valenc
hesitanci hesit
digitizer digit
conformabli conform
radicalli radic
differentli differ
vileli vile
analogousli analog
vietnamization vietnam
predication predic
operator oper
feudalism feudal
decisiveness decis
hopefulness hope
callousness callous
formaliti formal
sensitiviti sensit
sensibiliti sensibl
triplicate triplic
formative form
formalize formal
electriciti electr
electrical electr
hopeful hope
goodness good
revival reviv
allowance allow
inference infer
airliner airlin
gyroscopic gyroscop
adjustable adjust
defensible defens
irritant irrit
replacement replac
adjustment adjust
dependent depend
adoption adopt
homologou homolog
communism commun
activate activ
angulariti angular
homologous homolog
effective effect
bowdlerize bowdler
probate probat
rate rate
cease ceas
controll control
roll roll
dying die
innings inning
news news
theology theolog
psychologi psycholog
usefulli use
yyyyy yyyyy
sayings say
being be
2019s 2019
aed a
"""

VALUES = [
    ("The cats were running.\nA dog sat.", ["A dog sits.\nThe cat runs quickly"], 0.7142857142857143),
    ("w1 w2 w3 w4 w5", ["w1 w2 w6 w7 w8", "w1 w3 w8 w9 w5"], 0.6),
    ("w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", ["w1 w2 w3 w4 w5"], 0.5333333333333333),
    ("a a a b", ["a b\na c", "b a a"], 0.75),
    (
        "The new album was released on April 21, 2017.\nIt sold 1,000 copies.",
        ["Albums: released 21 April 2017; 1000 copies sold.", "It was a new release."],
        0.45454545454545453,
    ),
    ("x y z x y", ["y x z y\nx x"], 0.7272727272727272),
]


@pytest.mark.parametrize(("word", "stemmed"), [line.split() for line in STEMS.strip().splitlines()])
def test_stems_are_those_of_nltk(word, stemmed):
    assert stem(word) == stemmed


@pytest.mark.parametrize(("candidate", "references", "value"), VALUES)
def test_values_are_those_of_the_package(candidate, references, value):
    found = rouge_lsum(candidate.split("\n"), [reference.split("\n") for reference in references])
    assert found == pytest.approx(value, abs=1e-12)


def test_a_line_break_ends_a_sentence():
    assert rouge_lsum(["a b\nc d"], [["c d", "a b"]]) == rouge_lsum(["a b", "c d"], [["c d", "a b"]]) == 1.0


def test_the_nearest_reference_counts():
    assert rouge_lsum(["the cat sat"], [["a dog"], ["the cat sat"], []]) == 1.0


@pytest.mark.parametrize(("candidate", "references"), [([], [["a"]]), (["a"], []), (["!?"], [["a"]]), (["a"], [["—"]])])
def test_nothing_in_common_is_zero(candidate, references):
    assert rouge_lsum(candidate, references) == 0.0


def test_words_are_ascii_letters_and_digits_in_lower_case():
    assert tokenize("Dogs' 1,000 été_RUNNING") == ["dog", "1", "000", "t", "run"]


words = st.lists(st.sampled_from("abcd"), max_size=8)


@given(words, words)
def test_common_indices_are_a_longest_common_subsequence(reference, candidate):
    def longest(first, second):
        if not first or not second:
            return 0
        if first[0] == second[0]:
            return 1 + longest(first[1:], second[1:])
        return max(longest(first[1:], second), longest(first, second[1:]))

    found = [reference[index] for index in sorted(common_indices(reference, candidate))]
    assert len(found) == longest(reference, candidate)
    left = iter(candidate)
    assert all(token in left for token in found)


def test_two_megabytes_take_seconds():
    assert 0 < rouge_lsum(["word other " * 180_000], [["word other " * 50]]) < 0.001


@given(st.lists(st.text(max_size=60), max_size=3), st.lists(st.text(max_size=60), max_size=3))
def test_no_text_raises(candidate, reference):
    assert 0 <= rouge_lsum(candidate, [reference]) <= 1
