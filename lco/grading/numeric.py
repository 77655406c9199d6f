r"""Numbers read and compared exactly: a small arithmetic of its own, never an evaluator of text. No torch.

Read are integers, decimals, thousands separators, e-notation in its spellings (`4.5e33`, `4.5 \times 10^{33}`,
`4.5*10^33`), fractions, mixed numbers, and + - * / ^ and parentheses over them. Values are exact fractions; whatever
would grow past the bounds is no number here.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_DIGITS = 5_000
MAX_EXPONENT = 10_000
MAX_VALUE_BITS = 40_000
MAX_DEPTH = 64

RELATIVE_TOLERANCE = 1e-4

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>(?:[1-9]\d{0,2}(?:,\d{3})+(?!,?\d)|\d+)(?:\.\d*)?(?:[eE][+-]?\d{1,7}(?![\d.]))?
              |\.\d+(?:[eE][+-]?\d{1,7}(?![\d.]))?)
    |(?P<frac>\\frac)
    |(?P<times>\\times|\\cdot|\*\*|\*|[xX](?=\s*10\s*\^))
    |(?P<slash>/|\\div)
    |(?P<sign>[-+])
    |(?P<power>\^)
    |(?P<open>[({])
    |(?P<close>[)}])
    )""",
    re.VERBOSE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was written."""

    value: Fraction
    is_decimal: bool = False
    """Written with a decimal point or in e-notation: a rounded quantity. Integers and fractions are exact."""
    unit: Fraction | None = None
    """One unit in the last written digit of a single decimal or e-notation; None of anything composed."""
    num_digits: int = 0
    """Significant digits of a single decimal."""
    num_decimals: int = 0
    """Digits after the point of a single decimal."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How near an answer has to be to a reference."""

    relative: float = RELATIVE_TOLERANCE
    """Largest difference from a reference that is a decimal or in e-notation, as a share of the larger of the two."""
    for_exact: bool = False
    """References that are integers or fractions are rounded quantities too: the relative tolerance alone decides."""


class _NoNumberError(Exception):
    """The text is no number, or one out of bounds."""


def parse_number(text: str) -> Number | None:
    """The exact value of a number in the spelling of `latex.clean`; None for anything else."""
    if not text or not text.isascii() or sum(map(str.isdigit, text)) > MAX_DIGITS:
        return None
    try:
        parser = _Parser(text)
        number = parser.sum(0)
        return number if parser.at_end else None
    except _NoNumberError:
        return None


def agree(answer: Number, reference: Number, tolerance: Tolerance) -> bool:
    """Whether an answer equals a reference.

    - An integer or fraction as reference: exactly. A decimal answer to a fraction may be the fraction, rounded or cut
      at 6 decimals or more.
    - A decimal or e-notation as reference: within the relative tolerance, and not in the reference's last digit or
      above: `2.7779` is not `2.7778`; but an answer of fewer digits may be the reference rounded (`9.87` for `9.8696`).
    """
    difference = abs(answer.value - reference.value)
    if difference == 0:
        return True
    is_near = difference <= Fraction(tolerance.relative) * max(abs(answer.value), abs(reference.value))
    if tolerance.for_exact:
        return is_near
    if not reference.is_decimal:
        is_long = answer.is_decimal and answer.num_decimals >= 6 and answer.num_digits >= 5
        if not is_long or answer.unit is None:
            return False
        is_cut = abs(answer.value) < abs(reference.value) and difference < answer.unit
        return is_cut or 2 * difference <= answer.unit
    if not is_near:
        return False
    if reference.unit is None or difference < reference.unit:
        return True
    return answer.unit is not None and 2 * difference <= answer.unit


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        position = 0
        text = text.strip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None or match.lastgroup is None:
                raise _NoNumberError
            self._tokens.append((match.lastgroup, match[match.lastgroup]))
            position = match.end()
        self._position = 0
        self._was_power = False

    @property
    def at_end(self) -> bool:
        return self._position == len(self._tokens)

    def sum(self, depth: int) -> Number:
        if depth > MAX_DEPTH:
            raise _NoNumberError
        total = self._product(depth)
        while self._kind == "sign":
            sign = self._next()
            term = self._product(depth)
            total = _composed(total, term, total.value + (term.value if sign == "+" else -term.value))
        return total

    def _product(self, depth: int) -> Number:
        result = self._signed(depth)
        while True:
            if self._kind == "times":
                self._next()
                factor = self._signed(depth)
                is_power_of_ten = _is_power_of_ten(factor.value) and self._was_power
                if is_power_of_ten and (result.unit is not None or result.value.denominator == 1):
                    result = _scientific(result, factor.value)
                else:
                    result = _composed(result, factor, _bounded(result.value * factor.value))
            elif self._kind == "slash":
                self._next()
                divisor = self._signed(depth)
                if divisor.value == 0:
                    raise _NoNumberError
                result = _composed(result, divisor, _bounded(result.value / divisor.value))
            elif self._kind in ("open", "frac"):
                factor = self._power(depth)
                result = _composed(result, factor, _bounded(result.value * factor.value))
            else:
                return result

    def _signed(self, depth: int) -> Number:
        is_negative = False
        while self._kind == "sign":
            is_negative ^= self._next() == "-"
        number = self._power(depth)
        if not is_negative:
            return number
        return Number(-number.value, number.is_decimal, number.unit, number.num_digits, number.num_decimals)

    def _power(self, depth: int) -> Number:
        base = self._atom(depth)
        self._was_power = False
        if self._kind != "power":
            return base
        self._next()
        sign = -1 if self._kind == "sign" and self._next() == "-" else 1
        exponent = sign * self._atom(depth).value
        if exponent.denominator != 1 or abs(exponent) > MAX_EXPONENT or (base.value == 0 and exponent < 0):
            raise _NoNumberError
        if self._kind == "power":  # a tower: right-associative, and no final answer
            raise _NoNumberError
        if base.value and _bits(base.value) * abs(int(exponent)) > MAX_VALUE_BITS:
            raise _NoNumberError
        self._was_power = True
        return Number(base.value ** int(exponent), base.is_decimal)

    def _atom(self, depth: int) -> Number:
        match self._kind:
            case "number":
                number = _literal(self._next())
                mixed = self._mixed(number, depth)
                return number if mixed is None else mixed
            case "frac":
                self._next()
                numerator, denominator = self._braced(depth), self._braced(depth)
                if denominator.value == 0:
                    raise _NoNumberError
                return _composed(numerator, denominator, numerator.value / denominator.value)
            case "open":
                opening = self._next()
                inner = self.sum(depth + 1)
                if self.at_end or self._next() != {"(": ")", "{": "}"}[opening]:
                    raise _NoNumberError
                return inner
            case _:
                raise _NoNumberError

    def _mixed(self, whole: Number, depth: int) -> Number | None:
        r"""The mixed number `2\frac{1}{3}` or `2 1/3`, if the tokens go on like one."""
        if whole.is_decimal or whole.value.denominator != 1:
            return None
        if self._kind == "frac":
            part = self._atom(depth)
        elif [kind for kind, _ in self._tokens[self._position : self._position + 3]] == ["number", "slash", "number"]:
            numerator = _literal(self._next())
            self._next()
            denominator = _literal(self._next())
            if denominator.value == 0:
                raise _NoNumberError
            part = Number(numerator.value / denominator.value, numerator.is_decimal or denominator.is_decimal)
        else:
            return None
        if part.is_decimal or not 0 < part.value < 1:
            raise _NoNumberError
        return Number(whole.value + part.value)

    def _braced(self, depth: int) -> Number:
        if self._kind != "open" or self._tokens[self._position][1] != "{":
            raise _NoNumberError
        return self._atom(depth)

    @property
    def _kind(self) -> str:
        return self._tokens[self._position][0] if self._position < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._tokens[self._position][1]
        self._position += 1
        return token


def _literal(token: str) -> Number:
    mantissa, mark, exponent = token.lower().replace(",", "").partition("e")
    power = int(exponent or 0)
    if abs(power) > MAX_EXPONENT:
        raise _NoNumberError
    whole, point, decimals = mantissa.partition(".")
    scale = Fraction(10) ** power
    value = Fraction(_integer((whole or "0") + decimals), 10 ** len(decimals)) * scale
    if not point and not mark:
        return Number(value)
    unit = scale / 10 ** len(decimals)
    num_digits = len((whole + decimals).lstrip("0"))
    return Number(value, is_decimal=True, unit=unit, num_digits=num_digits, num_decimals=max(0, len(decimals) - power))


def _integer(digits: str) -> int:
    """The integer of many digits; `int` alone refuses more than 4,300."""
    return int(digits) if len(digits) <= 4000 else _integer(digits[:-4000]) * 10**4000 + int(digits[-4000:])


def _scientific(mantissa: Number, power: Fraction) -> Number:
    """A mantissa times a written power of ten."""
    value = _bounded(mantissa.value * power)
    if mantissa.unit is None:  # an integer mantissa: exact, unless it stands for a small quantity
        is_exact = power >= 1
        return Number(value, not is_exact, None if is_exact else power)
    num_decimals = mantissa.num_decimals - (len(str(power.numerator)) - len(str(power.denominator)))
    return Number(value, True, mantissa.unit * power, mantissa.num_digits, max(0, num_decimals))


def _composed(first: Number, second: Number, value: Fraction) -> Number:
    return Number(_bounded(value), first.is_decimal or second.is_decimal)


def _is_power_of_ten(value: Fraction) -> bool:
    digits = str(max(value.numerator, value.denominator)) if _bits(value) < 14_000 else ""
    return value > 0 and min(value.numerator, value.denominator) == 1 and digits.strip("0") == "1"


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _bounded(value: Fraction) -> Fraction:
    if _bits(value) > MAX_VALUE_BITS:
        raise _NoNumberError
    return value
