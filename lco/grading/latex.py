r"""Final answers in one spelling: delimiters, spacing, Unicode, commands of equal meaning. No torch.

What is written in many ways and means one thing becomes one thing: `\dfrac12`, `½` and `\frac{1}{2}`; `$5$`, `5.` and
`\(5\)`; `90^\circ`, `90°` and `90^{\circ}`. Nothing here decides whether two answers are equal.
"""

import re

_UNICODE = {
    **dict.fromkeys("−–—‒﹣－", "-"),
    **dict.fromkeys("⋅·∙•", r"\cdot "),
    **dict.fromkeys("×✕", r"\times "),
    **dict.fromkeys("∕⁄", "/"),
    **dict.fromkeys("\u00a0\u2002\u2003\u2009\u200a\u202f\u3000", " "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", ""),
    **dict.fromkeys("‘’′", "'"),
    **dict.fromkeys("“”″", '"'),
    "÷": "/",
    "π": r"\pi ",
    "∞": r"\infty ",
    "°": r"^\circ ",
    "º": r"^\circ ",
    "≤": r"\le ",
    "⩽": r"\le ",
    "≥": r"\ge ",
    "⩾": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "±": r"\pm ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "∅": r"\emptyset ",
    "∠": r"\angle ",
    "△": r"\triangle ",
    "θ": r"\theta ",
    "α": r"\alpha ",
    "β": r"\beta ",
    "λ": r"\lambda ",
    "μ": r"\mu ",
    "ω": r"\omega ",
    "％": "%",
    "，": ",",
    "：": ":",
    "（": "(",
    "）": ")",
    "。": ".",
    "＝": "=",
}
_VULGAR = {
    "½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5",
    "⅙": "1/6", "⅚": "5/6", "⅐": "1/7", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8", "⅑": "1/9", "⅒": "1/10",
}  # fmt: skip
_UNICODE |= {sign: r"\frac{{{}}}{{{}}}".format(*value.split("/")) for sign, value in _VULGAR.items()}
_TABLE = str.maketrans(_UNICODE)

_SUPERSCRIPTS = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_FROM_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_SUBSCRIPTS = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_FROM_SUBSCRIPT = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+|[A-Za-z]))")

_RULES: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:left|right|bigl|bigr|Bigl|Bigr|biggl|biggr|big|Big|bigg|Bigg|middle)(?![A-Za-z])\s*\.?", ""),
        (r"\\(?:displaystyle|textstyle|limits|nolimits|mathstrut|strut)(?![A-Za-z])", ""),
        (r"(?<=\d)\s*,?\s*\\!\s*,?\s*(?=\d{3}(?!\d))", ""),  # 11,\!111
        (r"\\!\s*", ""),
        (r"(?<=\d)(?:\{,\}|\{,\}\s|\\,|\{\\,\}|,\\,|\\:|\\;)(?=\d{3}(?!\d))", ""),  # 10{,}000 and 10\,000
        (r"\{,\}", ","),
        (r"(?<=\d)\{\.\}(?=\d)", "."),
        (r"(?<=[A-Za-z])([_^])\s*\{\s*\\(?:text|mathrm|rm)\s*\{\s*([A-Za-z0-9]+)\s*\}\s*\}", r"\1{\2}"),
        (r"\\(?:[,;:>]|(?:quad|qquad|enspace|thinspace|hfill)(?![A-Za-z]))|~|(?<!\\)\\(?=\s)", " "),
        (r"\\(?:phantom|hspace|vspace)\*?\{[^{}]*\}", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\(?:textbf|textit|textrm|textnormal|textsf|texttt|mathbf|mathrm|mathit|mathsf|mbox|hbox|bf|rm)\s*(?=\{)",
         r"\\text"),
        (r"\{\s*\\(?:bf|rm|it)\s+([^{}]*)\}", r"\\text{\1}"),
        (r"\\(?:bm|boldsymbol|operatorname\*?)\s*\{([^{}]*)\}", r"\\text{\1}"),
        (r"\\text\s*\{\s*\}", ""),
        (r"\\(?:geqslant|geq)(?![A-Za-z])", r"\\ge "),
        (r"\\(?:leqslant|leq)(?![A-Za-z])", r"\\le "),
        (r"\\neq(?![A-Za-z])", r"\\ne "),
        (r"\\varnothing(?![A-Za-z])|\\\{\s*\\\}", r"\\emptyset "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\(?:dots|ldots|cdots|dotsc|dotsb)(?![A-Za-z])", r"\\dots "),
        (r"\\(?:land|wedge)(?![A-Za-z])", r"\\text{ and }"),
        (r"\\lor(?![A-Za-z])", r"\\text{ or }"),
        (r"\\(?:lbrace)(?![A-Za-z])", r"\\{"),
        (r"\\(?:rbrace)(?![A-Za-z])", r"\\}"),
        (r"\\(?:lbrack)(?![A-Za-z])", "["),
        (r"\\(?:rbrack)(?![A-Za-z])", "]"),
        (r"\\(?:lvert|rvert|vert|mid)(?![A-Za-z])", "|"),
        (r"\\imath(?![A-Za-z])", "i"),
        (r"(?<![A-Za-z\\.])np\.(?=[a-z])", r"\\"),
        (r"\\exp\s*\{([^{}]*)\}", r"\\exp(\1)"),
        (r"\\text\s*\{\s*(i|e|d|[-+]?[\d.,/]*\d)\s*\}", r"\1"),
        (r"\\text\s*\{\s*(?:percent|percentage|pct)\s*\}", "%"),
        (r"\\%|(?<=[\d})])\s*(?:per\s?cent(?:age)?|pct)(?![A-Za-z])\.?", "%"),
        (r"\{?\s*\}?\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|\\degrees?(?![A-Za-z])", "°"),
        (r"\\text\s*\{\s*degrees?\s*\}|(?<=[\d})])\s*degrees?(?![A-Za-z])", "°"),
        (r"\\(?:dollar|pounds|euro|yen)(?![A-Za-z])|\\[$£€]|[€£¥₹₽₩]", ""),
        (r"\\frac\s*(\d)\s*(\d)(?!\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*(?=[A-Za-z{\\])", r"\\frac{\1}"),
        (r"(\\frac\s*\{[^{}]*\})\s*(\d|[A-Za-z])", r"\1{\2}"),
        (r"\\sqrt\s*(\d|[A-Za-z])", r"\\sqrt{\1}"),
        (r"([_^])\s*\{\s*([A-Za-z0-9])\s*\}", r"\1\2"),
        (r"\+\s*\\infty", r"\\infty"),
        (r"(?<![A-Za-z\\])(?:infinity|infty|inf)(?![A-Za-z])", r"\\infty"),
        (r"\s+", " "),
        (r"(?<![\d.,] )(?<![\d.,])(\d{1,3}) (\d{3})(?: (\d{3}))?(?: (\d{3}))?(?![\d.]| \d)", r"\1\2\3\4"),  # 10 000
    )
]  # fmt: skip
_REPEATING = re.compile(r"(?<![\d.])(\d{0,20})\.(\d{0,20})\\(?:overline|bar)\s*\{(\d{1,20})\}")
_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\[", r"\]"), (r"\(", r"\)"), ("**", "**"), ("`", "`"), ('"', '"'))
_DOUBLED = re.compile(r"\\\\(?=[A-Za-z]{2,})")
_TRAILING = " \t\n\r.,;:"


def clean(answer: str) -> str:
    r"""An answer in the one spelling, trimmed, without delimiters, sizes and final punctuation.

    `\text{...}` stays, in this one form; so do words and units. Linear in the answer's length up to a small factor.
    """
    text = answer.translate(_TABLE)
    text = _SUPERSCRIPTS.sub(lambda match: f"^{{{match[0].translate(_FROM_SUPERSCRIPT)}}}", text)
    text = _SUBSCRIPTS.sub(lambda match: f"_{{{match[0].translate(_FROM_SUBSCRIPT)}}}", text)
    text = _ROOT.sub(lambda match: rf"\sqrt{{{match[1] or match[2] or match[3] or ''}}}", text)
    if r"\begin" not in text:
        text = _DOUBLED.sub(r"\\", text)  # JSON that was escaped twice
    text = undelimited(text)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return undelimited(_REPEATING.sub(_repeating, text).replace("$", " "))


def _repeating(match: re.Match[str]) -> str:
    r"""The fraction of a repeating decimal, `0.1\overline{6}`."""
    whole, fixed, repeated = match.groups()
    denominator = int("9" * len(repeated)) * 10 ** len(fixed)
    numerator = int((whole + fixed + repeated) or 0) - int((whole + fixed) or 0)
    return rf"\frac{{{numerator}}}{{{denominator}}}"


def undelimited(text: str) -> str:
    r"""The text without white space, final punctuation, `$...$`, `\(...\)`, `**...**` or braces around all of it."""
    while True:
        before = text
        text = text.strip()
        if text.endswith("\\.") or not text.endswith((r"\,", r"\;", r"\:")):
            text = text.rstrip(_TRAILING)
        for opening, closing in _DELIMITERS:
            if (
                text.startswith(opening)
                and text.endswith(closing)
                and len(text) >= len(opening) + len(closing)
                and opening not in (inner := text[len(opening) : len(text) - len(closing)])
                and closing not in inner
            ):
                text = inner
        if text.startswith("{") and closes_at_end(text):
            text = text[1:-1]
        text = text.removesuffix("$") if text.count("$") == 1 else text
        text = text.removeprefix("$") if text.count("$") == 1 else text
        if text == before:
            return text


def closes_at_end(text: str) -> bool:
    """Whether the bracket that the text begins with is closed by the text's last character."""
    closing = {"{": "}", "(": ")", "[": "]"}[text[0]]
    depth = 0
    for position, character in enumerate(text):
        if position and text[position - 1] == "\\" and character in "{}":
            continue
        if character == text[0]:
            depth += 1
        elif character == closing:
            depth -= 1
            if depth == 0:
                return position == len(text) - 1
    return False


def is_balanced(text: str) -> bool:
    r"""Whether every brace that is no `\{` or `\}` is closed in order."""
    depth = 0
    is_escaped = False
    for character in text:
        if is_escaped:
            is_escaped = False
        elif character == "\\":
            is_escaped = True
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth < 0:
                return False
    return depth == 0
