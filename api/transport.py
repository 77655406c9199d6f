"""What both clients share: how a request is made, when it is tried again, how an error body becomes an exception."""

import json
import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from store.settings import Settings

RETRIED_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
MAX_TRIES = 6
_LONGEST_WAIT = 30.0


class ApiFailure(Exception):
    """The API refused a request, or did not answer.

    Attributes:
        status: HTTP status; 0 where there was no answer.
        code: short name of what went wrong.
        problem: the whole problem document (RFC 9457), empty where there was none.
    """

    def __init__(self, status: int, code: str, detail: str, problem: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.problem = dict(problem or {})


@dataclass(frozen=True, slots=True)
class Call:
    """One request; a POST carries one Idempotency-Key through all its tries."""

    method: str
    path: str
    query: dict[str, Any] = field(default_factory=dict)
    content: bytes | None = None
    media_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    """Further headers, such as `If-Match`."""
    idempotency_key: str = field(default_factory=lambda: str(uuid.uuid4()))

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of httpx's `request`."""
        headers = {**self.headers}
        if self.method == "POST":
            headers["Idempotency-Key"] = self.idempotency_key
        if self.content is not None:
            headers["Content-Type"] = self.media_type
        query = {name: value for name, value in self.query.items() if value is not None}
        return {
            "method": self.method,
            "url": self.path,
            "params": query,
            "headers": headers,
            "content": self.content,
        }


def connection(settings: Settings | None, url: str | None, key: str | None) -> tuple[str, str]:
    """Address and key: as given, else from the settings, else from the files that the API wrote to the data directory.

    Raises:
        ApiFailure: one of them is nowhere.
    """
    if not url or not key:
        settings = settings or Settings.from_environment()
        url = (
            url or settings.url or _read(settings.data_dir / "api-url", "no-address", "set LCO_URL, or start `lco up`")
        )
        key = key or settings.api_key or _read(settings.data_dir / "admin-key", "no-key", "set LCO_API_KEY")
    return url.rstrip("/"), key


def _read(path: Path, code: str, cure: str) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        raise ApiFailure(
            0, code, f"{path.absolute()} cannot be read; {cure}, or LCO_DATA_DIR to the directory of the platform"
        ) from None


def headers_of(key: str) -> dict[str, str]:
    """Headers of every request."""
    return {"Authorization": f"Bearer {key}", "User-Agent": "lco-client", "Accept": "application/json"}


def wait_seconds(tries: int, response: httpx2.Response | None) -> float:
    """How long to wait before the next try: what the server says, else exponentially longer, with jitter."""
    if response is not None:
        try:
            return min(float(response.headers.get("retry-after", "")), _LONGEST_WAIT)
        except ValueError:
            pass
    return min(0.2 * 2.0**tries, _LONGEST_WAIT) * (0.5 + random.random() / 2)


def is_retried(call: Call, response: httpx2.Response, tries: int) -> bool:
    """Whether an answer is worth another try. A POST is safe to repeat: its Idempotency-Key makes it happen once."""
    return response.status_code in RETRIED_STATUSES and tries + 1 < MAX_TRIES and call.method in {"GET", "POST"}


def document(response: httpx2.Response) -> Any:
    """The JSON of a successful answer.

    Raises:
        ApiFailure: the answer is an error, or no JSON.
    """
    if response.status_code >= 300:
        raise failure(response)
    try:
        return response.json()
    except json.JSONDecodeError:
        raise ApiFailure(
            response.status_code, "not_json", "the answer is no JSON; is this the API's address?"
        ) from None


def content(response: httpx2.Response) -> bytes:
    """The bytes of a successful answer.

    Raises:
        ApiFailure: the answer is an error.
    """
    if response.status_code >= 300:
        raise failure(response)
    return response.content


def failure(response: httpx2.Response) -> ApiFailure:
    """An error answer as an exception."""
    try:
        problem = response.json()
        return ApiFailure(response.status_code, str(problem["code"]), str(problem["detail"]), problem)
    except (json.JSONDecodeError, KeyError, TypeError):
        return ApiFailure(response.status_code, "http_error", f"the server answered {response.status_code}")


def unreachable(error: httpx2.TransportError, base_url: str) -> ApiFailure:
    """A connection that failed to the end."""
    return ApiFailure(0, "unreachable", f"{base_url} does not answer ({type(error).__name__})")


def body_of(document: Any) -> bytes:
    """A spec or a document as the bytes of a request."""
    if hasattr(document, "model_dump_json"):
        # Only what was stated: defaults are the server's, and `seed` inside a config may not be stated at all.
        return str(document.model_dump_json(exclude_unset=True)).encode()
    return json.dumps(document, allow_nan=False).encode()


STREAM_SILENCE_SECONDS = 45.0
"""Silence after which a stream counts as broken; the server says something every 15 seconds."""


def stream_arguments(headers: Mapping[str, str], after: str) -> dict[str, Any]:
    """The keyword arguments of httpx's `stream`."""
    more = {"Accept": "text/event-stream", **({"Last-Event-ID": after} if after else {})}
    return {"headers": {**headers, **more}, "timeout": httpx2.Timeout(10.0, read=STREAM_SILENCE_SECONDS)}


def check_stream(response: httpx2.Response) -> None:
    """Passes over an answer that may be another one later.

    Raises:
        ApiFailure: it will not be.
    """
    if response.status_code not in RETRIED_STATUSES:
        raise failure(response)


@dataclass(frozen=True, slots=True)
class Sent:
    """One event of a stream."""

    event: str
    """Its name."""
    id: str
    """Where a broken stream goes on after it; empty for events that are no part of the record."""
    data: str
    """JSON."""


class EventLines:
    """Puts the lines of an event stream together."""

    def __init__(self) -> None:
        self._fields: dict[str, list[str]] = {}

    def take(self, line: str) -> Sent | None:
        """The event that a line completes."""
        if line:
            name, _, value = line.partition(":")
            if name:  # else a comment, by which the server shows that it lives
                self._fields.setdefault(name, []).append(value.removeprefix(" "))
            return None
        fields, self._fields = self._fields, {}
        if "data" not in fields:
            return None
        last = {name: values[-1] for name, values in fields.items()}
        return Sent(last.get("event", "message"), last.get("id", ""), "\n".join(fields["data"]))
