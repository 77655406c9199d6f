"""A connection to the API: sends calls, again where that may help, and reads their answers."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Self, TypeVar

import httpx2
from pydantic import BaseModel

from api import transport
from api.calls import base
from api.calls.base import Ask, AskList
from store.settings import Settings

T = TypeVar("T", bound=BaseModel)

TIMEOUT_SECONDS = 30.0


class Asking:
    """A connection to the API, and what sends its calls.

    Args:
        url: address; by default `LCO_URL`, else what `lco up` wrote into the data directory.
        key: API key; by default `LCO_API_KEY`, else the admin key in the data directory.
        http: a client to send with instead, such as FastAPI's TestClient.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        settings: Settings | None = None,
        http: httpx2.Client | None = None,
    ) -> None:
        self.url, key = transport.connection(settings, url, key)
        self._headers = transport.headers_of(key)
        self._http = http or httpx2.Client(base_url=self.url, timeout=TIMEOUT_SECONDS, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def show(self, identifier: str) -> BaseModel:
        """The object with an id, of whatever kind."""
        return self._ask(base.get(identifier, BaseModel))

    def _all(self, ask: AskList[T]) -> Iterator[T]:
        after = ask.cursor
        while True:
            page = self._ask(ask.page(after))
            yield from page.data
            if not page.has_more or page.last_id is None:
                return
            after = page.last_id

    def _stream(self, path: str, after: str, patience_seconds: float) -> Iterator[transport.Sent]:
        """Events as they come, until `end`; a stream that breaks is taken up where it was.

        Raises:
            ApiFailure: the API refuses, or is away for longer than the patience.
        """
        heard, tries = time.monotonic(), 0
        while True:
            response: httpx2.Response | None = None
            try:
                arguments = transport.stream_arguments(self._headers, after)
                with self._http.stream("GET", path, **arguments) as response:
                    if response.status_code >= 300:
                        response.read()
                        transport.check_stream(response)
                    lines = transport.EventLines()
                    for line in response.iter_lines():
                        heard, tries = time.monotonic(), 0
                        if (sent := lines.take(line)) is None:
                            continue
                        after = sent.id or after
                        yield sent
                        if sent.event == "end":
                            return
            except httpx2.TransportError as error:
                if time.monotonic() - heard > patience_seconds:
                    raise transport.unreachable(error, self.url) from error
            if response is not None and response.status_code >= 300 and time.monotonic() - heard > patience_seconds:
                raise transport.failure(response)
            time.sleep(transport.wait_seconds(tries, response))
            tries += 1

    def _ask(self, ask: Ask[T]) -> T:
        return ask.answer.model_validate(transport.document(self._send(ask.call)))

    def _send(self, call: transport.Call) -> httpx2.Response:
        """Sends a request, again where that may help."""
        arguments = call.arguments()
        arguments["headers"] = {**self._headers, **arguments["headers"]}
        for tries in range(transport.MAX_TRIES):
            try:
                response = self._http.request(**arguments)
            except httpx2.TransportError as error:
                if tries + 1 == transport.MAX_TRIES:
                    raise transport.unreachable(error, self.url) from error
                response = None
            if response is not None and not transport.is_retried(call, response, tries):
                return response
            time.sleep(transport.wait_seconds(tries, response))
        raise AssertionError("the last try returns or raises")


class AsyncAsking:
    """The same, asynchronously; the arguments are those of `Asking`."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        settings: Settings | None = None,
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        self.url, key = transport.connection(settings, url, key)
        self._headers = transport.headers_of(key)
        self._http = http or httpx2.AsyncClient(base_url=self.url, timeout=TIMEOUT_SECONDS, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def show(self, identifier: str) -> BaseModel:
        """The object with an id, of whatever kind."""
        return await self._ask(base.get(identifier, BaseModel))

    async def _all(self, ask: AskList[T]) -> AsyncIterator[T]:
        after = ask.cursor
        while True:
            page = await self._ask(ask.page(after))
            for item in page.data:
                yield item
            if not page.has_more or page.last_id is None:
                return
            after = page.last_id

    async def _stream(self, path: str, after: str, patience_seconds: float) -> AsyncIterator[transport.Sent]:
        """Events as they come, until `end`; a stream that breaks is taken up where it was."""
        heard, tries = time.monotonic(), 0
        while True:
            response: httpx2.Response | None = None
            try:
                async with self._http.stream(
                    "GET", path, **transport.stream_arguments(self._headers, after)
                ) as response:
                    if response.status_code >= 300:
                        await response.aread()
                        transport.check_stream(response)
                    lines = transport.EventLines()
                    async for line in response.aiter_lines():
                        heard, tries = time.monotonic(), 0
                        if (sent := lines.take(line)) is None:
                            continue
                        after = sent.id or after
                        yield sent
                        if sent.event == "end":
                            return
            except httpx2.TransportError as error:
                if time.monotonic() - heard > patience_seconds:
                    raise transport.unreachable(error, self.url) from error
            if response is not None and response.status_code >= 300 and time.monotonic() - heard > patience_seconds:
                raise transport.failure(response)
            await asyncio.sleep(transport.wait_seconds(tries, response))
            tries += 1

    async def _ask(self, ask: Ask[T]) -> T:
        return ask.answer.model_validate(transport.document(await self._send(ask.call)))

    async def _send(self, call: transport.Call) -> httpx2.Response:
        """Sends a request, again where that may help."""
        arguments = call.arguments()
        arguments["headers"] = {**self._headers, **arguments["headers"]}
        for tries in range(transport.MAX_TRIES):
            try:
                response = await self._http.request(**arguments)
            except httpx2.TransportError as error:
                if tries + 1 == transport.MAX_TRIES:
                    raise transport.unreachable(error, self.url) from error
                response = None
            if response is not None and not transport.is_retried(call, response, tries):
                return response
            await asyncio.sleep(transport.wait_seconds(tries, response))
        raise AssertionError("the last try returns or raises")
