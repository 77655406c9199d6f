r"""The final answer of a completion, as it is written there. No torch.

- `boxed`: the contents of the last `\boxed{...}`; or of a line that declares the final answer ("The final answer is
  ...", "Final Answer: ...") where it comes after the last box. Without any of them, a line `#### N`, "Answer: ..." or
  "the answer is ...". Nothing else: a text without them has no answer.
- `any`: that, else the last formula between delimiters or the last number of the text, whichever ends later; of a text
  that is a bare answer, all of it. Neighbouring boxes joined by commas or "and" are one list.
- `last-equals`: what stands after the last `=`.
- `final-number`: the last box, else the number of a line `#### N`, else the last number.
"""

import re

MAX_BOX_CHARACTERS = 1 << 16
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)|\\boxed\s+(?=[^\s{])")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_NUMBER_IN_TEXT = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")

_STRONG = re.compile(
    r"final\s+answer(?:\*\*|__)?\s*(?:is|:|=)?(?:\*\*|__)?|final\s+answer[^\n.:]{1,80}?\sis(?![A-Za-z])", re.IGNORECASE
)
_WEAK = re.compile(
    r"(?<![A-Za-z])answer(?:\*\*|__)?\s*(?:is|:|=)(?:\*\*|__)?(?![A-Za-z])|(?<![A-Za-z])answer\s[^\n.:]{1,60}?\sis(?![A-Za-z])"
    r"|^[ \t]*####(?!#)",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE_END = re.compile(
    r"\n|[.!?](?=\s+[A-Z\"'(\\$]|\s*$|\s*<)|<\||</|\.?\s*I\s+hope\s+it\s+is\s+correct"
    r"|,?\s+(?:because|since|which|where|so\s+that|as\s+we|as\s+required|when|if\s+we|given\s+that|I\s+hope)\s",
    re.IGNORECASE,
)
_FORMULA = re.compile(
    r"\$\$(?P<a>(?:[^$\\]|\\.){1,4096}?)\$\$|(?<!\\)\$(?P<b>(?:[^$\\\n]|\\.){1,4096}?)\$"
    r"|\\\[(?P<c>(?:[^\\]|\\[^\[\]]){1,4096}?)\\\]|\\\((?P<d>(?:[^\\]|\\[^()]){1,4096}?)\\\)",
    re.DOTALL,
)
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.,^{+\-/|])(?<!(?<!\*)\*)[-+−]?(?:[$€£¥]\s?)?[-+−]?(?:\d{1,3}(?:,\d{3})+(?!,?\d)|\d+)?(?:\.\d+|(?<=\d))(?:[eE][-+]?\d+)?"
    r"(?:\s?(?:\*|×|x)\s?10\s?(?:\^|\*\*)\s?[({]?[-+]?\d+[)}]?)?(?:\s?/\s?\d+(?:\.\d+)?)?"
    r"(?:\s*(?:%|percent|percentage|pct|°))?(?![\d])"
)
_CALCULATION = re.compile(r"(?<![A-Za-z0-9_.+\-/|^])(?<!(?<!\*)\*)[-(]{0,3}\d[\d\s.+\-*/^()]{0,200}[\d)]")
_FRACTION = re.compile(r"-?\\[dt]?frac\s*\{[^{}]{1,80}\}\s*\{[^{}]{1,80}\}")
_CONNECTOR = re.compile(r"(?:\s|[$,;.&]|\\[\](),;!\[]|\\quad|\\qquad|\\text\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}|and|or)*")
_PROSE = re.compile(r"(?<![\\A-Za-z{])(?:[A-Za-z]{3,}|so|So|is|Is|it|It|we|We|to|of|by|he|He|at)(?![A-Za-z(}])")
_STEP = re.compile(r"(?:\$\$|\\\[)[^=]*[-+*/^\d}][^=]*=.*[.,]\s*(?:\$\$|\\\])", re.DOTALL)
"""A displayed calculation that ends its sentence inside the display, `$$2 + 3 = 5.$$`: a step on the way."""
_IS = re.compile(r"(?<![A-Za-z])(?:is|are|equals|was|be|=)(?![A-Za-z=])", re.IGNORECASE)
_BREAK = re.compile(r"^(?:\*\*|__|\\?\"|[\s:=`>])*")
MAX_DECLARED_CHARACTERS = 4096
WINDOW_CHARACTERS = 1 << 16
"""Of a long text without a box, only so much of the end is searched."""


def extract_last_equals(completion: str) -> str | None:
    """What stands after the last `=`: the answer of a chain of sums."""
    _, separator, answer = completion.rpartition("=")
    return answer.strip() or None if separator else None


def extract_boxed(completion: str) -> str | None:
    r"""The contents of the last `\boxed{...}` or `\fbox{...}`, braces matched; None if missing, open or empty."""
    box = _last_box(completion)
    return box[2] if box is not None else None


def extract_final_number(completion: str) -> str | None:
    """The last number of the text; that of a last line `#### N` or of the last box where there is one."""
    boxed = extract_boxed(completion)
    if boxed is not None:
        return boxed
    _, mark, after = completion.rpartition("####")
    if mark and (marked := _NUMBER_IN_TEXT.search(after)):
        return marked[0]
    last = None
    for last in _NUMBER_IN_TEXT.finditer(completion):  # noqa: B007
        pass
    return last[0] if last is not None else None


def extract_final_answer(completion: str) -> str | None:
    """The last box or the declared final answer, whichever comes last (the extraction `boxed`)."""
    _, mark, said = completion.rpartition("</think>")
    if mark and (answer := extract_final_answer(said)) is not None:
        return answer
    box = _last_box(completion)
    start = max(len(completion) - WINDOW_CHARACTERS, 0)
    tail = completion[start:]
    declared = _declared(_STRONG, tail)
    if box is not None and (declared is None or start + declared[0] < box[0]):
        return box[2]
    if declared is None:
        declared = _declared(_WEAK, tail)
    return declared[1] if declared is not None else None


def extract_any(completion: str) -> str | None:
    """The last answer pattern of the text (the extraction `any`)."""
    answer = extract_final_answer(completion)
    if answer is not None:
        boxes = joined_boxes(completion)
        return ", ".join(boxes) if boxes and answer == boxes[-1] else answer
    tail = completion[-WINDOW_CHARACTERS:].strip()
    if len(tail) <= 512 and "\n" not in tail and _is_bare(tail):
        return tail or None
    return _last_pattern(tail)


EXTRACTIONS = {
    "last-equals": extract_last_equals,
    "boxed": extract_final_answer,
    "final-number": extract_final_number,
    "any": extract_any,
}


def _last_box(text: str) -> tuple[int, int, str | None] | None:
    """Start, end and contents of the last box; no contents where it is open or empty. None where there is no box."""
    position = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    match = _BOX.match(text, position) if position >= 0 else None
    if match is None:
        return None
    if text[match.end()] != "{":
        token = re.match(r"[^\s$.,;\\]+", text[match.end() : match.end() + 64])
        return (position, match.end() + token.end(), token[0]) if token else (position, match.end(), None)
    end = _closing_brace(text, match.end())
    if end is None:
        return position, len(text), None
    return position, end + 1, text[match.end() + 1 : end].strip() or None


def _closing_brace(text: str, opening: int) -> int | None:
    depth = 0
    for match in _BRACE.finditer(text, opening, opening + MAX_BOX_CHARACTERS):
        if match[0] == "{":
            depth += 1
        elif match[0] == "}":
            depth -= 1
            if depth == 0:
                return match.start()
    return None


def joined_boxes(text: str) -> list[str]:
    """The contents of the last boxes of a text between which only commas, "and" and the like stand, in their order."""
    found: list[str] = []
    last = _last_box(text)
    while last is not None and last[2] is not None and len(found) < 16:
        if found and last[2] == found[0]:
            break
        found.insert(0, last[2])
        head = text[: last[0]]
        previous = _last_box(head[-WINDOW_CHARACTERS:])
        if previous is None:
            break
        offset = max(0, len(head) - WINDOW_CHARACTERS)
        between = head[offset + previous[1] :]
        if len(between) > 60 or _CONNECTOR.fullmatch(between) is None:
            break
        text, last = head, (offset + previous[0], offset + previous[1], previous[2])
    return found


def _declared(anchor: re.Pattern[str], text: str) -> tuple[int, str] | None:
    """Position and answer of the last line that declares one."""
    matches = list(anchor.finditer(text))[-32:]
    for match in reversed(matches):
        if text[match.start() : match.end()].lstrip().startswith("#"):
            payload = text[match.end() : match.end() + 200].split("\n", 1)[0].strip()
            if payload and (_NUMBER.match(payload.lstrip("$ ")) or payload.startswith("\\")):
                return match.start(), payload
            continue
        answer = _payload(text[match.end() : match.end() + MAX_DECLARED_CHARACTERS + 200])
        if answer is not None:
            return match.start(), answer
    return None


def _payload(text: str) -> str | None:
    """The answer that the words after "answer is" begin with; None where there is none to see."""
    text = _BREAK.sub("", text, count=1)
    if (box := _BOX.match(text)) or text.startswith(("$\\boxed", "$$\\boxed", "\\(\\boxed", "\\[\\boxed")):
        box = box or _BOX.search(text)
        closing = _closing_brace(text, box.end()) if box and text[box.end()] == "{" else None
        return (text[box.end() + 1 : closing].strip() or None) if box and closing is not None else None
    masked = _FORMULA.sub(lambda match: "x" * len(match[0]), text)
    end = _SENTENCE_END.search(masked)
    sentence, masked = (text[: end.start()], masked[: end.start()]) if end else (text, masked)
    formulas = list(_FORMULA.finditer(sentence))
    if formulas and not formulas[0].start():
        return _with_rest(sentence, formulas)
    last_is = None
    for last_is in _IS.finditer(masked):  # noqa: B007
        pass
    if last_is is not None and (inner := sentence[last_is.end() :].strip(" *`:")):
        formulas = list(_FORMULA.finditer(inner))
        sentence = (_with_rest(inner, formulas) or "") if formulas and not formulas[0].start() else inner
    sentence = sentence.strip(" *`_\t")
    if not sentence or len(sentence) > MAX_DECLARED_CHARACTERS:
        return None
    has_sign = any(character.isdigit() or character in "\\$^=" for character in sentence)
    return sentence if has_sign or len(sentence.split()) <= 6 else None


def _with_rest(sentence: str, formulas: list[re.Match[str]]) -> str | None:
    """The formulas that a sentence begins with, and the unit after the last of them."""
    parts = [_inside(formulas[0])]
    end = formulas[0].end()
    for formula in formulas[1:]:
        if _CONNECTOR.fullmatch(sentence[end : formula.start()]) is None:
            break
        parts.append(_inside(formula))
        end = formula.end()
    rest = sentence[end:].strip(' *`.,"\\')
    unit = re.match(r"(?:\\?%|[A-Za-z°/^\d ]{1,40}$)", rest)
    joined = ", ".join(parts)
    if unit and len(parts) == 1 and len(rest.split()) <= 3:
        return f"{joined} {rest}"
    return joined.strip() or None


def _inside(formula: re.Match[str]) -> str:
    return next(group for group in formula.groups() if group is not None).strip()


def _is_bare(text: str) -> bool:
    """Whether a text is one bare answer, not a sentence that has one somewhere."""
    if any(character > "\u02ff" and character.isalpha() and not "α" <= character <= "ω" for character in text):
        return False  # words of another script
    outside = _FORMULA.sub("", text)
    if outside != text:
        return not outside.strip(" .,")
    return _PROSE.search(re.sub(r"\\text\s*\{[^{}]*\}|(?:sqrt|percent|sin|cos|tan|log|exp)", " ", text)) is None


def _last_pattern(text: str) -> str | None:
    """The last formula, calculation or number of a text, whichever ends last; of those, the one that begins first."""
    best: tuple[int, int, str] | None = None
    formulas = [formula for formula in _FORMULA.finditer(text) if _STEP.fullmatch(formula[0]) is None]
    if formulas:
        last = formulas[-1]
        first = len(formulas) - 1
        while first and len(formulas) - first < 16:
            between = text[formulas[first - 1].end() : formulas[first].start()]
            if not re.search(r"and|or|,", between) or _CONNECTOR.fullmatch(between) is None:
                break
            first -= 1
        answer = ", ".join(_inside(formula) for formula in formulas[first:])
        percent = re.match(r"\s*(?:\\?%|percent(?:age)?|pct)", text[last.end() :])
        best = (last.end() + (percent.end() if percent else 0), -last.start(), answer + (" %" if percent else ""))
    outside = text[formulas[-1].end() :] if formulas else text
    offset = len(text) - len(outside)
    for pattern in (_NUMBER, _CALCULATION, _FRACTION):
        last_match = None
        for match in pattern.finditer(outside):
            if match[0].strip():
                last_match = match
        if last_match is not None:
            found = (offset + last_match.end(), -offset - last_match.start(), last_match[0].strip())
            best = found if best is None or found[:2] > best[:2] else best
    return best[2] if best is not None else None
