"""Numbers: read exactly from every spelling, bounded, compared with the tolerance of the reference alone."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lco.grading.numeric import Number, Tolerance, agree, parse_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-12", -12),
        ("--12", 12),
        ("1,234,567.5", Fraction(2469135, 2)),
        (".5", Fraction(1, 2)),
        ("4.5e33", Fraction(45) * 10**32),
        ("4.5E-3", Fraction(45, 10**4)),
        (r"4.5 \times 10^{33}", Fraction(45) * 10**32),
        (r"4.5 \cdot 10^33", Fraction(45) * 10**32),
        ("4.5*10^3", 4500),
        ("4.5 x 10^3", 4500),
        (r"-2 \times 10^{-2}", Fraction(-1, 50)),
        ("10^6", 10**6),
        ("2^{-3}", Fraction(1, 8)),
        (r"\frac{3}{4}", Fraction(3, 4)),
        (r"-\frac{3}{-4}", Fraction(3, 4)),
        (r"2\frac{1}{3}", Fraction(7, 3)),
        ("2 1/3", Fraction(7, 3)),
        ("1/2+1/3", Fraction(5, 6)),
        ("(9+1)", 10),
        ("3(4)", 12),
        ("2^{10}-1", 1023),
        ("-1./3", Fraction(-1, 3)),
    ],
)
def test_a_number_is_read_exactly(text, value):
    assert parse_number(text).value == value


NO_NUMBERS = r"""x|2x|1,00|12,34|1 2|1..2|1/0|\frac{1}{0}|0^{-1}|10^{10001}|1e10001|2^{1/2}|(1|1)|{1)|٣|½
9^{99999}|--|1e|\frac12|2^10000*2^10000*2^10000*2^10000*2^10000""".replace("\n", "|").split("|")


@pytest.mark.parametrize(
    "text", [*NO_NUMBERS, "", "9" * 5001, "(" * 100 + "1" + ")" * 100], ids=range(len(NO_NUMBERS) + 3)
)
def test_anything_else_is_no_number(text):
    assert parse_number(text) is None


def test_five_thousand_digits_are_read():
    assert parse_number("9" * 5000).value == 10**5000 - 1


@given(st.text(alphabet="0123456789.,+-*/^(){}eE \\frac", max_size=40))
def test_no_text_raises(text):
    parse_number(text)


def agrees(answer: str, reference: str, tolerance: Tolerance = Tolerance()) -> bool:
    return agree(parse_number(answer), parse_number(reference), tolerance)


@pytest.mark.parametrize(
    ("reference", "near", "far"),
    [
        ("3.14", "3.1401", "3.1405"),
        ("4.5e33", "4.50001e33", "4.502e33"),
        ("1e-8", "1.00005e-8", "1.0002e-8"),
        ("9.8696", "9.87", "9.86"),
        ("2.7778", "2.77778", "2.7779"),
        ("1000.99", "1000.992", "1000.98"),
        ("1.325e-27", "1.3250001e-27", "1.326e-27"),
    ],
)
def test_a_decimal_is_as_exact_as_it_is_written_and_never_finer_than_the_relative_tolerance(reference, near, far):
    assert agrees(near, reference)
    assert not agrees(far, reference)


@given(st.integers(1, 10**9), st.fractions(min_value=-1, max_value=1).filter(lambda offset: offset != 0))
def test_integers_and_fractions_are_exact(number, offset):
    reference = Number(Fraction(number, 7))
    assert not agree(Number(reference.value + offset), reference, Tolerance())
    assert agree(Number(reference.value), reference, Tolerance())


@given(st.integers(1, 10**6), st.integers(-40, 40), st.integers(1, 1000))
def test_tolerance_is_relative_at_every_scale(mantissa, exponent, parts):
    scale = Fraction(10) ** exponent
    reference = Number(mantissa * scale, is_decimal=True)
    inside = Number(reference.value * (1 + Fraction(parts, 10**7)))
    outside = Number(reference.value * (1 + Fraction(1, 10**4) + Fraction(parts, 10**6)))
    assert agree(inside, reference, Tolerance())
    assert not agree(outside, reference, Tolerance())


def test_a_long_decimal_may_stand_for_a_fraction_rounded_or_cut():
    for answer in ("0.333333", "0.3333333333", "3.333333e-1"):
        assert agrees(answer, r"\frac{1}{3}")
    for answer in ("0.33333", "0.333334", "0.333332", "0.3"):
        assert not agrees(answer, r"\frac{1}{3}")
    assert agrees("0.666667", "2/3")
    assert agrees("0.666666", "2/3")
    assert not agrees("4.9999999", "5")


def test_a_rounded_quantity_is_compared_relatively_even_if_it_is_an_integer():
    assert agrees("6631", "6630", Tolerance(1e-3, for_exact=True))
    assert not agrees("6640", "6630", Tolerance(1e-3, for_exact=True))
