"""Text and numbers from runs, made fit for every database."""

import math
from typing import Any


def clean_text(text: str, max_characters: int | None = None) -> str:
    """The text without what PostgreSQL or UTF-8 cannot hold: NUL characters and lone surrogates become U+FFFD."""
    if max_characters is not None:
        text = text[:max_characters]
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        text = "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
    return text


def finite_or_none(value: float | None) -> float | None:
    """The number, or None where it is NaN or infinite: JSON has no such numbers."""
    return None if value is None or not math.isfinite(value) else float(value)


def clean_json(value: Any) -> Any:
    """A JSON value with every text made fit by `clean_text`, and null in place of numbers that are not finite."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, float):
        return finite_or_none(value)
    if isinstance(value, dict):
        return {clean_text(str(key)): clean_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clean_json(item) for item in value]
    return value
