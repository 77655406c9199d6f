"""HTTP to one origin: the only place of the evaluation that opens connections.

Every request goes to the origin of its configuration, with listed headers and the key, through no proxy. Each address
is checked when it is connected to, so that a name that resolves to something else later gains nothing. Time and size
bound a reply as a whole: a server that drips bytes is cut off like one that is silent.
"""

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

import httpcore2
import httpx2

from lco.endpoint_config import origin_of

_SENT_HEADERS = frozenset({"host", "content-type", "content-length", "accept", "connection"})
_CONNECT_SECONDS = 15.0
_METADATA = frozenset({"168.63.129.16", "fd00:ec2::254", "100.100.100.200"})


class BadReply(httpx2.RequestError):
    """A try without a whole reply; `reason` says why, in a word."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class ForbiddenAddress(httpx2.RequestError):
    """The configuration leads to an address that no request goes to."""


class Server(Protocol):
    """The server that requests go to, and how much of it."""

    @property
    def origin(self) -> str:
        """Scheme, host and port."""

    @property
    def max_response_bytes(self) -> int:
        """Longest reply."""

    @property
    def max_concurrency(self) -> int:
        """Connections at a time."""


class Transport(httpx2.BaseTransport):
    """Sends requests to one origin and reads their replies whole. Thread-safe."""

    def __init__(self, config: Server, key_header: tuple[str, str] | None) -> None:
        self._origin, self._key_header = config.origin, key_header
        self._max_bytes = config.max_response_bytes
        self._deadline = threading.local()
        self._pool = httpcore2.ConnectionPool(
            ssl_context=httpx2.create_ssl_context(trust_env=False),
            max_connections=config.max_concurrency,
            network_backend=CheckedBackend(
                self._deadline, partial(check_address, is_plain=config.origin.startswith("http://"))
            ),
        )

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Sends one request; its time is the read timeout of the request.

        Raises:
            BadReply: no whole reply came.
            ForbiddenAddress: the address is none that may be connected to.
        """
        url = request.url
        if origin_of(f"{url.scheme}://{url.netloc.decode()}") != self._origin:
            raise ForbiddenAddress("a request for another origin")
        self._deadline.at = time.monotonic() + request.extensions["timeout"]["read"]
        headers = [(name, text) for name, text in request.headers.items() if name.lower() in _SENT_HEADERS]
        headers += [("accept-encoding", "identity"), ("user-agent", "lco-evaluation")]
        headers += [self._key_header] if self._key_header else []
        sent = httpcore2.Request(
            method=request.method,
            url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=headers,
            content=request.read(),
            extensions={"timeout": {"pool": None}},
        )
        try:
            reply = self._pool.handle_request(sent)
            try:
                body = self._body(reply)
            finally:
                reply.close()
        except httpcore2.TimeoutException as error:
            raise BadReply("connection" if isinstance(error, httpcore2.ConnectTimeout) else "timeout") from error
        except httpcore2.ConnectError as error:
            raise BadReply(
                "tls" if isinstance(error.__cause__ or error.__context__, ssl.SSLError) else "connection"
            ) from error
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise BadReply("cut") from error
        kept = [(name, text) for name, text in reply.headers if name.lower() not in (b"transfer-encoding",)]
        return httpx2.Response(reply.status, headers=kept, content=body)

    def _body(self, reply: httpcore2.Response) -> bytes:
        encodings = [text for name, text in reply.headers if name.lower() == b"content-encoding"]
        if encodings not in ([], [b"identity"]):
            raise BadReply("garbage")  # not asked for; unpacking it could make more of it than the bound
        parts, size = [], 0
        assert isinstance(reply.stream, Iterable)
        for part in reply.stream:
            size += len(part)
            if size > self._max_bytes:
                raise BadReply("too_large")
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        """Closes idle connections."""
        self._pool.close()


def check_address(address: str, *, is_plain: bool) -> None:
    """Refuses what no endpoint can be: link-local, cloud metadata, multicast; and plain http beyond private networks.

    Raises:
        ForbiddenAddress: the address is one of these.
    """
    found: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        embedded = found.ipv4_mapped or found.sixtofour or _nat64(found)
        found = embedded or found
    if found.is_link_local or found.is_multicast or found.is_unspecified or str(found) in _METADATA:
        raise ForbiddenAddress("the host resolves to an address that is no server's")
    if is_plain and not (found.is_loopback or found.is_private):
        raise ForbiddenAddress("plain http goes to loopback and private addresses only; write https")


def _nat64(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    prefix, rest = divmod(int(address), 1 << 32)
    return ipaddress.IPv4Address(rest) if prefix == int(ipaddress.IPv6Address("64:ff9b::")) >> 32 else None


class CheckedBackend(httpcore2.NetworkBackend):
    """Connects to checked addresses; its streams end at the deadline of the thread that uses them.

    Args:
        deadline: `at` is the monotonic time at which the calling thread's request must have ended.
        check: raises for an address that may not be connected to.
    """

    def __init__(self, deadline: threading.local, check: Callable[[str], None]) -> None:
        self._deadline, self._check = deadline, check
        self._inner = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """A connection to the first address of the host that takes one."""
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError("the host is not known") from error
        addresses = list(dict.fromkeys(str(row[4][0]) for row in rows))
        for address in addresses:
            self._check(address)
        for address in addresses[:-1]:
            try:
                return self._connected(address, port, socket_options)
            except httpcore2.ConnectError:
                continue
        return self._connected(addresses[-1], port, socket_options)

    def _connected(
        self, address: str, port: int, socket_options: Iterable[httpcore2.SOCKET_OPTION] | None
    ) -> httpcore2.NetworkStream:
        seconds = _left(self._deadline, _CONNECT_SECONDS, httpcore2.ConnectTimeout)
        return _Stream(self._inner.connect_tcp(address, port, seconds, None, socket_options), self._deadline)


class _Stream(httpcore2.NetworkStream):
    """A connection whose every operation ends at the deadline of the calling thread."""

    def __init__(self, inner: httpcore2.NetworkStream, deadline: threading.local) -> None:
        self._inner, self._deadline = inner, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _left(self._deadline, timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, _left(self._deadline, timeout, httpcore2.WriteTimeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        seconds = _left(self._deadline, timeout, httpcore2.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, seconds), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _left(deadline: threading.local, timeout: float | None, late: type[httpcore2.TimeoutException]) -> float:
    """Seconds until the deadline, at most the timeout."""
    seconds: float = deadline.at - time.monotonic()
    if seconds <= 0:
        raise late("the reply took too long")
    return seconds if timeout is None else min(seconds, timeout)
