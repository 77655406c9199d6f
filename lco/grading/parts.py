"""An answer taken apart by its own punctuation: lists, tuples, intervals, sets, matrices, equations. No torch."""

import re
from dataclasses import dataclass

from lco.grading.latex import closes_at_end, undelimited

_SEPARATOR = re.compile(
    r",?\s*\\text\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}|,?(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|[,;]|\\text\s*\{\s*[,;]\s*\}"
)
_SPACED_COMMA = re.compile(r",(?=\s)")
_OPENING, _CLOSING = "([{", ")]}"
_MATRIX = re.compile(
    r"^\\begin\s*\{(?P<kind>[pbB]?matrix|smallmatrix|array)\}(?:\{[lcr| ]*\})?(?P<body>.*)\\end\s*\{(?P=kind)\}$",
    re.DOTALL,
)
_EQUALS = re.compile(r"(?<![<>!\\:=])=(?!=)")


@dataclass(frozen=True, slots=True)
class Parts:
    """An answer of several parts."""

    opening: str
    """`(`, `[`, `{`, or empty for a bare list."""
    closing: str
    parts: list[str]

    @property
    def is_ordered(self) -> bool:
        """Whether the order of the parts matters."""
        return self.opening in ("(", "[")


def sides_of(text: str) -> list[str]:
    """The sides of the equals signs that are in no bracket."""
    depths = _depths(text)
    sides, start = [], 0
    for match in _EQUALS.finditer(text):
        if depths[match.start()] == 0:
            sides.append(text[start : match.start()])
            start = match.end()
    return [*sides, text[start:]]


def is_separated(text: str) -> bool:
    """Whether there is more than one part outside of brackets."""
    return len(split(text)) > 1


def parts_of(text: str) -> Parts | None:
    r"""The parts of `(a, b)`, `[a, b)`, `\{a, b\}`, `\langle a, b\rangle` or `a, b`; None where there are none."""
    text = re.sub(r"\\langle(?![A-Za-z])", "(", re.sub(r"\\rangle(?![A-Za-z])", ")", text)).strip()
    text = text.replace(r"\{", "{").replace(r"\}", "}") if text.startswith(r"\{") else text
    if text[:1] in tuple(_OPENING) and text[-1:] in tuple(_CLOSING) and _encloses(text):
        parts = split(text[1:-1])
        if len(parts) > 1 or text[0] == "{":
            return Parts(text[0], text[-1], parts)
        if text[0] == "(" and closes_at_end(text) and (inner := parts_of(text[1:-1])):
            return inner
        return None
    parts = split(text)
    return Parts("", "", parts) if len(parts) > 1 else None


def _encloses(text: str) -> bool:
    """Whether the first bracket stays open to the last character, whatever kind closes it, as in `[0, 1)`."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character in _OPENING) - (character in _CLOSING)
        if depth == 0:
            return position == len(text) - 1
    return False


def split(text: str) -> list[str]:
    """The parts between separators that are in no bracket; commas without a space join thousands where others part."""
    cuts: list[tuple[int, int]] = []
    depths = _depths(text)
    for match in _SEPARATOR.finditer(text):
        if depths[match.start()] == 0:
            cuts.append(match.span())
    commas = [span for span in cuts if text[span[0] : span[1]] == ","]
    spaced = [span for span in commas if _SPACED_COMMA.match(text, span[0])]
    if spaced and len(spaced) < len(commas):
        is_thousands = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
        cuts = [span for span in cuts if span not in commas or span in spaced or not is_thousands.match(text, span[0])]
    pieces = []
    start = 0
    for begin, end in [*cuts, (len(text), len(text))]:
        if piece := undelimited(text[start:begin]):
            pieces.append(piece)
        start = end
    return pieces


def _depths(text: str) -> list[int]:
    """How many brackets are open at each position."""
    depths = []
    depth = 0
    for character in text:
        if character in _CLOSING:
            depth = max(0, depth - 1)
        depths.append(depth)
        if character in _OPENING:
            depth += 1
    return depths


def unions_of(text: str) -> list[str]:
    """The sets of a union; the text alone where there is none."""
    return [undelimited(part) for part in re.split(r"\\cup(?![A-Za-z])", text)]


def matrix_of(text: str) -> list[list[str]] | None:
    """The cells of a matrix, rows first; None where the text is none."""
    while text[:1] in ("(", "[") and closes_at_end(text):
        text = text[1:-1].strip()
    match = _MATRIX.match(text)
    if match is None or r"\begin" in match["body"]:
        return None
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", match["body"]) if row.strip()]
    return [[cell.strip() for cell in row.replace(r"\hline", "").split("&")] for row in rows]
