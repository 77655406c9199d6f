r"""Whether an answer equals a reference, taken apart until only formulas are left for the computer algebra. No torch.

Equal text, numbers, words, equations `x = 5`, lists, tuples, intervals, sets and matrices are decided here, part by
part; a formula goes to `decide`. Conventions: the order of a bare list or set does not matter, that of a tuple does;
a bare list may stand for a tuple or set; the name before `=`, `\in` or `:` may be missing; a unit may be missing.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from lco.grading.latex import clean, undelimited
from lco.grading.numeric import Tolerance
from lco.grading.parts import Parts, is_separated, matrix_of, parts_of, sides_of, split, unions_of
from lco.grading.quantity import quantities_agree, read_quantity

MAX_PARTS = 256
MAX_DEPTH = 8

_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_WORDS = re.compile(r"[A-Za-z][A-Za-z.]*(?:(?:[ ,']+|(?<=[A-Za-z]{2})-(?=[A-Za-z]{2}))[A-Za-z][A-Za-z.]*)*")
_SIGNS = re.compile(r"(?<![A-Za-z])-|-(?![A-Za-z])|[+*/^=<>\\\d]")
_CHOICE = re.compile(r"\(?([A-Z])\)?")
_CHOICE_WITH_TEXT = re.compile(r"(?:\(([A-Z])\)|([A-Z])[).:])\s*\S.*", re.DOTALL)
_RELATION = re.compile(r"\\(?:ne|le|ge)(?![A-Za-z])|[<>]|!=|=")
_NAME = re.compile(
    r"""(?:\\(?:angle|triangle|overline|overrightarrow|vec|hat|bar|widehat|mathbb|mathcal|Delta|text|frac\{d[^{}]*\}\{d[^{}]*\})
          |\\[A-Za-z]+|[A-Za-z]'*|(?<=[_({,|])\s*-?\d+|(?<=[A-Za-z)}]_)\d|\s*[_{}()|,:°]\s*|\s)+""",
    re.VERBOSE,
)
_IN = re.compile(r"^(?P<name>[^=<>]{1,40}?)\\in(?![A-Za-z])")
_BASE = re.compile(r"^(?P<digits>[0-9A-Fa-f,. ]+)_\{?(?P<base>\d+|\\text\s*\{[a-z]+\})\}?$")
_PLUS_MINUS = re.compile(r"\\(?:pm|mp)(?![A-Za-z])")
_OPERATOR = re.compile(r"[-+*/^]|\\(?:cdot|times|frac|sqrt)(?![A-Za-z])")
_RELATION_START = re.compile(r"^(?:[<>]|\\(?:le|ge|ne)(?![A-Za-z]))")


class UndecidedError(Exception):
    """A formula is left and there is nothing to decide it with."""


@dataclass(frozen=True, slots=True)
class Context:
    """With what parts are compared."""

    tolerance: Tolerance
    decide: Callable[[str, str], bool]
    """Compares two formulas (answer, reference); may raise."""


def is_equal(answer: str, reference: str, context: Context) -> bool:
    """Whether an answer equals a reference; both as they were written."""
    return _equal(clean(answer), clean(reference), context, 0)


def _equal(answer: str, reference: str, context: Context, depth: int) -> bool:
    if _squeezed(answer) == _squeezed(reference):
        return bool(answer)
    if not answer or not reference:
        return False
    if depth > MAX_DEPTH:
        return context.decide(answer, reference)
    if ":" in reference and _fold_time(answer) == _fold_time(reference):
        return True
    of_answer, of_reference = read_quantity(answer), read_quantity(reference, is_reference=True)
    by_number = quantities_agree(of_answer, of_reference, context.tolerance)
    if by_number is not None:
        return by_number
    by_words = _equal_words(answer, reference)
    if by_words is not None:
        return by_words
    shorn = _without_names(answer, reference)
    if shorn is not None:
        return any(_equal(undelimited(some), undelimited(shorn[1]), context, depth + 1) for some in shorn[0])
    by_base = _equal_bases(answer, reference)
    if by_base is not None:
        return by_base
    by_parts = _equal_parts(answer, reference, context, depth)
    if by_parts is not None:
        return by_parts
    if len(sides_of(answer)) > 1 and not _RELATION.search(reference):
        return False  # an equation that is still to be solved
    if of_answer.is_labelled or of_reference.is_labelled:
        if of_answer.unit and of_reference.unit and of_answer.unit != of_reference.unit:
            return False
        answer, reference = of_answer.head, of_reference.head
        if _squeezed(answer) == _squeezed(reference):
            return True
    if ":" in answer and ":" not in reference and r"\{" not in answer:
        return False  # a ratio
    if of_reference.number is not None and re.fullmatch(r"[A-Za-z]+", answer):
        return False
    return context.decide(answer, reference)


def _squeezed(text: str) -> str:
    """The text without white space, and braces where they change nothing."""
    text = re.sub(r"(?<=\d)\s+(?=\d)", "\0", text)  # `1 2` is not `12`
    return re.sub(r"(?<![A-Za-z}\d])\{([A-Za-z0-9])\}", r"\1", re.sub(r"\s+|\\text\s*(?=\{)", "", text))


def _equal_words(answer: str, reference: str) -> bool | None:
    r"""Whether two answers in words are the same words, in any case; None where one is no words.

    One capital letter is a choice: `\text{(C)}`, `C` and `(C) 12` are the same.
    """
    plain_answer, plain_reference = _plain(answer), _plain(reference)
    choice = _CHOICE.fullmatch(plain_reference)
    if choice and (is_choice := _CHOICE.fullmatch(plain_answer) or _CHOICE_WITH_TEXT.fullmatch(plain_answer)):
        if is_choice.re is _CHOICE or reference != plain_reference or plain_reference[0] == "(":
            return choice[1] in is_choice.groups()
        return None
    if choice and reference != choice[1] and re.fullmatch(r"\(?[a-z]\)?", plain_answer):
        return False
    if re.search("[A-Za-z]{2}", plain_reference) and plain_answer.casefold() == plain_reference.casefold():
        return True
    if is_separated(answer) or is_separated(reference):
        return None
    is_words = [
        _WORDS.fullmatch(plain) is not None and (len(plain) > 3 or _TEXT.search(text) is not None)
        for plain, text in ((plain_answer, answer), (plain_reference, reference))
    ]
    has_signs = _SIGNS.search(plain_answer) or _SIGNS.search(plain_reference)
    if any(is_words) and not has_signs and _fold(plain_answer) == _fold(plain_reference):
        return True
    return False if all(is_words) else None


def _plain(text: str) -> str:
    r"""The text with `\text{...}` unwrapped."""
    plain = " ".join(_TEXT.sub(r" \1 ", text).replace("$", "").split()).strip(" .,;:!\"'")
    return re.sub(r"^(?:option|choice)\s+(?=\(?[A-Z]\)?$)", "", plain, flags=re.IGNORECASE)


def _fold(words: str) -> str:
    return re.sub(r"^(?:an?|the)\s|[^a-z0-9]+", "", words.casefold())


def _fold_time(text: str) -> str:
    return re.sub(r"[\s.]", "", _plain(text).lower())


def _without_names(answer: str, reference: str) -> tuple[list[str], str] | None:
    r"""Both without `x =`, `f(x) =`, `x \in`; None where nothing is to be taken off.

    The last side of a chain `a = b = c` is the answer; before and after `\approx` both are. An equation whose left side
    is a formula stays an equation, unless the reference is none.
    """
    answers, changed = [answer], False
    if "\\approx" in answer and "\\approx" not in reference:
        answers, changed = [side for side in re.split(r"\\approx(?![A-Za-z])", answer) if side.strip()], True
    reference_name, plain_reference = _named(reference)
    found: list[str] = []
    for some in answers:
        if is_separated(some) or is_separated(reference):
            found.append(some)
            continue
        name, value = _named(some)
        if name and reference_name and not _same_name(name, reference_name):
            found.append(some)  # y = 5 is not x = 5
        elif (name and (reference_name or not _RELATION.search(reference))) or (
            reference_name and not _RELATION.search(some)
        ):
            found.append(value)
            changed = True
        elif len(sides_of(some)) > 1 and not _RELATION.search(reference) and (side := _value_of_equation(some)):
            found.append(side)
            changed = True
        else:
            found.append(some)
    use_plain = bool(reference_name) and not is_separated(reference) and changed
    if not changed:
        return None
    return found, plain_reference if use_plain else reference


def _same_name(first: str, second: str) -> bool:
    """Whether two names may be of one thing: equal ones, and `y` for `f(x)`."""
    first, second = _squeezed(first), _squeezed(second)
    return first == second or any(
        a == "y" and re.fullmatch(r"[A-Za-z]\([a-z]\)", b) for a, b in ((first, second), (second, first))
    )


def _named(text: str) -> tuple[str, str]:
    """The name and value of `name = value` or `name in value`; an empty name where there is none."""
    match = _IN.match(text)
    if match and _NAME.fullmatch(match["name"].strip()):
        return match["name"].strip(), text[match.end() :].strip()
    sides = sides_of(text)
    if len(sides) < 2 or any(not side.strip() for side in sides[1:]) or _RELATION.search(text.replace("=", "")):
        return "", text
    name, value = sides[0].strip(), sides[-1].strip()
    if _is_name(name) or not name:
        return name or "=", value
    if len(sides) == 2 and _is_name(value) and read_quantity(name).number is not None:
        return value, name
    return "", text


def _is_name(text: str) -> bool:
    return len(text) <= 80 and any(map(str.isalpha, text)) and _NAME.fullmatch(text) is not None


def _value_of_equation(text: str) -> str | None:
    """The right side of an equation whose left side is a formula to be evaluated, None where it is one to be solved."""
    sides = [side.strip() for side in sides_of(text)]
    if len(sides) > 2:
        return sides[-1]
    left, right = (re.sub(r"\\[A-Za-z]+|[A-Za-z]\(", " ", side) for side in sides)
    unknowns = set(re.findall("[A-Za-z]", left))
    return None if len(unknowns) == 1 and not re.search("[A-Za-z]", right) else sides[-1]


def _equal_bases(answer: str, reference: str) -> bool | None:
    """Whether two numbers in a written base are equal; the base may be missing in the answer."""
    of_reference, of_answer = _BASE.match(reference), _BASE.match(answer)
    if of_reference is None or _RELATION.search(answer):
        return None
    digits = re.sub(r"[\s,]", "", of_reference["digits"]).upper().lstrip("0")
    if of_answer is not None:
        same_base = _fold(of_answer["base"]) == _fold(of_reference["base"])
        return same_base and re.sub(r"[\s,]", "", of_answer["digits"]).upper().lstrip("0") == digits
    bare = re.sub(r"[\s,]", "", _plain(answer)).upper()
    labelled = re.fullmatch(r"([0-9A-F]+)\(?BASE(\w+)\)?", bare)
    if labelled:
        return labelled[1].lstrip("0") == digits and labelled[2] == _fold(of_reference["base"]).upper().removeprefix(
            "TEXT"
        )
    return bare.lstrip("0") == digits if re.fullmatch("[0-9A-F]+", bare) else None


def _equal_parts(answer: str, reference: str, context: Context, depth: int) -> bool | None:
    """Compares lists, tuples, intervals, sets and matrices part by part; None where one of the two is none."""
    rows, reference_rows = matrix_of(answer), matrix_of(reference)
    if rows is not None and reference_rows is not None:
        if [len(row) for row in rows] != [len(row) for row in reference_rows]:
            return False
        return all(
            _equal(undelimited(a), undelimited(b), context, depth + 1)
            for row, reference_row in zip(rows, reference_rows, strict=True)
            for a, b in zip(row, reference_row, strict=True)
        )
    if rows is not None or reference_rows is not None:
        vectors = [
            Parts("(", ")", [cell for row in found for cell in row]) if found and _is_vector(found) else None
            for found in (rows, reference_rows)
        ]
        first_vector, second_vector = vectors[0] or parts_of(answer), vectors[1] or parts_of(reference)
        if not any(vectors) or first_vector is None or second_vector is None or not second_vector.is_ordered:
            return None
        pairs = list(zip(first_vector.parts, second_vector.parts, strict=False))
        return len(first_vector.parts) == len(second_vector.parts) and all(
            _equal(undelimited(a), undelimited(b), context, depth + 1) for a, b in pairs
        )
    unions = unions_of(answer), unions_of(reference)
    if len(unions[1]) > 1 == len(unions[0]) and _RELATION.search(answer) and is_separated(answer):
        unions = split(answer), unions[1]  # x < -2 or x > 2
    if len(unions[0]) == len(unions[1]) > 1:
        if _is_match(unions[0], unions[1], context, depth):
            return True
        return context.decide(answer, reference)
    of_answer, of_reference = parts_of(answer), parts_of(reference)
    if of_answer is None and of_reference is None:
        return None
    if of_answer is None or of_reference is None:
        if "\\pm" in answer or "\\pm" in reference:
            first, second = _expanded(of_answer, answer), _expanded(of_reference, reference)
            return _is_match(first, second, context, depth)
        bare = of_answer or of_reference
        return False if bare is not None and not bare.opening and not _is_listable(answer, reference) else None
    if (
        of_answer.opening
        and of_reference.opening
        and (of_answer.opening, of_answer.closing)
        != (
            of_reference.opening,
            of_reference.closing,
        )
    ):
        has_set = "{" in (of_answer.opening, of_reference.opening)
        return None if has_set and len(of_answer.parts) == len(of_reference.parts) else False
    first, second = _expanded(of_answer, answer), _expanded(of_reference, reference)
    if not of_answer.is_ordered and not of_reference.is_ordered:
        first, second = _distinct(first), _distinct(second)
    if len(first) != len(second):
        return False
    if of_answer.is_ordered or of_reference.is_ordered:
        return all(_equal(a, b, context, depth + 1) for a, b in zip(first, second, strict=True))
    return _is_match(first, second, context, depth)


def _is_vector(rows: list[list[str]]) -> bool:
    return len(rows) == 1 or all(len(row) == 1 for row in rows)


def _is_listable(answer: str, reference: str) -> bool:
    """Whether a single formula could still stand for a list: a range, a union, a relation."""
    return any(_RELATION.search(text) or "\\cup" in text or "\\in" in text for text in (answer, reference))


def _is_match(first: list[str], second: list[str], context: Context, depth: int) -> bool:
    """Whether the parts can be paired so that all pairs are equal. Equality is taken to be transitive."""
    if len(first) != len(second) or len(first) > MAX_PARTS:
        return False
    missing = list(second)
    unsure: list[str] = []
    for part in first:  # equal text and equal numbers first: they cost nothing
        twin = next((index for index, other in enumerate(missing) if _squeezed(part) == _squeezed(other)), None)
        if twin is None:
            unsure.append(part)
        else:
            del missing[twin]
    for part in unsure:
        twin = next((index for index, other in enumerate(missing) if _equal(part, other, context, depth + 1)), None)
        if twin is None:
            return False
        del missing[twin]
    return True


def _distinct(parts: list[str]) -> list[str]:
    """The parts without repetitions: 1, 1, 2 is the set of 1 and 2."""
    return list({_squeezed(part): part for part in parts}.values())


def _expanded(parts: Parts | None, text: str) -> list[str]:
    r"""The parts, each with one `\pm` as two."""
    expanded: list[str] = []
    for part in [text] if parts is None else parts.parts:
        if len(_PLUS_MINUS.findall(part)) == 1:
            name, value = _named(part)
            expanded += [undelimited(_PLUS_MINUS.sub(sign, value if name else part)) for sign in (" + ", " - ")]
        else:
            expanded.append(part)
    return [part.removeprefix("+ ") for part in expanded]
