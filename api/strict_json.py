"""The one JSON reader of the API: it refuses what standard parsers let through and databases or later readers choke on.

400: another encoding than UTF-8, a byte order mark, NaN and infinities (also `1e999`), duplicate keys, lone surrogates,
nesting deeper than 32, anything after the document. 422, naming the place: control characters in a string, integers of
more than 64 bits.
"""

import json
import math
import tomllib
from typing import Any

MAX_DEPTH = 32
MAX_INTEGER = 2**63 - 1
_LONGEST_INTEGER = 20  # characters of -2**63; longer ones are never converted, which is quadratic in their length
_CONTROLS = frozenset(chr(code) for code in range(32)) - set("\t\n\r")


class StrictJsonError(ValueError):
    """A body that is no acceptable JSON document.

    Attributes:
        status: 400 where the text itself is wrong, 422 where a value is.
        code: a short name of what is wrong.
        pointer: JSON Pointer (RFC 6901) of the value; empty for the whole document.
    """

    def __init__(self, status: int, code: str, message: str, pointer: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.pointer = pointer


class _TooLarge:
    """Stands for an integer that was not converted, until its place is known."""


def escape_pointer(part: object) -> str:
    """One reference token of a JSON Pointer."""
    return str(part).replace("~", "~0").replace("/", "~1")


def loads(body: bytes) -> Any:
    """The document in a request body.

    Raises:
        StrictJsonError: the body is refused; the message never repeats a value.
    """
    if body.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise StrictJsonError(400, "json_encoding", "the body starts with a byte order mark; send plain UTF-8")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise StrictJsonError(400, "json_encoding", "the body is not UTF-8") from None
    _check_depth(text)
    try:
        document = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
            object_pairs_hook=_unique,
        )
    except json.JSONDecodeError as error:
        message = f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise StrictJsonError(400, "json_syntax", message) from None
    _check_values(document)
    return document


def loads_toml(body: bytes) -> Any:
    """The document in a TOML body, under the same rules as JSON; dates have no JSON form and are refused."""
    try:
        document = tomllib.loads(body.decode("utf-8"))
        text = json.dumps(document, allow_nan=False)
    except UnicodeDecodeError:
        raise StrictJsonError(400, "toml_encoding", "the body is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise StrictJsonError(400, "toml_syntax", f"the body is not TOML: {_place(error)}") from None
    except (TypeError, ValueError, RecursionError):
        message = (
            "the document holds a date, a non-finite number, a number of thousands of digits, or too deep a nesting"
        )
        raise StrictJsonError(400, "toml_value", message) from None
    return loads(text.encode())


def _place(error: tomllib.TOMLDecodeError) -> str:
    """The position in a TOML error's message; the rest of the message may repeat a value."""
    text = str(error)
    start = text.rfind("(at ")
    return text[start + 1 : -1] if start >= 0 else "syntax error"


def _check_depth(text: str) -> None:
    """Refuses deep nesting before the recursive parser sees it."""
    depth = 0
    in_string = False
    skip = False
    for character in text:
        if skip:
            skip = False
        elif in_string:
            if character == "\\":
                skip = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise StrictJsonError(400, "json_depth", f"the document is nested deeper than {MAX_DEPTH}")
        elif character in "]}":
            depth -= 1


def _refuse_constant(name: str) -> None:
    raise StrictJsonError(400, "json_not_finite", f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise StrictJsonError(400, "json_not_finite", "a number is too large to be finite")
    return number


def _integer(text: str) -> int | _TooLarge:
    if len(text) > _LONGEST_INTEGER:
        return _TooLarge()
    number = int(text)
    return number if -MAX_INTEGER - 1 <= number <= MAX_INTEGER else _TooLarge()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise StrictJsonError(400, "json_duplicate_key", "an object has the same key twice")
    return document


def _check_values(document: Any) -> None:
    """Checks every string and integer, naming the place of a wrong one."""
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        pointer, value = waiting.pop()
        if isinstance(value, str):
            _check_text(value, pointer)
        elif isinstance(value, _TooLarge):
            raise StrictJsonError(422, "integer_out_of_range", "the integer has more than 64 bits", pointer)
        elif isinstance(value, dict):
            for key, member in value.items():
                _check_text(key, pointer)
                waiting.append((f"{pointer}/{escape_pointer(key)}", member))
        elif isinstance(value, list):
            waiting.extend((f"{pointer}/{position}", member) for position, member in enumerate(value))


def _check_text(text: str, pointer: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise StrictJsonError(400, "json_surrogate", "a string holds half of a surrogate pair") from None
    if not _CONTROLS.isdisjoint(text):
        raise StrictJsonError(422, "control_character", "the text holds a control character", pointer)
