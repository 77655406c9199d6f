"""One signed POST to a webhook's address: checked when it is connected to, bounded in time and size, not redirected."""

import base64
import hashlib
import hmac
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache, partial

import httpcore2
import httpx2

from evaluation.transport import CheckedBackend, ForbiddenAddress, check_address
from store.deliveries import Answer
from store.egress import is_public, webhook_origin

SECONDS = 15.0
"""A whole exchange, from the connection to the last byte that is read."""
_READ_BYTES = 4096
"""Of an answer's body; what follows is left unread."""


def signed_headers(message_id: str, moment: int, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    """The headers of Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`, with each secret.

    Args:
        moment: seconds since the epoch.
        secrets: `whsec_` and base64.
    """
    content = f"{message_id}.{moment}.".encode() + body
    keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets]
    signatures = [base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode() for key in keys]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(moment),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def post(
    url: str,
    headers: dict[str, str],
    body: bytes,
    listed_origins: frozenset[str],
    *,
    seconds: float = SECONDS,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Sends a body; whatever happens is an answer, of which all but 2xx are failures.

    Args:
        listed_origins: may lie on private addresses and speak plain http.
        tls: whom to trust; None for the system's authorities.
    """
    started = time.monotonic()
    try:
        answer = _exchange(url, headers, body, _address_check(url, listed_origins), seconds, tls or _authorities())
    except ForbiddenAddress as error:
        answer = Answer(error=str(error))
    except httpcore2.TimeoutException:
        answer = Answer(error=f"no answer within {seconds:g} s")
    except httpcore2.ConnectError as error:
        is_tls = isinstance(error.__cause__ or error.__context__, ssl.SSLError)
        answer = Answer(error="the certificate is not trusted" if is_tls else "it cannot be connected to")
    except (httpcore2.NetworkError, httpcore2.ProtocolError, UnicodeError, ValueError):
        answer = Answer(error="the connection broke")
    return Answer(
        error=answer.error,
        code=answer.code,
        body=answer.body,
        retry_after_seconds=answer.retry_after_seconds,
        is_gone=answer.is_gone,
        duration_milliseconds=round((time.monotonic() - started) * 1000),
    )


def _address_check(url: str, listed_origins: frozenset[str]) -> Callable[[str], None]:
    is_plain = url.startswith("http://")
    if webhook_origin(url) in listed_origins:
        return partial(check_address, is_plain=is_plain)
    if is_plain:
        raise ForbiddenAddress("plain http goes only where LCO_WEBHOOK_ORIGINS lists the origin")
    return _check_public


def _check_public(address: str) -> None:
    if not is_public(address):
        raise ForbiddenAddress("the host resolves to an address that is not public, and LCO_WEBHOOK_ORIGINS lists not")


def _exchange(
    url: str,
    headers: dict[str, str],
    body: bytes,
    check: Callable[[str], None],
    seconds: float,
    tls: ssl.SSLContext,
) -> Answer:
    deadline = threading.local()
    deadline.at = time.monotonic() + seconds
    parts = httpx2.URL(url)
    request = httpcore2.Request(
        method="POST",
        url=httpcore2.URL(scheme=parts.raw_scheme, host=parts.raw_host, port=parts.port, target=parts.raw_path),
        headers=[
            ("host", parts.netloc.decode("ascii")),
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("user-agent", "lco-webhooks/1"),
            ("accept-encoding", "identity"),
            ("connection", "close"),
            *headers.items(),
        ],
        content=body,
    )
    with httpcore2.ConnectionPool(ssl_context=tls, network_backend=CheckedBackend(deadline, check)) as pool:
        reply = pool.handle_request(request)
        try:
            text = _start_of(reply)
        finally:
            reply.close()
    retry_after = next((value for name, value in reply.headers if name.lower() == b"retry-after"), b"")
    is_success = 200 <= reply.status < 300
    return Answer(
        error="" if is_success else f"it answered {reply.status}",
        code=reply.status,
        body=text,
        retry_after_seconds=_wait_of(retry_after.decode("latin-1")),
        is_gone=reply.status == 410,
    )


def _start_of(reply: httpcore2.Response) -> str:
    """The first part of the body. The status alone decides: a body that breaks off is no failure."""
    found = b""
    assert isinstance(reply.stream, Iterable)
    try:
        for part in reply.stream:
            found += part
            if len(found) >= _READ_BYTES:
                break
    except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException):
        pass
    return found[:_READ_BYTES].decode("utf-8", "replace")


def _wait_of(text: str) -> float:
    """The seconds that a Retry-After asks for; 0 where it says nothing sensible."""
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return 0.0
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


@cache
def _authorities() -> ssl.SSLContext:
    return httpx2.create_ssl_context(trust_env=False)
