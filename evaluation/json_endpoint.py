"""JSON by POST to one server that the operator allowed: the transport of `endpoint.py`, without its chat. No torch."""

import json
import os
import random
import re
import threading
from collections.abc import Mapping
from typing import Any, Protocol

import httpx2

from evaluation.limits import Closed, EndpointFailure, EndpointRejected
from evaluation.transport import BadReply, ForbiddenAddress, Transport

_RETRIED = frozenset({408, 409, 425, 429})
_MAX_BACKOFF_SECONDS = 60.0


class ServerConfig(Protocol):
    """What is known of a server."""

    @property
    def url(self) -> str:
        """Where documents are sent."""

    @property
    def origin(self) -> str:
        """Scheme, host and port of it."""

    @property
    def api_key_variable(self) -> str:
        """Environment variable that holds the key; empty for none."""

    @property
    def max_concurrency(self) -> int:
        """Requests in flight at a time."""

    @property
    def timeout_seconds(self) -> float:
        """Time of one try."""

    @property
    def max_attempts(self) -> int:
        """Tries of one document."""

    @property
    def backoff_seconds(self) -> float:
        """Unit of the waits between tries."""

    @property
    def max_response_bytes(self) -> int:
        """Longest answer."""


class JsonEndpoint:
    """Sends documents to a server and reads its answers; safe to use from several threads."""

    def __init__(self, config: ServerConfig, *, environment: Mapping[str, str] = os.environ) -> None:
        """Opens no connection yet.

        Raises:
            ValueError: the environment holds no usable key where the configuration names one.
        """
        self._config = config
        self._host = config.origin.partition("://")[2]
        self._closed = threading.Event()
        header = None
        if config.api_key_variable:
            key = environment.get(config.api_key_variable, "").strip()
            if not re.fullmatch(r"[\x21-\x7e]+", key):
                raise ValueError(f"api_key_variable: the environment variable {config.api_key_variable} holds no key")
            header = ("authorization", f"Bearer {key}")
        self._client = httpx2.Client(
            transport=Transport(config, header), trust_env=False, follow_redirects=False, timeout=config.timeout_seconds
        )

    def close(self) -> None:
        """Ends waits between tries."""
        self._closed.set()
        self._client.close()

    def post(self, document: Any) -> Any:
        """The answer to a document.

        Raises:
            EndpointFailure: there is no usable one after the tries.
            EndpointRejected: the server refuses every document.
            Closed: `close` was called.
        """
        content = json.dumps(document, allow_nan=False).encode()
        for attempt in range(1, self._config.max_attempts + 1):
            try:
                response = self._client.post(
                    self._config.url, content=content, headers={"content-type": "application/json"}
                )
                status = response.status_code
                if status == 200:
                    return json.loads(response.content)
                reason = self._refusal(status)
            except BadReply as error:
                reason = error.reason
            except ForbiddenAddress as error:
                raise EndpointRejected(f"{self._host}: {error}") from None
            except (ValueError, RecursionError):
                reason = "garbage"
            except httpx2.TransportError:
                reason = "connection"
            wait = min(_MAX_BACKOFF_SECONDS, self._config.backoff_seconds * 2.0**attempt)
            if attempt == self._config.max_attempts:
                break
            if self._closed.wait(random.uniform(0, wait)):
                raise Closed
        raise EndpointFailure(reason, self._host)

    def _refusal(self, status: int) -> str:
        """Why there is no answer, where another try may have one. The server's text is not repeated."""
        if status >= 500 or status in _RETRIED:
            return f"http_{status}"
        if 300 <= status < 400:
            raise EndpointRejected(f"{self._host}: HTTP {status}: redirects are not followed; correct the address")
        if status in (401, 403, 404, 405):
            raise EndpointRejected(f"{self._host}: HTTP {status}: check key and address of the endpoint")
        raise EndpointFailure(f"rejected_{status}", self._host)
