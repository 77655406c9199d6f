r"""Formulas compared by computer algebra: math-verify parses, numbers decide, math-verify decides the rest.

Runs in the worker process only. Two formulas of the same variables are compared at a few points with 30 digits, which
is faster than simplification and neither misses an identity nor calls two tiny numbers equal (math-verify rounds to six
decimals). Relations, intervals and whatever cannot be evaluated are left to math-verify.
"""

import importlib.metadata
import logging
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify

logging.disable(logging.CRITICAL)

VERSION = f"math-verify {importlib.metadata.version('math-verify')}, sympy {sympy.__version__}"

NUM_DIGITS = 30
SAME = sympy.Float("1e-18", 30)
DIFFERENT = sympy.Float("1e-9", 30)
_POINTS = (
    ("0.7390851332151606", "0.1134511", "1.0471", "0.0191", "1.7719", "0.3313"),
    ("2.2360679774997897", "0.5671432", "-0.0313", "1.2277", "0.0517", "0.9391"),
    ("-1.3247179572447460", "0.2718211", "0.4217", "-0.7331", "0.6613", "-0.2191"),
)
"""Where formulas are compared: base + step * number of the variable. The last point is negative, for |x| is not x."""
_MAX_VARIABLES = 12

_CONFIG = [
    LatexExtractionConfig(
        boxed_match_priority=0,
        normalization_config=NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="last", equations=False
        ),
    )
]


def warm_up() -> None:
    """Fills the caches that the first comparisons would fill, so that every child is born with them."""
    for first, second in (
        (r"\frac{1}{2}", "x+1"),
        (r"\sqrt{2}+\sin(x)", "x^2"),
        (r"x \le 5", r"(1, 2)"),
        (r"\begin{pmatrix}1 & 2\end{pmatrix}", r"\{1, 2\}"),
        ("y = 2x+1", r"[0,1) \cup (2,3)"),
        (r"\log_2(8)", r"\binom{4}{2} + 3!"),
    ):
        compare(first, second)
        compare(second, second + "+0")


def compare(answer: str, reference: str) -> dict[str, Any]:
    """Whether a formula equals the reference, and the values of both where they are constants.

    Returns:
        `equal`, whether they are; `answer_value` and `reference_value`, decimal strings where both are real constants;
        `reason` where one could not be read.
    """
    parsed_reference = _parsed(reference)
    if parsed_reference is None:
        return {"equal": False, "reason": "the reference is no formula"}
    parsed_answer = _parsed(answer)
    if parsed_answer is None:
        return {"equal": False, "reason": "no formula"}
    first, second = _value(parsed_answer), _value(parsed_reference)
    if first is not None and second is not None:
        reply: dict[str, Any] = {"equal": _is_same(first, second)}
        if first.is_real and second.is_real:
            reply |= {"answer_value": str(first), "reference_value": str(second)}
        return reply
    decided = _at_points(parsed_answer, parsed_reference)
    if decided is None:
        decided = verify(
            parsed_reference, parsed_answer, float_rounding=6, timeout_seconds=None, allow_set_relation_comp=True
        )
    return {"equal": bool(decided)}


def _parsed(text: str) -> Any:
    found = parse(
        rf"\boxed{{{text}}}", _CONFIG, fallback_mode="no_fallback", extraction_mode="first_match", parsing_timeout=None
    )
    return _with_unit(found[0]) if found else None


def _with_unit(expression: Any) -> Any:
    """The expression with the symbol i as the imaginary unit."""
    if isinstance(expression, sympy.Expr):
        units = {symbol: sympy.I for symbol in expression.free_symbols if symbol.name == "i"}
        return expression.subs(units) if units else expression
    return expression


def _value(expression: Any) -> Any:
    """A constant's value with 30 digits; None of anything else."""
    if not isinstance(expression, sympy.Expr) or expression.free_symbols or _undefined(expression):
        return None
    try:
        value = sympy.nsimplify(expression, rational=True).doit().evalf(NUM_DIGITS, maxn=400)
    except (ArithmeticError, TypeError, ValueError, AttributeError, NotImplementedError):
        return None
    if not value.is_number or value.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo):
        return None
    if value.is_real is None or value.atoms(sympy.Function, sympy.Integral, sympy.Sum):
        return None
    return value


def _undefined(expression: Any) -> bool:
    """Whether a formula has parts that have no value at a point: f(x), a sum up to n, an integral, a derivative."""
    return bool(expression.atoms(sympy.core.function.AppliedUndef, sympy.Derivative)) or (
        bool(expression.free_symbols) and expression.has(sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit)
    )


def _is_same(first: Any, second: Any) -> bool:
    size = max(abs(first), abs(second))
    return bool(size == 0 or abs(first - second) <= SAME * size)


def _at_points(first: Any, second: Any) -> bool | None:
    """Whether two formulas agree at some points; None where that says nothing."""
    if (
        not isinstance(first, sympy.Expr)
        or not isinstance(second, sympy.Expr)
        or _undefined(first)
        or _undefined(second)
    ):
        return None
    names = {symbol.name for symbol in first.free_symbols}
    if names != {symbol.name for symbol in second.free_symbols} or not 0 < len(names) <= _MAX_VARIABLES:
        return None
    num_same = 0
    for base, *steps in _POINTS:
        values = []
        for expression in (first, second):
            place = {
                symbol: sympy.Rational(base) + sympy.Rational(steps[number % 5]) * (1 + number // 5)
                for number, symbol in enumerate(sorted(expression.free_symbols, key=lambda symbol: symbol.name))
            }
            values.append(_value(expression.subs(place)))
        if values[0] is None or values[1] is None:
            continue
        if _is_same(*values):
            num_same += 1
        elif not float(base) < 0 or (values[0].is_real and values[1].is_real):
            size = max(abs(values[0]), abs(values[1]))
            return False if abs(values[0] - values[1]) > DIFFERENT * size else None
    return True if num_same >= 2 else None
