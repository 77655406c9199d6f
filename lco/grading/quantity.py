r"""Quantities: a number with a percent sign, degrees, a currency or a unit of measure around it. No torch.

Units are labels: `10\text{ cm}` equals `10`. Where both sides name known units, they have to be the same one.
A bare letter after a number is a variable, not a unit (`5t` is not `5`), apart from the common `5 m`, `5 s`, `5 g` and
their like.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from lco.grading.numeric import Number, Tolerance, agree, parse_number

_UNITS = {
    "m": "m meter meters metre metres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "mm": "mm millimeter millimeters",
    "km": "km kilometer kilometers kilometre kilometres",
    "nm": "nm nanometer nanometers",
    "in": "in inch inches",
    "ft": "ft foot feet",
    "yd": "yd yard yards",
    "mi": "mi mile miles",
    "s": "s sec secs second seconds",
    "ms": "ms millisecond milliseconds",
    "min": "min mins minute minutes",
    "h": "h hr hrs hour hours",
    "day": "d day days",
    "week": "week weeks",
    "month": "month months",
    "year": "yr yrs year years",
    "g": "g gram grams gm",
    "kg": "kg kilogram kilograms",
    "mg": "mg milligram milligrams",
    "lb": "lb lbs pound pounds",
    "oz": "oz ounce ounces",
    "L": "l L liter liters litre litres",
    "mL": "ml mL milliliter milliliters",
    "gal": "gal gallon gallons",
    "mi/h": "mph",
    "km/h": "kmh kmph kph",
    "dollar": "dollar dollars usd USD",
    "cent": "cent cents",
    "euro": "euro euros EUR",
    "yuan": "yuan RMB",
    "rupee": "rupee rupees Rs rs",
    "rad": "rad radian radians",
    "N": "N newton newtons",
    "J": "J joule joules",
    "eV": "eV",
    "W": "W watt watts",
    "V": "V volt volts",
    "K": "K kelvin kelvins",
    "C": "C Celsius celsius",
    "F": "F Fahrenheit fahrenheit",
    "Hz": "Hz hertz",
    "Pa": "Pa pascal pascals",
    "mol": "mol mole moles",
    "acre": "acre acres",
    "erg": "erg ergs",
    "kJ": "kJ",
    "cal": "cal calorie calories",
    "kcal": "kcal",
    "keV": "keV",
    "MeV": "MeV",
    "GeV": "GeV",
    "kN": "kN",
    "dyn": "dyn dyne dynes",
    "kPa": "kPa",
    "MPa": "MPa",
    "GPa": "GPa",
    "atm": "atm",
    "bar": "bar bars",
    "torr": "torr Torr",
    "kW": "kW",
    "MW": "MW",
    "kHz": "kHz",
    "MHz": "MHz",
    "GHz": "GHz",
    "um": "um micron microns",
    "pm": "picometer picometers",
    "AU": "AU",
    "pc": "pc parsec parsecs",
    "kpc": "kpc",
    "Mpc": "Mpc",
    "ly": "ly",
    "amu": "amu",
    "mM": "mM",
    "ohm": "ohm ohms",
    "rpm": "rpm",
}
_CANONICAL = {word: unit for unit, words in _UNITS.items() for word in words.split()}
_LETTERS = frozenset("mgshLNJWVK")
"""Bare single letters that a number without variables may carry as a unit."""
_LETTERS_OF_POWERS = frozenset("CFTMA")
"""More of them, after a decimal or a power of ten only, and apart from it: `2.5 M`."""
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_NOT_A_UNIT = re.compile(
    r"(?<![A-Za-z])(?:and|or|not|if|to|plus|minus|times|over|base|mod|undefined|infinity)(?![A-Za-z])", re.I
)

_POWER = r"(?:\s*\^\s*(?:\{\s*-?\d+\s*\}|-?\d))?"
_LABEL = re.compile(rf"(?:\\text\s*\{{(?P<text>[^{{}}\d]*\d?)\}}|(?P<word>[A-Za-z]+(?:[ -][A-Za-z]+)*\.?)){_POWER}\s*$")
_JOIN = re.compile(r"(?:/|\\cdot|\*|\\times|\s)+$")
_UNIT = re.compile(r"\\text\s*\{\s*(?P<text>[A-Za-z]+)\s*\}|(?P<word>[A-Za-z]+)")
_FACTOR = rf"(?:\\text\s*\{{\s*[A-Za-z]+\s*\}}|[A-Za-z]+){_POWER}"
_PRODUCT = re.compile(rf"\s*{_FACTOR}(?:(?:\s|\.|\*|/|\\cdot)+{_FACTOR})*\s*")
_TEXT_AT_END = re.compile(r"\\text\s*\{(?P<inside>(?:[^{}]|\{[^{}]*\})*)\}\s*$")
_FRACTION_AT_END = re.compile(
    r"\\frac\s*\{(?P<above>(?:[^{}]|\{[^{}]*\})*)\}\s*\{(?P<below>(?:[^{}]|\{[^{}]*\})*)\}\s*$"
)
_ROUNDED = re.compile(r"(?:\.\d+|10\s*\^\s*(?:\{[^{}]*\}|\d)|\d[eE]-?\d+)\s*$")
"""The end of a decimal or of e-notation: numbers that quantities are written with."""
_PREFIX = re.compile(
    r"^(?:=|\\approx|\\text\s*\{\s*(?:about|approximately|around|roughly|is)\s*\}|(?:about|approximately|around|roughly)\s|"
    r"\\text\s*\{\s*(?:Rs\.?|USD|US)\s*\}|(?:Rs\.?|USD|US\$)\s*(?=[\d.])|\\\$|\$)\s*"
)
MAX_CHARACTERS = 256
"""Longer answers are formulas, of which no label is taken."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """What a number stands with."""

    head: str
    """The answer without its label."""
    number: Number | None
    """The head as a number; None where it is a formula."""
    unit: str = ""
    """Known units with their powers, sorted, as `m*s-2`; empty where there is none or an unknown one."""
    is_percent: bool = False
    is_labelled: bool = False
    """Anything was taken away."""


def read_quantity(text: str, *, is_reference: bool = False) -> Quantity:
    r"""The number and label of an answer in the spelling of `latex.clean`.

    Args:
        is_reference: a bare letter after a number is a variable in any case, as in `\frac{37}{4} m`.
    """
    number = parse_number(text)
    if number is not None or len(text) > MAX_CHARACTERS:
        return Quantity(text, number)
    head = _spread(_PREFIX.sub("", text).strip())
    units: list[dict[str, int] | None] = []
    scale = 1
    is_percent = False
    for _ in range(6):
        if head.endswith("%"):
            head, is_percent = head[:-1].rstrip(" \\"), True
            continue
        if head.endswith("°"):
            head = head[:-1].rstrip()
            continue
        match = _LABEL.search(head)
        if match is None or not match.start():
            break
        words = match["text"] if match["text"] is not None else match["word"]
        before = head[: match.start()]
        is_text = match["text"] is not None
        if not _is_label(before, words, is_text=is_text) or (is_reference and not is_text and len(words) == 1):
            break
        first = words.split()[0].strip(".,").lower() if words.split() else ""
        if first in _SCALES:
            scale *= _SCALES[first]
            words = " ".join(words.split()[1:])
        power = head[match.end("text") + 1 if match["text"] is not None else match.end("word") :]
        joined = _JOIN.search(before)
        exponent = int("".join(re.findall(r"-?\d+", power)) or 1)
        units.append(_canonical(words, exponent, is_below=joined is not None and "/" in joined[0]))
        head = before[: joined.start()] if joined and parse_number(before[: joined.start()]) is not None else before
        head = _JOIN.sub("", head) if units and _LABEL.search(_JOIN.sub("", head)) else head.strip()
    head = head.strip(" ,")
    number = parse_number(head)
    if number is not None and scale != 1:
        unit = None if number.unit is None else number.unit * scale
        number = Number(number.value * scale, number.is_decimal, unit, number.num_digits, number.num_decimals)
    if scale != 1 and number is None:
        return Quantity(text, None)
    return Quantity(head or text, number, _product(units), is_percent, is_labelled=head != text)


def quantities_agree(answer: Quantity, reference: Quantity, tolerance: Tolerance) -> bool | None:
    """Whether two quantities are equal; None where one is no number.

    A percent sign may be missing (`10%` for `10`); where one side has it and the other is no integer, `33.5%` is also
    `0.335`.
    """
    if answer.number is None or reference.number is None:
        return None
    if answer.unit and reference.unit and answer.unit != reference.unit:
        return False
    if agree(answer.number, reference.number, tolerance):
        return True
    if answer.is_percent == reference.is_percent:
        return False
    plain = reference.number if answer.is_percent else answer.number
    if plain.value.denominator == 1:
        return False
    return agree(
        _hundredth(answer.number) if answer.is_percent else answer.number,
        _hundredth(reference.number) if reference.is_percent else reference.number,
        tolerance,
    )


def _hundredth(number: Number) -> Number:
    unit = None if number.unit is None else number.unit / 100
    decimals = number.num_decimals + 2 if number.is_decimal else 0
    return Number(number.value * Fraction(1, 100), number.is_decimal, unit, number.num_digits, decimals)


def _is_label(before: str, words: str, *, is_text: bool) -> bool:
    """Whether words after something are a label of it, not a part of the answer."""
    if _NOT_A_UNIT.search(words):
        return False
    if is_text:
        return True
    if not before.rstrip(" \\").endswith(("}", ")", "%", "°", "/", "*", *"0123456789.")) and not before.endswith(
        "cdot "
    ):
        return False
    if words in _LETTERS_OF_POWERS and _ROUNDED.search(before) and (before[-1:].isspace() or before[-1:] == "}"):
        return True
    if words in _LETTERS or (words in _CANONICAL and len(words) > 1):
        return True
    return len(words.replace(".", "")) >= 4 and (before[-1:].isspace() or words.rstrip(".") in _CANONICAL)


def _spread(text: str) -> str:
    r"""A unit at the end with each of its factors in a `\text` of its own: of `\text{erg s^{-1}}` and `\frac{m}{s}`.

    A fraction of bare letters is one of units only after a decimal or e-notation: `3\frac{m}{s}` may be a formula.
    """
    if (match := _TEXT_AT_END.search(text)) and "^" in match["inside"] and _PRODUCT.fullmatch(match["inside"]):
        return text[: match.start()] + _factors(match["inside"])
    if match := _FRACTION_AT_END.search(text):
        above, below, before = match["above"], match["below"], text[: match.start()]
        is_text = "\\text" in above and "\\text" in below
        if _PRODUCT.fullmatch(above) and _PRODUCT.fullmatch(below) and (is_text or _ROUNDED.search(before)):
            words = [each["text"] or each["word"] for part in (above, below) for each in _UNIT.finditer(part)]
            if all(word in _CANONICAL or word == "cdot" for word in words):
                divisors = _factors(below).replace(" \\text", "/\\text")
                return f"{before} {_factors(above)}/{divisors}"
    return text


def _factors(product: str) -> str:
    r"""The factors of a product of units, each in a `\text`; what is divided by keeps its slash."""
    spaced = re.sub(r"(?:\s|\.|\*|\\cdot(?![A-Za-z]))+", " ", product.strip())
    return re.sub(r"\s*/\s*", "/", _UNIT.sub(lambda each: rf"\text{{{each['text'] or each['word']}}}", spaced))


def _canonical(words: str, exponent: int, *, is_below: bool) -> dict[str, int] | None:
    """Canonical names of known units with their exponents: `meters per second` is `m` and `s-1`; None of unknown ones.

    Args:
        exponent: what stands after the last unit.
        is_below: the first unit stands behind a slash.
    """
    powers = {"square": 2, "squared": 2, "sq": 2, "cubic": 3, "cubed": 3, "cu": 3}
    found: list[tuple[str, int]] = []
    sign, power = (-1, 1) if is_below else (1, 1)
    for word in re.split(r"[\s*.]+|(/)", words.replace(" per ", " / ")):
        if not word:
            continue
        if word == "/":
            sign = -1
        elif word.lower() in ("squared", "cubed") and found:
            name, before = found[-1]
            found[-1] = name, before * powers[word.lower()]
        elif word.lower() in powers:
            power = powers[word.lower()]
        else:
            name = word.rstrip("0123456789")
            name, digit = _CANONICAL.get(name) or _CANONICAL.get(name.lower()) or "", word[len(name) :]
            if not name:
                return None
            found.append((name, sign * power * int(digit or 1)))
            power = 1
    if not found:
        return {} if not words else None
    found[-1] = found[-1][0], found[-1][1] * exponent
    units: dict[str, int] = {}
    for name, count in found:
        above, _, below = name.partition("/")
        units[above] = units.get(above, 0) + count
        if below:
            units[below] = units.get(below, 0) - count
    return units


def _product(units: list[dict[str, int] | None]) -> str:
    """All units of a quantity in one spelling; empty where one is unknown."""
    powers: dict[str, int] = {}
    for each in units:
        if each is None:
            return ""
        for name, exponent in each.items():
            powers[name] = powers.get(name, 0) + exponent
    return "*".join(f"{name}{'' if power == 1 else power}" for name, power in sorted(powers.items()) if power)
