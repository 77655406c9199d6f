"""ROUGE-Lsum (Lin 2004, section 3.2): overlap of a summary with a reference by the longest common subsequences of their
sentences, as the `rouge-score` package counts it with stemming.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from evaluation.porter import stem

MAX_TOKENS = 20_000
"""Tokens of a text that are compared; what follows counts in its length alone."""

_MIN_STEMMED_CHARACTERS = 4
_TOKEN = re.compile(r"[a-z0-9]+")


def rouge_lsum(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """The largest F-measure of the candidate's sentences against those of a reference; 0 where there is no reference.

    Args:
        candidate: the sentences of the text; a line break inside one ends it too.
        references: the same of each reference.
    """
    tokens = _sentences(candidate)
    return max((_f_measure(_sentences(reference), tokens) for reference in references), default=0.0)


def tokenize(text: str) -> list[str]:
    """Words of ASCII letters and digits in lower case, those of more than three characters by their stems."""
    words = _TOKEN.findall(text.lower())
    return [stem(word) if len(word) >= _MIN_STEMMED_CHARACTERS else word for word in words]


def _sentences(sentences: Sequence[str]) -> list[list[str]]:
    return [tokenize(line) for sentence in sentences for line in sentence.split("\n") if line]


def _f_measure(reference: list[list[str]], candidate: list[list[str]]) -> float:
    """Hits are the tokens of the unions of common subsequences, none more often than it stands in either text."""
    num_reference, num_candidate = (sum(map(len, sentences)) for sentences in (reference, candidate))
    if not num_reference or not num_candidate:
        return 0.0
    left = Counter(token for sentence in reference for token in sentence)
    left &= Counter(token for sentence in candidate for token in sentence)
    reference, candidate = _shortened(reference), _shortened(candidate)
    hits = 0
    for sentence in reference:
        union = set().union(*(common_indices(sentence, other) for other in candidate))
        for index in sorted(union):
            if left[sentence[index]] > 0:
                left[sentence[index]] -= 1
                hits += 1
    recall, precision = hits / num_reference, hits / num_candidate
    return 2 * precision * recall / (precision + recall) if hits else 0.0


def _shortened(sentences: list[list[str]]) -> list[list[str]]:
    room = MAX_TOKENS
    kept = []
    for sentence in sentences:
        kept.append(sentence[:room])
        room -= len(kept[-1])
        if room == 0:
            break
    return kept


def common_indices(reference: Sequence[str], candidate: Sequence[str]) -> set[int]:
    """Indices in the reference of one longest common subsequence; of several, the one that the package finds."""
    if not set(reference) & set(candidate):
        return set()
    ids = {token: number for number, token in enumerate(dict.fromkeys([*reference, *candidate]))}
    candidate_ids = np.array([ids[token] for token in candidate])
    lengths = np.zeros((len(reference) + 1, len(candidate) + 1), dtype=np.int32)
    for row, token in enumerate(reference, start=1):
        above = lengths[row - 1]
        longest = np.where(candidate_ids == ids[token], above[:-1] + 1, above[1:])
        np.maximum.accumulate(longest, out=lengths[row, 1:])
    found = set()
    row, column = len(reference), len(candidate)
    while row and column:
        if reference[row - 1] == candidate[column - 1]:
            row, column = row - 1, column - 1
            found.add(row)
        elif lengths[row, column - 1] > lengths[row - 1, column]:
            column -= 1
        else:
            row -= 1
    return found
