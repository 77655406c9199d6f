"""Pure ASGI middleware: request id, headers and metrics, Host allow-list, body cap, the last catch of exceptions.

Outermost first: `RequestContext`, `HostAllowList`, `BodyCap`. Nothing here looks at credentials: that is the root
router's dependency in `auth.py`.
"""

import logging
import re
import time
import uuid
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import RETRY_AFTER_SECONDS, ApiError, is_outage, make_problem, problem_response
from api.metrics import RequestMetrics
from store import logs
from store.tracing import current_traceparent, trace_id_of

logger = logging.getLogger("lco.api")

MAX_BODY_BYTES = 1 << 20
MAX_REQUESTS = 1000
"""Requests at a time, open streams among them; one more is refused."""
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods whose requests leave no line in the log where they are answered."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestContext:
    """Gives a request its id, its headers and its line in the metrics; turns an escaped exception into a problem."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self.app = app
        self.metrics = metrics
        self.num_requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope["lco.request_id"] = request_id
        started = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        traced = trace_id_of(current_traceparent())
        with logs.bound(request_id=request_id, **({"trace_id": traced} if traced else {})):
            self.num_requests += 1
            try:
                if self.num_requests > MAX_REQUESTS:
                    retry = {"Retry-After": str(RETRY_AFTER_SECONDS)}
                    raise ApiError(503, "overloaded", "too many requests at once", headers=retry)
                await self.app(scope, receive, send_with_headers)
            except Exception as error:
                if status:  # the response has begun: all that is left is to break the connection
                    raise
                await self._answer(error, scope, receive, send_with_headers)
            finally:
                self.num_requests -= 1
                self._observe(scope, status, time.perf_counter() - started)

    def _observe(self, scope: Scope, status: int, seconds: float) -> None:
        """Counts an answered request; one that may have changed something leaves a line in the log."""
        method = scope["method"]
        self.metrics.observe(method, getattr(scope.get("route"), "path", ""), status, seconds)
        if method not in _READING or status >= 500:
            path = quote(scope["path"][:500])  # as it was sent: no end of a line in it
            logger.info("%s %s: %d after %.0f ms", method, path, status, 1000 * seconds)

    async def _answer(self, error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers for an exception that no handler took."""
        if isinstance(error, ApiError):
            problem = make_problem(scope, error.status, error.code, error.detail, error.errors)
            await problem_response(problem, error.headers)(scope, receive, send)
        elif is_outage(error):
            problem = make_problem(scope, 503, "database_unavailable", "the database does not answer; retry")
            await problem_response(problem, {"Retry-After": str(RETRY_AFTER_SECONDS)})(scope, receive, send)
        else:
            logger.error("request %s failed", scope["lco.request_id"], exc_info=error)
            problem = make_problem(scope, 500, "internal_error", "the server failed; its log has the request id")
            await problem_response(problem)(scope, receive, send)


class HostAllowList:
    """Refuses a request with an unexpected Host header: so no web page reaches a loopback server by way of DNS."""

    def __init__(self, app: ASGIApp, hosts: list[str]) -> None:
        self.app = app
        self.hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] in ("http", "websocket"):
            hosts = Headers(scope=scope).getlist("host")
            if len(hosts) != 1 or not self.accepts(hosts[0]):
                raise ApiError(400, "invalid_host", "this Host header is not among the allowed hosts")
        await self.app(scope, receive, send)

    def accepts(self, host: str) -> bool:
        """Whether a Host header, with or without a port, is allowed."""
        match = re.fullmatch(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?", host)
        return match is not None and ("*" in self.hosts or match["name"].lower() in self.hosts)


class BodyCap:
    """Stops reading a body at the cap, whatever its Content-Length says.

    Args:
        uncapped: paths whose routes have a cap of their own and read no body otherwise.
    """

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BODY_BYTES, uncapped: frozenset[str] = frozenset()) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.uncapped = uncapped

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            raise ApiError(400, "invalid_content_length", "Content-Length is no number")
        if scope["path"] in self.uncapped and len(length) < 20:
            await self.app(scope, receive, send)
            return
        if len(length) > len(str(self.max_bytes)) or int(length) > self.max_bytes:
            raise self._too_large()
        num_bytes = 0

        async def receive_capped() -> Message:
            nonlocal num_bytes
            message = await receive()
            if message["type"] == "http.request":
                num_bytes += len(message.get("body", b""))
                if num_bytes > self.max_bytes:
                    raise self._too_large()
            return message

        await self.app(scope, receive_capped, send)

    def _too_large(self) -> ApiError:
        return ApiError(
            413, "body_too_large", f"the body has more than {self.max_bytes} bytes", headers={"Connection": "close"}
        )
