"""Numbers made of many scores: Pass@k, majority and mean, spread over seeds, error over problems. No torch.

No function depends on the order of its samples or problems. Undefined is None, never NaN and never a guess: Pass@4 of
two samples, a standard deviation of one seed.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float | None:
    """Unbiased probability that one of k samples is correct: 1 - C(n-c, k) / C(n, k) (arXiv 2107.03374, Eq. 1).

    Args:
        num_samples: n, the samples that were drawn of one problem.
        num_correct: c of them are correct.

    Returns:
        None where fewer than k samples were drawn.
    """
    _check_counts(num_samples, num_correct, k)
    if num_samples < k:
        return None
    return 1.0 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def mean_pass_at_k(counts: Iterable[tuple[int, int]], k: int) -> float | None:
    """Pass@k over problems: the mean of `pass_at_k`; None without problems or where one has fewer than k samples.

    Args:
        counts: (samples, correct samples) of each problem.
    """
    return mean_of([pass_at_k(num_samples, num_correct, k) for num_samples, num_correct in counts])


def maj_at_k(answers: Sequence[Hashable | None], is_correct: Sequence[bool], k: int) -> float | None:
    """Probability that the most frequent answer of k samples, drawn without repetition, is correct. Exact.

    It is the expectation over all subsets of k samples, counted rather than enumerated. Tied answers share the vote
    equally, so that the order of samples changes nothing; peers take whichever was drawn first. A subset in which no
    sample has an answer is wrong.

    Args:
        answers: the extracted answer of each sample, None where it has none. Correct answers vote as one, however
            written: all equal the reference.
        is_correct: for each sample; never True of a sample without an answer.

    Returns:
        None where fewer than k samples were drawn.
    """
    num_samples = len(answers)
    _check_counts(num_samples, sum(is_correct), k)
    if num_samples < k:
        return None
    num_correct = sum(is_correct)
    num_silent = sum(answer is None for answer in answers)
    rivals = Counter(
        answer for answer, right in zip(answers, is_correct, strict=True) if not right and answer is not None
    )
    expected = 0.0
    for votes in range(1, min(num_correct, k) + 1):
        # ways[(size, ties)]: subsets of the other samples in which no rival has more than `votes`, `ties` have as many
        ways: Counter[tuple[int, int]] = Counter(
            {(silent, 0): math.comb(num_silent, silent) for silent in range(num_silent + 1)}
        )
        for count in rivals.values():
            grown: Counter[tuple[int, int]] = Counter()
            for (size, ties), number in ways.items():
                for taken in range(min(count, votes, k - votes - size) + 1):
                    grown[size + taken, ties + (taken == votes)] += number * math.comb(count, taken)
            ways = grown
        won = math.fsum(number / (1 + ties) for (size, ties), number in ways.items() if size == k - votes)
        expected += math.comb(num_correct, votes) * won
    return expected / math.comb(num_samples, k)


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean; None without values or where one of them is undefined."""
    known = list(values)
    if not known or any(value is None for value in known):
        return None
    return math.fsum(value for value in known if value is not None) / len(known)


def std_over_seeds(values: Sequence[float]) -> float | None:
    """Sample standard deviation (ddof 1) of a metric over seeds; None of fewer than two."""
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def clustered_standard_error(shares: Sequence[float]) -> float | None:
    """Standard error of Pass@1 over problems: the standard deviation of c_i / n_i, divided by sqrt(number of problems).

    The samples of one problem are one cluster: more of them do not make the problems more. None of fewer than two.

    Args:
        shares: the share of correct samples of each problem.
    """
    deviation = std_over_seeds(shares)
    return None if deviation is None else deviation / math.sqrt(len(shares))


def naive_standard_error(num_samples: int, num_correct: int) -> float | None:
    """Standard error as if all samples were independent: sqrt(p (1 - p) / (n - 1)). For comparison with the clustered.

    None of fewer than two samples.
    """
    _check_counts(num_samples, num_correct, 1)
    if num_samples < 2:
        return None
    share = num_correct / num_samples
    return math.sqrt(share * (1 - share) / (num_samples - 1))


def mcnemar_p(num_wins: int, num_losses: int) -> float | None:
    """Exact two-sided McNemar test: the binomial(1/2) probability of a split at least as uneven; None without a change.

    With several samples a problem, a win is a problem with the greater mean, and this is the sign test.
    """
    num_changed = num_wins + num_losses
    if num_changed == 0:
        return None
    tail = sum(math.comb(num_changed, count) for count in range(min(num_wins, num_losses) + 1))
    return min(1.0, 2 * tail / (1 << num_changed))


def _check_counts(num_samples: int, num_correct: int, k: int) -> None:
    if k < 1:
        raise ValueError(f"k: {k} is no number of samples")
    if not 0 <= num_correct <= num_samples:
        raise ValueError(f"{num_correct} of {num_samples} samples cannot be correct")
