"""The platform's own log: as text for a person or JSON lines for a collector, with what it is about, without secrets.

A line carries what its thread or request is bound to: `request_id`, `job_id`, `run_id`, `attempt`, `trace_id`.
"""

import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from urllib.parse import urlsplit

from store.settings import Settings

HIDDEN = "[hidden]"
_CONTEXT: ContextVar[Mapping[str, object]] = ContextVar("lco_log", default={})  # noqa: B039 - never changed in place
_SHAPES = re.compile(
    r"(?P<key>lco_(?:sk|se)_)[0-9A-Za-z]+[\w-]*"
    r"|(?P<scheme>\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+(?=@)"
    r"|(?P<bearer>\b[Bb]earer\s+)[^\s\"',]+"
)
_LEAST_SECRET = 6
"""Shorter values are not hidden: they would blot out ordinary words."""


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """What every line logged inside is about, beside what was bound outside."""
    token = _CONTEXT.set({**_CONTEXT.get(), **fields})
    try:
        yield
    finally:
        _CONTEXT.reset(token)


def context() -> Mapping[str, object]:
    """What lines logged now are about."""
    return _CONTEXT.get()


class Redaction:
    """Takes secrets out of texts: what has the shape of one, and the very values that this process was given."""

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        named = {name for names in settings.endpoint_keys.values() for name in names}
        values = {environment.get(name, "") for name in named} | {settings.api_key}
        values |= {urlsplit(url).password or "" for url in (settings.database_url, settings.broker_url)}
        known = sorted((value for value in values if len(value) >= _LEAST_SECRET), key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        return _SHAPES.sub(lambda match: f"{match['key'] or match['scheme'] or match['bearer']}{HIDDEN}", text)


class _Bind(logging.Filter):
    """Notes on each record what it is about, in the thread that logs it."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "lco"):
            record.lco = dict(_CONTEXT.get())
        return True


class TextFormatter(logging.Formatter):
    """A line for a person; what it is about stands at its end."""

    def __init__(self, redact: Redaction) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        fields = " ".join(f"{name}={value}" for name, value in getattr(record, "lco", {}).items())
        first, *more = super().format(record).split("\n")
        return self._redact("\n".join([f"{first}  [{fields}]" if fields else first, *more]))


class JsonFormatter(logging.Formatter):
    """A JSON object on one line: `time`, `level`, `logger`, `message`, what it is about, and `exception`."""

    def __init__(self, redact: Redaction) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        document: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._redact(record.getMessage()),
            **getattr(record, "lco", {}),
        }
        if record.exc_info:
            document["exception"] = self._redact(self.formatException(record.exc_info))
        return json.dumps(document, default=str)


def configure(settings: Settings, level: int = logging.WARNING, own: tuple[str, ...] = ()) -> None:
    """Sends the process's log to stderr in the form of the settings.

    Args:
        level: of every logger but our own.
        own: names of loggers that say what they do (`info`).
    """
    redact = Redaction(settings, os.environ)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(redact) if settings.log_format == "json" else TextFormatter(redact))
    handler.addFilter(_Bind())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in own:
        logging.getLogger(name).setLevel(logging.INFO)
